"""CreateRun: what is accepted, what is refused and leaves nothing, and what a repeated call means."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.common import run_pb2 as common_run_pb2
from flyteidl2.core import types_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.workflow import run_service_pb2
from google.protobuf.message import Message

from flyte_unified.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    FlyteUnifiedError,
    InvalidArgument,
    NotFound,
)
from flyte_unified.core.ids import RunKey, run_key
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.api import cache_key, inputs_hash
from flyte_unified.ledger.api import TaskId
from tests.unit.runs.world import A0, ORG, R1, World, context, inputs, task_spec

INT = types_pb2.INTEGER


def request(name: str = "", **fields: Message | None) -> run_service_pb2.CreateRunRequest:
    """A run of a task with the inputs a and b (default 7), named or not."""
    message = run_service_pb2.CreateRunRequest(task_spec=task_spec(a=INT, b=INT), inputs=inputs(a=1))
    if name:
        message.run_id.org, message.run_id.project, message.run_id.domain, message.run_id.name = ORG, *R1[:2], name
    else:
        message.project_id.organization, message.project_id.name, message.project_id.domain = ORG, "p", "development"
    for field, value in fields.items():
        message.ClearField(field)
        if value is not None:
            getattr(message, field).CopyFrom(value)
    return message


async def test_a_run_is_its_root_action_queued(world: World) -> None:
    """The reply and the ledger agree; labels, the caller and the start time are kept; the org is echoed."""
    spec = run_pb2.RunSpec(queue="gpu")
    spec.labels.values["team"] = "x"
    response = await world.handlers.create_run(request("r1", run_spec=spec), context("ann"))
    action = response.run.action
    assert (action.id.run.org, run_key(action.id.run), action.id.name) == (ORG, R1, "a0")
    assert (action.status.phase, action.status.attempts) == (int(Phase.QUEUED), 1)
    assert action.metadata.executed_by.user.id.subject == "ann"
    assert dict(response.run.labels) == {"team": "x"}
    root = await world.ledger.action(A0)
    assert (root.phase, root.queue, root.parent) == (Phase.QUEUED, "gpu", None)
    run, stored = await world.ledger.run(R1)
    assert stored.run_start_time.ToMicroseconds() == run.start_time == run.created_at
    assert stored.task_spec_source == run_pb2.TASK_SPEC_SOURCE_EPHEMERAL


async def test_inline_inputs_are_stored_with_the_defaults_filled(world: World) -> None:
    """In the order of the interface, in inputs.pb below the run's own directory."""
    await world.handlers.create_run(request("r1"), context())
    root = await world.ledger.action(A0)
    stored = common_pb2.Inputs.FromString(await world.data.get(root.input_uri))
    assert stored == inputs(a=1, b=7)
    assert root.input_uri.startswith(f"{world.base}/p/development/r1/")
    assert root.input_uri.endswith("/inputs.pb")
    assert root.output_base == f"{world.base}/p/development/r1"


async def test_offloaded_inputs_stay_where_they_are(world: World) -> None:
    """The directory and the file itself are both taken as the address; the given hash makes the cache key."""
    uri = f"{world.base}/elsewhere/inputs.pb"
    await world.data.put(uri, inputs(a=1, b=7).SerializeToString())
    spec = task_spec(a=INT, b=INT)
    spec.task_template.metadata.discoverable = True
    for name, address in (("r1", uri), ("r2", f"{world.base}/elsewhere")):
        offloaded = common_run_pb2.OffloadedInputData(uri=address, inputs_hash="h")
        await world.handlers.create_run(request(name, task_spec=spec, offloaded_input_data=offloaded), context())
        root = await world.ledger.action(RunKey("p", "development", name).action("a0"))
        assert (root.input_uri, root.cache_key) == (uri, cache_key(spec, "h"))


async def test_only_a_discoverable_task_has_a_cache_key(world: World) -> None:
    """Of the inputs that count."""
    await world.handlers.create_run(request("r1"), context())
    spec = task_spec(a=INT, b=INT)
    spec.task_template.metadata.discoverable = True
    spec.task_template.metadata.cache_ignore_input_vars.append("b")
    await world.handlers.create_run(request("r2", task_spec=spec), context())
    assert (await world.ledger.action(A0)).cache_key == ""
    root = await world.ledger.action(RunKey("p", "development", "r2").action("a0"))
    assert root.cache_key == cache_key(spec, inputs_hash(inputs(a=1))) != ""


async def test_a_deployed_task_is_found_by_its_id(world: World) -> None:
    """And the run says that it is of a deployed one; an unknown version is NotFound."""
    spec = task_spec(a=INT, b=INT)
    world.specs.tasks[TaskId("p", "development", "env.main", "v1")] = spec
    message = request("r1", task_spec=None)
    message.task_id.project, message.task_id.domain, message.task_id.name = "p", "development", "env.main"
    message.task_id.version = "v1"
    await world.handlers.create_run(message, context())
    assert (await world.ledger.run(R1))[1].task_spec_source == run_pb2.TASK_SPEC_SOURCE_DEPLOYED
    assert await world.ledger.spec((await world.ledger.action(A0)).spec_digest or "") == spec
    message.task_id.version = "v2"
    with pytest.raises(NotFound, match="v2"):
        await world.handlers.create_run(message, context())


