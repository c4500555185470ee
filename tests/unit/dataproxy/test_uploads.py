"""Where files and inputs go, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy
from flyteidl2.task import common_pb2, task_definition_pb2
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.clock import SystemClock, micros
from flyte_unified.core.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from flyte_unified.dataproxy.uploads import Uploads, lifetime
from flyte_unified.ledger.api import TaskId
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import Signer
from tests.unit.dataproxy.conftest import FakeSpecs, Proxy, task_spec

_URL = "http://localhost:30080"


def _request(content: bytes = b"x", **fields: object) -> dataproxy.CreateUploadLocationRequest:
    values: dict[str, object] = {
        "project": "p",
        "domain": "development",
        "org": "127",
        "filename": "data.csv",
        "content_md5": hashlib.md5(content).digest(),
        "add_content_md5_metadata": True,
    }
    return dataproxy.CreateUploadLocationRequest(**(values | fields))


async def test_a_file_lies_under_its_content(proxy: Proxy) -> None:
    """The address is a bare absolute path that ends with the file's name; the same file again has the same one."""
    first = await proxy.uploads.location(_request(expires_in=Duration(seconds=900)), base_url=_URL)
    again = await proxy.uploads.location(_request(), base_url=_URL)
    assert first.native_url == again.native_url
    assert first.native_url.startswith(proxy.store.base("objects") + "/")
    assert Path(first.native_url).name == "data.csv"
    assert first.signed_url.startswith(_URL + "/data/")
    other = await proxy.uploads.location(_request(b"y"), base_url=_URL)
    assert other.native_url != first.native_url
    left = micros(first.expires_at) - SystemClock().now()
    assert 890e6 < left < 902e6


async def test_files_of_a_directory_share_their_root(proxy: Proxy) -> None:
    """The SDK cuts the address at filename_root to get the directory's, so the root is a part of it of its own."""
    root = "0f" * 16
    urls = [
        (await proxy.uploads.location(_request(name.encode(), filename=name, filename_root=root), base_url=_URL)).native_url
        for name in ("a.txt", "b.txt")
    ]
    directories = {url.split(root)[0] + root for url in urls}
    assert len(directories) == 1
    assert {Path(url).relative_to(directories.copy().pop()).as_posix() for url in urls} == {"a.txt", "b.txt"}


@pytest.mark.parametrize("name", ["fast0123456789abcdef.tar.gz", "code_bundle.pkl.gz"])
async def test_bundles_lie_where_they_stay(proxy: Proxy, name: str) -> None:
    """A code bundle's address does not depend on the data directory, because the SDK remembers it for a day."""
    location = await proxy.uploads.location(_request(filename=name), base_url=_URL)
    assert location.native_url.startswith(proxy.store.base("bundles") + "/p/development/")
    assert Path(location.native_url).name == name


async def test_a_name_is_made_where_none_is_given(proxy: Proxy) -> None:
    """Without a filename the address still names a file."""
    location = await proxy.uploads.location(_request(filename=""), base_url=_URL)
    assert Path(location.native_url).name == hashlib.md5(b"x").hexdigest()


async def test_other_content_under_the_same_name(proxy: Proxy) -> None:
    """A name below a root is given once: the same content again is fine, other content is AlreadyExists."""
    location = await proxy.uploads.location(_request(b"one", filename_root="r"), base_url=_URL)
    await proxy.store.put(location.native_url, b"one")
    await proxy.uploads.location(_request(b"one", filename_root="r"), base_url=_URL)
    with pytest.raises(AlreadyExists, match=r"filename: 'data\.csv'"):
        await proxy.uploads.location(_request(b"two", filename_root="r"), base_url=_URL)


