"""What is read back of an action, and links to its report and code."""

from __future__ import annotations

from pathlib import Path

import pytest
from flyteidl2.core import execution_pb2, literals_pb2, tasks_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy
from flyteidl2.task import common_pb2, task_definition_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, Unimplemented
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.bundles import code_bundle
from flyte_unified.ledger.api import Action, ActionType, Failure, Move, Retry, TaskId, first_record
from tests.unit.dataproxy.conftest import ROOT, Proxy, task_spec

_URL = "http://localhost:30080"
Literal = literals_pb2.Literal


def _literal(value: int) -> Literal:
    return Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=value)))


def _named(name: str, value: int) -> common_pb2.NamedLiteral:
    return common_pb2.NamedLiteral(name=name, value=_literal(value))


async def _stored(proxy: Proxy, *, at: str, inputs: common_pb2.Inputs) -> str:
    uri = f"{proxy.store.base('objects')}/{at}"
    await proxy.store.put(uri + "/inputs.pb", inputs.SerializeToString())
    return uri


@pytest.mark.parametrize("suffix", ["", "/inputs.pb"], ids=["directory", "file"])
async def test_inputs_and_outputs(proxy: Proxy, suffix: str) -> None:
    """Both come back whole with their addresses, whether the action was given the directory or the file."""
    inputs = common_pb2.Inputs(literals=[_named("n", 1)])
    inputs.context.add(key="k", value="v")
    uri = await _stored(proxy, at="in", inputs=inputs)
    await proxy.run(input_uri=uri + suffix)
    outputs = common_pb2.Outputs(literals=[_named("o0", 2)])
    prefix = f"{proxy.store.base('objects')}/out/1"
    await proxy.store.put(prefix + "/outputs.pb", outputs.SerializeToString())
    await proxy.ledger.move(ROOT, Move(to=Phase.SUCCEEDED, output_uri=prefix))
    data = await proxy.downloads.data(ROOT)
    assert data.inputs == inputs
    assert data.outputs == outputs
    assert (data.inputs_uri, data.outputs_uri) == (uri + "/inputs.pb", prefix + "/outputs.pb")


async def test_an_action_without_outputs_has_empty_ones(proxy: Proxy) -> None:
    """Running, failed or succeeded without a file: no outputs, and no error."""
    uri = await _stored(proxy, at="in", inputs=common_pb2.Inputs())
    await proxy.run(input_uri=uri)
    for phase in (Phase.RUNNING, Phase.SUCCEEDED):
        prefix = f"{proxy.store.base('objects')}/out/1"
        await proxy.ledger.move(ROOT, Move(to=phase, output_uri=prefix))
        data = await proxy.downloads.data(ROOT)
        assert data.outputs == common_pb2.Outputs()
        assert data.outputs_uri == ""


async def test_outputs_of_what_did_not_succeed_are_not_read(proxy: Proxy) -> None:
    """A file that a failed attempt left behind is no output."""
    await proxy.run()
    prefix = f"{proxy.store.base('objects')}/out/1"
    outputs = common_pb2.Outputs(literals=[_named("o0", 2)])
    await proxy.store.put(prefix + "/outputs.pb", outputs.SerializeToString())
    await proxy.ledger.move(ROOT, Move(to=Phase.FAILED, output_uri=prefix))
    assert (await proxy.downloads.data(ROOT)).outputs == common_pb2.Outputs()


async def test_lost_inputs_are_named(proxy: Proxy) -> None:
    """The SDK recognises missing inputs by that word in NOT_FOUND; an unknown action is NOT_FOUND too, without it."""
    await proxy.run(input_uri=f"{proxy.store.base('objects')}/nowhere")
    with pytest.raises(NotFound, match="inputs"):
        await proxy.downloads.data(ROOT)
    with pytest.raises(NotFound) as unknown:
        await proxy.downloads.data(ROOT.sibling("other"))
    assert "inputs" not in unknown.value.message


async def test_files_elsewhere_are_not_read(proxy: Proxy, tmp_path: Path) -> None:
    """An address that a task gave does not make the server read outside of its storage."""
    (tmp_path / "inputs.pb").write_bytes(b"")
    await proxy.run(input_uri=str(tmp_path))
    with pytest.raises(PermissionDenied):
        await proxy.downloads.data(ROOT)


async def test_too_much_is_refused(proxy: Proxy) -> None:
    """Inputs beyond the bound on messages are refused instead of read into memory."""
    uri = f"{proxy.store.base('objects')}/in"
    await proxy.store.put(uri + "/inputs.pb", b"\0" * (2 << 20))
    await proxy.run(input_uri=uri)
    with pytest.raises(ResourceExhausted):
        await proxy.downloads.data(ROOT)