async def test_the_start_time_is_the_callers_when_given(world: World) -> None:
    """A scheduler names the time for which it fires."""
    message = request("r1")
    message.run_start_time.FromMicroseconds(1_000_000)
    await world.handlers.create_run(message, context())
    run, spec = await world.ledger.run(R1)
    assert run.start_time == spec.run_start_time.ToMicroseconds() == 1_000_000


async def test_the_same_call_again_is_the_same_run(world: World) -> None:
    """Whether it still runs or not, and although its inputs are no longer stored; nothing is stored anew."""
    await world.handlers.create_run(request("r1"), context())
    await world.move(A0, Phase.RUNNING, Phase.SUCCEEDED)
    before = await world.ledger.action(A0)
    await world.data.delete(before.input_uri)
    again = await world.handlers.create_run(request("r1"), context())
    assert again.run.action.status.phase == int(Phase.SUCCEEDED)
    assert (await world.ledger.action(A0), world.files()) == (before, [])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inputs": inputs(a=2)}, "inputs"),
        ({"run_spec": run_pb2.RunSpec(queue="q")}, "run_spec"),
        ({"task_spec": task_spec(version="v2", a=INT, b=INT)}, "task"),
        ({"task_spec": task_spec(a=INT), "inputs": inputs(a=3)}, "task and inputs"),
    ],
)
async def test_a_taken_name_with_other_content_is_refused(world: World, change: dict[str, Message], told: str) -> None:
    """AlreadyExists names what differs; the stored run and its inputs stay as they are."""
    await world.handlers.create_run(request("r1"), context())
    root, files = await world.ledger.action(A0), world.files()
    with pytest.raises(AlreadyExists, match=f"run_id.name: run p/development/r1 exists, and differs in {told}$"):
        await world.handlers.create_run(request("r1", **change), context())
    assert (await world.ledger.action(A0), world.files()) == (root, files)