async def test_the_report_of_a_tracked_run_grows(proxy: Proxy) -> None:
    """Reports of tracked runs are sent again while the run goes on, and replace each other; its outputs do not."""
    root = "tracked-runs/local-abc/a0/1"
    for name, content in (("report.html", b"one"), ("outputs.pb", b"one")):
        location = await proxy.uploads.location(_request(content, filename=name, filename_root=root), base_url=_URL)
        assert f"/{root}/" in location.native_url
        await proxy.store.put(location.native_url, content)
    replacing = await proxy.uploads.location(_request(b"two", filename="report.html", filename_root=root), base_url=_URL)
    assert "replace=1" in replacing.signed_url
    with pytest.raises(AlreadyExists):
        await proxy.uploads.location(_request(b"two", filename="outputs.pb", filename_root=root), base_url=_URL)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"project": ""}, "project"),
        ({"project": "../etc"}, "project"),
        ({"domain": ""}, "domain"),
        ({"content_md5": b""}, "content_md5"),
        ({"content_md5": b"short"}, "content_md5"),
        ({"filename": "../../etc/passwd"}, "filename"),
        ({"filename": "/etc/passwd"}, "filename"),
        ({"filename": "a\0b"}, "filename"),
        ({"filename_root": ".."}, "filename_root"),
        ({"filename_root": "/"}, None),
        ({"filename_root": "a/../../b"}, "filename_root"),
        ({"expires_in": Duration(seconds=3601)}, "expires_in"),
        ({"expires_in": Duration(seconds=-1)}, "expires_in"),
        ({"content_length": (1 << 30) + 1}, "content_length"),
        ({"content_length": -1}, "content_length"),
    ],
)
async def test_what_is_refused_is_named(proxy: Proxy, fields: dict[str, object], named: str | None) -> None:
    """A field that leads elsewhere or beyond a bound is InvalidArgument by its name; a root of nothing is no root."""
    if named is None:
        await proxy.uploads.location(_request(**fields), base_url=_URL)
        return
    with pytest.raises(InvalidArgument, match=f"^{named}"):
        await proxy.uploads.location(_request(**fields), base_url=_URL)


async def test_an_unknown_project(proxy: Proxy) -> None:
    """Nothing is stored for a project that does not exist."""
    with pytest.raises(NotFound, match="'q'"):
        await proxy.uploads.location(_request(project="q"), base_url=_URL)
    with pytest.raises(NotFound, match="'q'"):
        request = dataproxy.UploadInputsRequest(task_spec=task_spec())
        request.project_id.name, request.project_id.domain = "q", "development"
        await proxy.uploads.inputs(request)


async def test_a_full_disk(tmp_path: Path) -> None:
    """Uploads and inputs are refused before anything is sent, with the setting's name."""

    async def anything(project: str, domain: str) -> None: ...

    full = LocalStore({"o": tmp_path}, signer=Signer(b""), clock=SystemClock(), min_free_bytes=1 << 62)
    uploads = Uploads(
        store=full,
        specs=FakeSpecs(),
        require_project=anything,
        base=full.base("o"),
        bundles=full.base("o"),
        max_bytes=1,
        max_expiry=1,
    )
    with pytest.raises(ResourceExhausted, match="min_free_bytes"):
        await uploads.location(_request(), base_url=_URL)
    with pytest.raises(ResourceExhausted, match="min_free_bytes"):
        await uploads.inputs(_inputs(task_spec()))


@given(st.floats(0, 3600))
def test_lifetimes(asked: float) -> None:
    """Any time up to the limit is granted; none asked is the limit."""
    message = Duration()
    message.FromNanoseconds(round(asked * 1e9))
    granted = lifetime(message, limit=3600)
    assert granted == pytest.approx(message.ToNanoseconds() / 1e9 or 3600)


def _integer(value: int) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=value)))


def _inputs(spec: task_definition_pb2.TaskSpec | None = None, **values: int) -> dataproxy.UploadInputsRequest:
    request = dataproxy.UploadInputsRequest(task_spec=spec)
    request.project_id.name, request.project_id.domain = "p", "development"
    for name, value in values.items():
        request.inputs.literals.add(name=name, value=_integer(value))
    return request


_SPEC = task_spec(n=types_pb2.INTEGER, seed=types_pb2.INTEGER)
_SPEC.task_template.metadata.cache_ignore_input_vars.append("seed")


async def test_inputs_are_stored_whole(proxy: Proxy) -> None:
    """The answer is a file with what was sent, context included: the SDK reads a trigger's inputs there."""
    request = _inputs(_SPEC, n=1, seed=2)
    request.inputs.context.add(key="k", value="v")
    stored = await proxy.uploads.inputs(request)
    assert stored.inputs_hash
    assert Path(stored.uri).name == "inputs.pb"
    data = Path(stored.uri).read_bytes()
    assert common_pb2.Inputs.FromString(data) == request.inputs


