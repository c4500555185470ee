"""What the server must refuse, each with the code that clients act on; nothing is stored and the next call is served."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flyteidl2.common import list_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy_pb2
from flyteidl2.project import project_service_pb2 as project_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.workflow import run_service_pb2
from google.protobuf.message import Message

from flyte_unified.storage.signing import Grant, Signer, load_key
from tests.edge.wire import world as facts
from tests.edge.wire.raw import Stored
from tests.edge.wire.world import DATA, DOMAIN, PROJECT, RUNS, World

LOCATION = DATA + "CreateUploadLocation"
DEPLOY = "/flyteidl2.task.TaskService/DeployTask"


@pytest.fixture(autouse=True)
async def _unharmed(world: World, stored: Stored) -> AsyncIterator[None]:
    """Nothing more is stored, and the server answers."""
    before = stored.now()
    yield
    assert stored.now() == before
    await world.list_runs(run_service_pb2.ListRunsRequest())


def run(**fields: Any) -> run_service_pb2.CreateRunRequest:
    """A valid CreateRun but for ``fields``."""
    message = facts.create_run(facts.new_name("refused"))
    message.MergeFrom(run_service_pb2.CreateRunRequest(**fields))
    return message


def task(**template: Any) -> run_service_pb2.CreateRunRequest:
    message = run()
    for name, value in template.items():
        if value is None:
            message.task_spec.task_template.ClearField(name)
        else:
            setattr(message.task_spec.task_template, name, value)
    return message


def named(name: str, project: str = PROJECT, domain: str = DOMAIN) -> run_service_pb2.CreateRunRequest:
    message = run()
    message.run_id.name, message.run_id.project, message.run_id.domain = name, project, domain
    return message


def deployed(**identifier: str) -> task_service_pb2.DeployTaskRequest:
    parts = {"project": PROJECT, "domain": DOMAIN, "name": "a", "version": "1", **identifier}
    return task_service_pb2.DeployTaskRequest(task_id=parts, spec=facts.nap_spec())


def given(*literals: common_pb2.NamedLiteral) -> run_service_pb2.CreateRunRequest:
    message = run()
    message.inputs.CopyFrom(common_pb2.Inputs(literals=literals))
    return message


def offloaded(uri: str) -> run_service_pb2.CreateRunRequest:
    message = run()
    message.offloaded_input_data.uri = uri
    return message


def unknown_task() -> run_service_pb2.CreateRunRequest:
    task_id = task_definition_pb2.TaskIdentifier(project=PROJECT, domain=DOMAIN, name="nobody.wrote", version="1")
    message = run()
    message.task_id.CopyFrom(task_id)
    return message


def file(**fields: Any) -> dataproxy_pb2.CreateUploadLocationRequest:
    parts = {"project": PROJECT, "domain": DOMAIN, "filename": "f", "content_md5": b"m" * 16, **fields}
    return dataproxy_pb2.CreateUploadLocationRequest(**parts)


_NO = common_pb2.NamedLiteral(name="d", value=facts.truth(True))
_DURATION = facts.nap_inputs(timedelta(1)).literals[0]
_OTHER = common_pb2.NamedLiteral(name="e", value=_DURATION.value)

CREATE = RUNS + "CreateRun"
WRONG: dict[str, tuple[str, Message, str, str]] = {
    "no identifier": (CREATE, run_service_pb2.CreateRunRequest(task_spec=facts.nap_spec()), "invalid_argument", "id: one of"),
    "an empty run name": (CREATE, named(""), "invalid_argument", "run_id.name"),
    "a long run name": (CREATE, named("r" * 31), "invalid_argument", "at most 30"),
    "a run name in capitals": (CREATE, named("Run"), "invalid_argument", "lower-case"),
    "an empty project": (CREATE, named("r1", project=""), "invalid_argument", "run_id.project is empty"),
    "a long project": (CREATE, named("r1", project="p" * 64), "invalid_argument", "at most 63"),
    "an unknown project": (CREATE, named("r1", project="nowhere"), "not_found", "nowhere"),
    "an unknown domain": (CREATE, named("r1", domain="nowhere"), "not_found", "known are"),
    "no task": (CREATE, run_service_pb2.CreateRunRequest(run_id=facts.run_id("r1")), "invalid_argument", "task: one of"),
    "an unknown task": (CREATE, unknown_task(), "not_found", "nobody.wrote"),
    "no interface": (CREATE, task(interface=None), "invalid_argument", "task_spec.task_template.interface"),
    "no task type": (CREATE, task(type=""), "invalid_argument", "task_spec.task_template.type"),
    "an input of the wrong type": (CREATE, given(_NO), "invalid_argument", "'d' must be a duration"),
    "a missing input": (CREATE, given(), "invalid_argument", "'d' missing"),
    "an unknown input": (CREATE, given(_DURATION, _OTHER), "invalid_argument", "no input 'e'"),
    "an input twice": (CREATE, given(_DURATION, _DURATION), "invalid_argument", "'d' is given twice"),
    "inputs that are not there": (CREATE, offloaded("/tmp"), "invalid_argument", "offloaded_input_data.uri"),
    "inputs outside": (CREATE, offloaded("/etc/passwd"), "invalid_argument", "offloaded_input_data.uri"),
    "inputs with a NUL": (CREATE, offloaded("/tmp/a\0b"), "invalid_argument", "offloaded_input_data.uri"),
    "a base outside": (CREATE, run(run_spec=run_pb2.RunSpec(run_base_dir="/etc")), "invalid_argument", "run_spec.run_base_dir"),
    "a time out of time": (CREATE, run(run_start_time={"seconds": 2**62}), "invalid_argument", "run_start_time"),
    "a task of no version": (DEPLOY, deployed(version=""), "invalid_argument", "task_id.version is empty"),
    "a task of a long name": (DEPLOY, deployed(name="n" * 256), "invalid_argument", "at most 255"),
    "a task with a NUL": (DEPLOY, deployed(name="a\0b"), "invalid_argument", "task_id.name"),
    "a task of an unknown project": (DEPLOY, deployed(project="nowhere"), "not_found", "nowhere"),
    "a path upwards": (LOCATION, file(filename="../../escape"), "invalid_argument", "filename"),
    "a path from the root": (LOCATION, file(filename="/etc/passwd"), "invalid_argument", "filename"),
    "a root upwards": (LOCATION, file(filename_root="../.."), "invalid_argument", "filename_root"),
    "a file with a NUL": (LOCATION, file(filename="a\0b"), "invalid_argument", "filename"),
    "a long file name": (LOCATION, file(filename="f" * 256), "invalid_argument", "255"),
    "half an MD5": (LOCATION, file(content_md5=b"m" * 8), "invalid_argument", "content_md5 has 8 bytes"),
    "a file too large": (LOCATION, file(content_length=2**62), "invalid_argument", "storage.upload_max_bytes"),
    "a URL for a year": (LOCATION, file(expires_in={"seconds": 31_536_000}), "invalid_argument", "expires_in"),
    "a file for an unknown project": (LOCATION, file(project="nowhere"), "not_found", "nowhere"),
    "a project that is there": (
        "/flyteidl2.project.ProjectService/CreateProject",
        project_pb2.CreateProjectRequest(project={"id": PROJECT}),
        "already_exists",
        "project.id",
    ),
    "an unknown field": (
        RUNS + "ListRuns",
        run_service_pb2.ListRunsRequest(request=list_pb2.ListRequest(filters=[facts.where("colour", "red")])),
        "invalid_argument",
        "'colour' can't be filtered by",
    ),
    "a long text to look for": (
        RUNS + "ListRuns",
        run_service_pb2.ListRunsRequest(
            request=list_pb2.ListRequest(filters=[facts.where("task_name", "x" * 60_000, function=14)])
        ),
        "invalid_argument",
        "request.filters[0].values",
    ),
    "an unknown order": (
        RUNS + "ListRuns",
        run_service_pb2.ListRunsRequest(request=list_pb2.ListRequest(sort_by=list_pb2.Sort(key="colour"))),
        "invalid_argument",
        "request.sort_by: can't sort by 'colour'",
    ),
    "a label that cannot be": (
        RUNS + "ListRuns",
        run_service_pb2.ListRunsRequest(request=list_pb2.ListRequest(filters=[facts.where("labels.a\0b", "1")])),
        "invalid_argument",
        "can't be filtered by",
    ),
}


@pytest.mark.parametrize(("procedure", "message", "code", "words"), WRONG.values(), ids=WRONG)
async def test_refused(world: World, procedure: str, message: Message, code: str, words: str) -> None:
    """By the code that the SDK knows, in words that name the field and what is allowed."""
    answer = await world.raw.call(procedure, message)
    assert answer.code == code, answer
    assert words in answer.message


@pytest.mark.parametrize("streams", [False, True])
async def test_a_large_body(world: World, streams: bool) -> None:
    """20 MB are judged like 20 bytes, and more than ``server.max_message_bytes`` is ResourceExhausted by name."""
    rpc = "WatchRunDetails" if streams else "GetRunDetails"
    message = run_service_pb2.GetRunDetailsRequest(run_id=facts.run_id("x" * 20_000_000))
    answer = await world.raw.call(RUNS + rpc, message, streams=streams, patience=4)
    assert (answer.code, "20000000 characters" in answer.message) == ("invalid_argument", True)
    answer = await world.raw.call(RUNS + rpc, b"\0" * (65 << 20), streams=streams, patience=4)
    assert (answer.code, "68157440" in answer.message or "67108864" in answer.message) == ("resource_exhausted", True)


class Upload:
    """One location for ``hello``, and what its URL answers."""

    def __init__(self, world: World, url: str) -> None:
        self._session = world.raw.session
        self.url = url

    async def put(self, content: bytes = b"hello", *, md5_of: bytes | None = None, url: str = "") -> tuple[int, str]:
        digest = base64.b64encode(hashlib.md5(content if md5_of is None else md5_of).digest()).decode()
        async with self._session.put(url or self.url, data=content, headers={"content-md5": digest}) as response:
            return response.status, await response.text()


@pytest.fixture
async def upload(world: World) -> Upload:
    message = file(filename=facts.new_name("file"), content_md5=hashlib.md5(b"hello").digest(), content_length=5)
    answer = await world.send(LOCATION, message, dataproxy_pb2.CreateUploadLocationResponse)
    return Upload(world, answer.signed_url)


async def test_another_content(upload: Upload) -> None:
    """A body with another MD5 than agreed is 400, whatever its header says."""
    status, text = await upload.put(b"jello")
    assert (status, "another MD5" in text) == (400, True)
    status, text = await upload.put(b"jello", md5_of=b"hello")
    assert (status, "nothing was stored" in text) == (400, True)


async def test_too_much_content(upload: Upload) -> None:
    """More bytes than agreed are 413."""
    status, text = await upload.put(b"hello " * 1000, md5_of=b"hello")
    assert (status, "more than the 5 bytes" in text) == (413, True)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("method=PUT", "method=GET"),
        ("max=5", "max=500"),
        ("replace=0", "replace=1"),
        ("/_uploads/", "/_uploads/../"),
        ("signature=", "signature=0"),
    ],
)
async def test_an_altered_url(upload: Upload, part: str, other: str) -> None:
    """Any change makes it 403: a client asks for another URL, and does not try again."""
    assert part in upload.url
    status, text = await upload.put(url=upload.url.replace(part, other))
    assert status == 403, text


async def test_an_expired_url(upload: Upload, directory: Path) -> None:
    """403 with the words by which the SDK knows that it is over."""
    path = urlsplit(upload.url).path.removeprefix("/data/")
    grant = Grant("PUT", path, int(time.time()) - 1, md5=hashlib.md5(b"hello").hexdigest(), max_length=5)
    expired = Signer(load_key(directory / "key")).url(grant, upload.url.partition("/data/")[0])
    status, text = await upload.put(url=expired)
    assert (status, "Request has expired" in text) == (403, True)


async def test_files_of_the_machine(world: World, upload: Upload) -> None:
    """No path reaches a file outside, signed or not."""
    base = upload.url.partition("/data/")[0]
    for path in ("/data/data/../../../etc/passwd", "/data/%2e%2e/%2e%2e/etc/passwd", "/data//etc/passwd", "/etc/passwd"):
        async with world.raw.session.get(base + path) as response:
            assert response.status in (403, 404), path