async def _child(proxy: Proxy, name: str, kind: ActionType, *, phase: Phase, **fields: object) -> Action:
    now = SystemClock().now()
    action = Action(
        key=ROOT.sibling(name),
        parent="a0",
        depth=1,
        action_type=kind,
        phase=phase,
        created_at=now,
        updated_at=now,
        task=TaskId(name=name),
        record=first_record(phase, at=now).SerializeToString(),
        **fields,  # type: ignore[arg-type]  # columns of the row, checked by the dataclass
    )
    return (await proxy.ledger.enqueue(action))[0]


async def test_traces_and_conditions(proxy: Proxy) -> None:
    """A trace names its outputs file itself; the value of a condition is the ledger's own."""
    await proxy.run()
    uri = f"{proxy.store.base('objects')}/t1/outputs.pb"
    outputs = common_pb2.Outputs(literals=[_named("o0", 5)])
    await proxy.store.put(uri, outputs.SerializeToString())
    trace = await _child(proxy, "t1", ActionType.TRACE, phase=Phase.SUCCEEDED, output_uri=uri)
    assert (await proxy.downloads.data(trace.key)).outputs == outputs
    condition = await _child(proxy, "c1", ActionType.CONDITION, phase=Phase.PAUSED)
    assert (await proxy.downloads.data(condition.key)).outputs == common_pb2.Outputs()
    await proxy.ledger.move(condition.key, Move(to=Phase.SUCCEEDED, value=_literal(6).SerializeToString()))
    data = await proxy.downloads.data(condition.key)
    assert [literal.value for literal in data.outputs.literals] == [_literal(6)]


def _link(kind: int = dataproxy.ARTIFACT_TYPE_REPORT, *, attempt: int = 1) -> dataproxy.CreateDownloadLinkRequest:
    request = dataproxy.CreateDownloadLinkRequest(artifact_type=kind)  # type: ignore[arg-type]  # an enum's number
    request.action_attempt_id.action_id.CopyFrom(ROOT.idl())
    request.action_attempt_id.attempt = attempt
    return request


async def test_a_report_of_each_attempt(proxy: Proxy) -> None:
    """Each attempt has its own report; 0 is the latest; one that is still written is found where it is written."""
    root = await proxy.run()
    for attempt in (1, 2):
        await proxy.store.put(f"{root.output_base}/a0/{attempt}/report.html", b"%d" % attempt)
    await proxy.ledger.move(ROOT, Move(to=Phase.RUNNING))
    error = execution_pb2.ExecutionError(code="X", message="x")
    await proxy.ledger.move(ROOT, Retry(attempt=1, error=error, failure=Failure.USER))
    for asked, expected in ((1, 1), (2, 2), (0, 2)):
        links = (await proxy.downloads.link(_link(attempt=asked), base_url=_URL)).pre_signed_urls
        assert len(links.signed_url) == 1
        assert f"/a0/{expected}/report.html?" in links.signed_url[0]
        assert links.signed_url[0].startswith(_URL + "/data/")
        assert links.HasField("expires_at")
    await proxy.store.put(f"{proxy.store.base('objects')}/elsewhere.html", b"x")
    elsewhere = f"{proxy.store.base('objects')}/elsewhere.html"
    await proxy.ledger.move(ROOT, Move(to=Phase.SUCCEEDED, report_uri=elsewhere))
    links = (await proxy.downloads.link(_link(attempt=2), base_url=_URL)).pre_signed_urls
    assert "/elsewhere.html?" in links.signed_url[0]


async def test_links_that_are_refused(proxy: Proxy) -> None:
    """No report, no such attempt, no source, an unknown kind, too long a life: each has its own answer."""
    await proxy.run()
    with pytest.raises(NotFound, match=r"report\.html"):
        await proxy.downloads.link(_link(), base_url=_URL)
    with pytest.raises(NotFound, match="no attempt 3"):
        await proxy.downloads.link(_link(attempt=3), base_url=_URL)
    with pytest.raises(InvalidArgument, match="artifact_type"):
        await proxy.downloads.link(_link(dataproxy.ARTIFACT_TYPE_UNSPECIFIED), base_url=_URL)
    with pytest.raises(InvalidArgument, match="source"):
        await proxy.downloads.link(
            dataproxy.CreateDownloadLinkRequest(artifact_type=dataproxy.ARTIFACT_TYPE_REPORT), base_url=_URL
        )
    long = _link()
    long.expires_in.CopyFrom(Duration(seconds=7200))
    with pytest.raises(InvalidArgument, match="expires_in"):
        await proxy.downloads.link(long, base_url=_URL)
    app = dataproxy.CreateDownloadLinkRequest(artifact_type=dataproxy.ARTIFACT_TYPE_CODE_BUNDLE)
    app.app_id.name = "app"
    with pytest.raises(Unimplemented):
        await proxy.downloads.link(app, base_url=_URL)
    task = dataproxy.CreateDownloadLinkRequest(artifact_type=dataproxy.ARTIFACT_TYPE_REPORT)
    task.task_id.name = "t"
    with pytest.raises(InvalidArgument, match="action_attempt_id"):
        await proxy.downloads.link(task, base_url=_URL)