async def test_runs_that_differ_in_ignored_inputs_share_a_key_but_no_file(proxy: Proxy) -> None:
    """What does not count for caching still counts for the run: two files, one hash. Equal inputs are one file."""
    one = await proxy.uploads.inputs(_inputs(_SPEC, n=1, seed=2))
    two = await proxy.uploads.inputs(_inputs(_SPEC, n=1, seed=3))
    again = await proxy.uploads.inputs(_inputs(_SPEC, n=1, seed=2))
    assert one.inputs_hash == two.inputs_hash
    assert one.uri != two.uri
    assert again == one


async def test_stored_inputs_are_never_overwritten(proxy: Proxy) -> None:
    """A file that is there stays, even if it is not what we would write."""
    stored = await proxy.uploads.inputs(_inputs(_SPEC, n=1, seed=2))
    file = Path(stored.uri)
    before = file.stat()
    await proxy.uploads.inputs(_inputs(_SPEC, n=1, seed=2))
    assert file.stat().st_ino == before.st_ino
    assert file.stat().st_mtime_ns == before.st_mtime_ns


async def test_defaults_are_stored_with_the_inputs(proxy: Proxy) -> None:
    """A task that has a default is run with it even where the client left it out."""
    spec = task_definition_pb2.TaskSpec()
    spec.CopyFrom(_SPEC)
    spec.default_inputs.add(name="seed").parameter.default.CopyFrom(_integer(7))
    stored = await proxy.uploads.inputs(_inputs(spec, n=1))
    inputs = common_pb2.Inputs.FromString(Path(stored.uri).read_bytes())
    assert {literal.name: literal.value.scalar.primitive.integer for literal in inputs.literals} == {"n": 1, "seed": 7}


async def test_inputs_of_triggers_may_be_incomplete(proxy: Proxy) -> None:
    """A trigger's inputs are completed when it fires; a name that the task does not have is wrong at any time."""
    await proxy.uploads.inputs(_inputs(_SPEC, n=1))
    with pytest.raises(InvalidArgument, match="'m'"):
        await proxy.uploads.inputs(_inputs(_SPEC, m=1))


async def test_the_task_by_spec_by_id_and_by_trigger(proxy: Proxy) -> None:
    """Whichever way the task is named, the same inputs give the same answer; one that is unknown is NotFound."""
    task = TaskId("p", "development", "env.task", "v1")
    proxy.specs.tasks[task] = _SPEC
    proxy.specs.triggers[task._replace(version=""), "daily"] = _SPEC
    by_spec = await proxy.uploads.inputs(_inputs(_SPEC, n=1, seed=2))
    request = _inputs(n=1, seed=2)
    with pytest.raises(InvalidArgument, match=r"^task"):
        await proxy.uploads.inputs(request)
    request.task_id.CopyFrom(
        task_definition_pb2.TaskIdentifier(org="x", project="p", domain="development", name="env.task", version="v1")
    )
    assert await proxy.uploads.inputs(request) == by_spec
    request.task_id.version = "v2"
    with pytest.raises(NotFound):
        await proxy.uploads.inputs(request)
    trigger = request.trigger_name
    trigger.project, trigger.domain, trigger.task_name, trigger.name = "p", "development", "env.task", "daily"
    assert await proxy.uploads.inputs(request) == by_spec


async def test_the_base_directory_of_a_run(proxy: Proxy) -> None:
    """Inputs go below base_dir where the run will look for its data; one outside of the storage is refused."""
    request = _inputs(_SPEC, n=1, seed=2)
    request.base_dir = proxy.store.base("objects") + "/mine/"
    stored = await proxy.uploads.inputs(request)
    assert stored.uri.startswith(proxy.store.base("objects") + "/mine/")
    for outside in ("/elsewhere", "s3://bucket/x", "relative", "/"):
        request.base_dir = outside
        with pytest.raises(InvalidArgument, match=r"^base_dir"):
            await proxy.uploads.inputs(request)


async def test_a_run_id_is_as_good_as_a_project(proxy: Proxy) -> None:
    """The id says only where; a request without one is refused."""
    request = _inputs(_SPEC, n=1, seed=2)
    expected = await proxy.uploads.inputs(request)
    request.run_id.project, request.run_id.domain, request.run_id.name = "p", "development", "r1"
    assert await proxy.uploads.inputs(request) == expected
    request.ClearField("run_id")
    with pytest.raises(InvalidArgument, match=r"^id"):
        await proxy.uploads.inputs(request)