async def test_racing_calls_for_one_name(world: World) -> None:
    """One content wins; calls with the same content get its run, others are told; the winner's inputs are its own."""
    calls = [world.handlers.create_run(request("r1", inputs=inputs(a=index % 2)), context()) for index in range(8)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    won = [isinstance(answer, run_service_pb2.CreateRunResponse) for answer in answers]
    assert all(isinstance(answer, AlreadyExists) for answer, ok in zip(answers, won, strict=True) if not ok)
    assert won in ([True, False] * 4, [False, True] * 4)
    root = await world.ledger.action(A0)
    stored = common_pb2.Inputs.FromString(await world.data.get(root.input_uri))
    assert stored == inputs(a=won.index(True), b=7)


async def test_an_unnamed_call_repeated_is_the_same_run(world: World) -> None:
    """By its x-request-id, also when both are under way at once; the inputs are stored once."""
    calls = [world.handlers.create_run(request(), context(request_id="one")) for _ in range(4)]
    names = {response.run.action.id.run.name for response in await asyncio.gather(*calls)}
    names.add((await world.handlers.create_run(request(), context(request_id="one"))).run.action.id.run.name)
    assert len(names) == len(world.files()) == 1


async def test_a_request_id_by_chance_the_same(world: World) -> None:
    """With other content, or long after, it is another call and makes another run, as it does without an id."""
    names = set()
    for message in (request(), request(inputs=inputs(a=2))):
        names.add((await world.handlers.create_run(message, context(request_id="one"))).run.action.id.run.name)
    world.clock.ahead = 3600
    names.add((await world.handlers.create_run(request(), context(request_id="one"))).run.action.id.run.name)
    for _ in range(2):
        names.add((await world.handlers.create_run(request(), context())).run.action.id.run.name)
    assert len(names) == 5


def _without_interface() -> task_definition_pb2.TaskSpec:
    spec = task_spec()
    spec.task_template.ClearField("interface")
    return spec


def _of_project(name: str) -> task_definition_pb2.TaskSpec:
    spec = task_spec()
    spec.task_template.id.project = name
    return spec


def _recovering(run: str) -> run_pb2.RunSpec:
    relation = common_run_pb2.Relation(relation_type=common_run_pb2.RELATION_TYPE_RECOVER)
    relation.related_to.CopyFrom(identifier_pb2.RunIdentifier(project="p", domain="development", name=run))
    return run_pb2.RunSpec(relation=relation)


def _offloaded(uri: str) -> common_run_pb2.OffloadedInputData:
    return common_run_pb2.OffloadedInputData(uri=uri, inputs_hash="h")


@pytest.mark.parametrize(
    ("message", "error", "told"),
    [
        (request("r1", run_id=None), InvalidArgument, "id: one of"),
        (request("R_1"), InvalidArgument, "run_id.name"),
        (request("r" * 31), InvalidArgument, "run_id.name"),
        (request("r1", task_spec=None), InvalidArgument, "task: one of"),
        (request("r1", task_spec=_without_interface()), InvalidArgument, "task_template.interface"),
        (request("r1", task_spec=task_spec(name="", a=INT)), InvalidArgument, "task_template.id.name is empty"),
        (request("r1", task_spec=task_spec(name="x" * 256, a=INT)), InvalidArgument, "has 256 characters"),
        (request("r1", task_spec=task_spec(version="x" * 256, a=INT)), InvalidArgument, "id.version has 256"),
        (request("r1", task_spec=task_spec(name="x\0", a=INT)), InvalidArgument, "printable characters only"),
        (request("r1", task_spec=_of_project("\u4e00" * 63)), InvalidArgument, "id.project: "),
        (request("r1", inputs=inputs(b=1)), InvalidArgument, "'a' missing"),
        (request("r1", inputs=inputs(a=1, c=1)), InvalidArgument, "no input 'c'"),
        (request("r1", offloaded_input_data=_offloaded("")), InvalidArgument, "offloaded_input_data.uri is empty"),
        (request("r1", offloaded_input_data=_offloaded("/etc")), InvalidArgument, "not below the server's storage"),
        (request("r1", run_spec=run_pb2.RunSpec(run_base_dir="/etc")), InvalidArgument, "run_spec.run_base_dir"),
        (request("r1", run_spec=_recovering("")), InvalidArgument, "run_spec.relation.related_to.name is empty"),
    ],
)
async def test_what_is_wrong_is_refused(
    world: World, message: run_service_pb2.CreateRunRequest, error: type[FlyteUnifiedError], told: str
) -> None:
    """With the field's name, and nothing is stored: no row, no file."""
    with pytest.raises(error) as raised:
        await world.handlers.create_run(message, context())
    assert told in raised.value.message
    assert world.files() == []
    assert await world.ledger.live() == []


async def test_unknown_places_and_triggers(world: World) -> None:
    """A project or domain that does not exist is NotFound, and so is a trigger."""
    for field in ("project", "domain"):
        message = request("r1")
        setattr(message.run_id, field, "other")
        with pytest.raises(NotFound, match="other"):
            await world.handlers.create_run(message, context())
    message = request("r1")
    message.trigger_name.project, message.trigger_name.domain = "p", "development"
    message.trigger_name.name = "nightly"
    with pytest.raises(NotFound, match="'nightly'"):
        await world.handlers.create_run(message, context())


async def test_missing_offloaded_inputs_are_told_at_once(world: World) -> None:
    """Not by a task that can't read them."""
    message = request("r1", offloaded_input_data=_offloaded(f"{world.base}/none"))
    with pytest.raises(InvalidArgument, match="there is no inputs"):
        await world.handlers.create_run(message, context())


@pytest.mark.parametrize("option", ["--tgz", "--pkl"])
async def test_a_missing_code_bundle_is_told_at_once(world: World, option: str) -> None:
    """With the command that makes the client upload it again; one that exists, or is not ours to see, is no fault."""
    spec = task_spec(a=INT, b=INT)
    bundle = f"{world.base}/bundles/fast1.tar.gz"
    spec.task_template.container.args.extend([option, bundle, "--dest", "."])
    with pytest.raises(FailedPrecondition, match="flyte delete local-cache"):
        await world.handlers.create_run(request("r1", task_spec=spec), context())
    assert world.files() == []
    await world.data.put(bundle, b"code")
    await world.handlers.create_run(request("r1", task_spec=spec), context())
    spec.task_template.container.args[-3] = "s3://elsewhere/fast1.tar.gz"
    await world.handlers.create_run(request("r2", task_spec=spec), context())


async def test_a_run_may_have_a_base_of_its_own(world: World) -> None:
    """Below the server's storage; inputs and outputs lie there."""
    base = str(Path(world.base) / "mine")
    await world.handlers.create_run(request("r1", run_spec=run_pb2.RunSpec(run_base_dir=base)), context())
    root = await world.ledger.action(A0)
    assert root.output_base == f"{base}/p/development/r1"
    assert root.input_uri.startswith(base)


async def test_a_related_run_is_a_rerun(world: World) -> None:
    """The older field counts where the newer one is not set, and the relation is shown with the root."""
    spec = run_pb2.RunSpec()
    spec.related_to.name = "r0"
    response = await world.handlers.create_run(request("r1", run_spec=spec), context())
    relation = response.run.action.metadata.relation
    assert (relation.related_to.name, relation.relation_type) == ("r0", common_run_pb2.RELATION_TYPE_RERUN)


async def test_a_run_knows_which_spawned_it(world: World) -> None:
    """Of whatever kind it is, a relation is kept and shown as it was said."""
    spec = run_pb2.RunSpec()
    spec.relation.related_to.name = "r0"
    spec.relation.relation_type = common_run_pb2.RELATION_TYPE_SPAWN
    response = await world.handlers.create_run(request("r1", run_spec=spec), context())
    assert response.run.action.metadata.relation == spec.relation