async def test_code_of_an_action_and_of_a_task(proxy: Proxy) -> None:
    """The bundle that the command line names, of what ran and of what is deployed; code in an image has no link."""
    uri = f"{proxy.store.base('bundles')}/p/development/0f/fast0f.tar.gz"
    await proxy.store.put(uri, b"code")
    spec = task_spec()
    spec.task_template.container.args.extend(["a0", "--tgz", uri, "--dest", "."])
    await proxy.run(spec=spec)
    links = (await proxy.downloads.link(_link(dataproxy.ARTIFACT_TYPE_CODE_BUNDLE), base_url=_URL)).pre_signed_urls
    assert "/data/bundles/p/development/0f/fast0f.tar.gz?" in links.signed_url[0]

    request = dataproxy.CreateDownloadLinkRequest(artifact_type=dataproxy.ARTIFACT_TYPE_CODE_BUNDLE)
    request.task_id.CopyFrom(
        task_definition_pb2.TaskIdentifier(project="p", domain="development", name="env.task", version="v1")
    )
    proxy.specs.tasks[TaskId("p", "development", "env.task", "v1")] = spec
    assert (await proxy.downloads.link(request, base_url=_URL)).pre_signed_urls.signed_url
    proxy.specs.tasks[TaskId("p", "development", "env.task", "v1")] = task_spec()
    with pytest.raises(NotFound, match="image"):
        await proxy.downloads.link(request, base_url=_URL)
    trace = await _child(proxy, "t1", ActionType.TRACE, phase=Phase.SUCCEEDED)
    of_trace = _link(dataproxy.ARTIFACT_TYPE_CODE_BUNDLE)
    of_trace.action_attempt_id.action_id.name = trace.key.name
    with pytest.raises(NotFound, match="no task"):
        await proxy.downloads.link(of_trace, base_url=_URL)


async def test_code_elsewhere_is_not_signed(proxy: Proxy) -> None:
    """A command line that names /etc/passwd does not open it."""
    spec = task_spec()
    spec.task_template.container.args.extend(["a0", "--tgz", "/etc/passwd"])
    await proxy.run(spec=spec)
    with pytest.raises(PermissionDenied):
        await proxy.downloads.link(_link(dataproxy.ARTIFACT_TYPE_CODE_BUNDLE), base_url=_URL)


def _pod(primary: str = "", config: str = "") -> tasks_pb2.TaskTemplate:
    containers = [
        {"name": "sidecar", "args": ["x", "--tgz", "/sidecar"]},
        {"name": "main", "command": ["a0"], "args": ["--tgz", "/main"]},
        {"name": "idle"},
    ]
    template = tasks_pb2.TaskTemplate(config={"primary_container_name": config} if config else {})
    template.k8s_pod.primary_container_name = primary
    ParseDict({"containers": containers}, template.k8s_pod.pod_spec)
    return template


def _container(*args: str, command: tuple[str, ...] = ()) -> tasks_pb2.TaskTemplate:
    return tasks_pb2.TaskTemplate(container=tasks_pb2.Container(command=command, args=args))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (_container("a0", "--tgz", "/x.tar.gz", "--dest", "."), "/x.tar.gz"),
        (_container("a0", "--pkl", "/x.pkl.gz"), "/x.pkl.gz"),
        (_container("--", command=("fserve", "--tgz", "/app.tar.gz")), "/app.tar.gz"),
        (_container("a0", "--tgz"), ""),
        (_container(), ""),
        (_pod(primary="main"), "/main"),
        (_pod(config="main"), "/main"),
        (_pod(), "/sidecar"),
        (tasks_pb2.TaskTemplate(), ""),
        (tasks_pb2.TaskTemplate(metadata=tasks_pb2.TaskMetadata(code_bundle_uri="/m.tar.gz")), "/m.tar.gz"),
    ],
    ids=["tgz", "pkl", "command", "no value", "no arguments", "primary", "config", "first", "nothing", "metadata"],
)
def test_where_the_code_is(template: tasks_pb2.TaskTemplate, expected: str) -> None:
    """The address after --tgz or --pkl, in the container or the pod's primary one first, else what the metadata say."""
    assert code_bundle(template) == expected
