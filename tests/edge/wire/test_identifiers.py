"""Names that nobody would choose, in every place where a request takes one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping

from google.protobuf.message import Message
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flyte_unified.rpc.registry import Registry
from tests.edge.wire.examples import Example
from tests.edge.wire.raw import Raw, Stored

_METHODS = {method.procedure: method for method in Registry().methods()}
_IDENTIFIERS = {
    "flyteidl2.common.ActionIdentifier": ("name",),
    "flyteidl2.common.RunIdentifier": ("project", "domain", "name"),
    "flyteidl2.common.ProjectIdentifier": ("name", "domain"),
    "flyteidl2.task.TaskIdentifier": ("project", "domain"),
    "flyteidl2.task.TaskName": ("project", "domain"),
    "flyteidl2.cacheservice.v2.Identifier": ("project", "domain"),
    "flyteidl2.project.Project": ("id",),
    "flyteidl2.project.GetProjectRequest": ("id",),
    "flyteidl2.dataproxy.CreateUploadLocationRequest": ("project", "domain"),
}
_NOT_READ = ("SelectCluster",)
"""Answers alike whoever asks about whatever."""
_ECHOED = "run_spec.relation."
"""What a client notes for itself: a run that may long be gone."""
_IN_BAND = ("InternalRunService", "ReportActions")
"""They tell in their answers what is wrong with each report."""

_evil = st.sampled_from(
    ["/", "\\", "..", "\0", "\n", "\x1b", "%2e", "\u202e", "\ufeff", " ", "*", "'", '"', "ß", "🐢", "{", "$("]
)
names = st.one_of(
    st.builds(lambda before, evil, after: f"{before}{evil}{after}/", st.text(max_size=8), _evil, st.text(max_size=8)),
    st.text(min_size=1, max_size=30).map(lambda text: f"{text}\n"),
    st.sampled_from(["..", "/", "../a0", "/etc/passwd", "\x7f", "x\0" * 5000, "/" * 10_000, "é" * 10_000]),
)
"""None of which may name anything."""


def places(message: Message, prefix: str = "") -> Iterator[tuple[str, Callable[[Message], Message]]]:
    """The identifiers within a message: the path of each part, and the way to what holds it."""
    for part in _IDENTIFIERS.get(message.DESCRIPTOR.full_name, ()):
        yield f"{prefix}{part}", lambda m: m
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        first, index = (value[0], 0) if field.is_repeated else (value, None)
        for path, way in places(first, f"{prefix}{field.name}."):
            yield path, _below(field.name, index, way)


def _below(name: str, index: int | None, way: Callable[[Message], Message]) -> Callable[[Message], Message]:
    if index is None:
        return lambda m: way(getattr(m, name))
    return lambda m: way(getattr(m, name)[index])


def variants(given_examples: Mapping[str, list[Example]]) -> Iterator[tuple[Example, str, Callable[[Message], Message]]]:
    for one in (one for examples in given_examples.values() for one in examples):
        if any(told in one.procedure for told in _IN_BAND) or one.procedure.endswith(_NOT_READ):
            continue
        for path, way in places(one.message):
            if not path.startswith(_ECHOED):
                yield one, path, way


def test_identifiers_are_found(valid: Mapping[str, list[Example]]) -> None:
    """The walk meets them: else the next test would say nothing."""
    found = {(one.procedure.rpartition("/")[2], path) for one, path, _ in variants(valid)}
    assert {("Enqueue", "action.action_id.run.project"), ("Record", "events.id.name"), ("GetProject", "id")} <= found
    assert len(found) > 100


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names)
@example(name="x" * 10_000)
@example(name="a/../b")
def test_a_name_that_cannot_be(address: str, valid: Mapping[str, list[Example]], stored: Stored, name: str) -> None:
    """InvalidArgument by the name of the field, for every RPC and every part of an identifier; nothing is stored."""
    before = stored.now()
    wrong = asyncio.run(_wrong(address, valid, name))
    assert not wrong, "\n".join(wrong)
    assert stored.now() == before


async def _wrong(address: str, valid: Mapping[str, list[Example]], name: str) -> list[str]:
    wrong = []
    async with Raw(address) as raw:
        for one, path, way in variants(valid):
            message = copy.deepcopy(one.message)
            part = path.rpartition(".")[2]
            setattr(way(message), part, name)
            kind = _METHODS[one.procedure].kind
            answer = await raw.call(one.procedure, message, streams=kind.server_streams)
            if answer.code != "invalid_argument" or part not in answer.message or len(answer.message) > 12_000:
                wrong.append(f"{one.procedure} {path}: {answer.code} {answer.message[:200]}")
    return wrong
