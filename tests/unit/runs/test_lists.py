"""ListRuns and ListActions: scopes, filters, orders and pages."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest
from flyteidl2.common import list_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from tests.unit.runs.world import A0, ORG, R1, World, context, task_spec

Filter = list_pb2.Filter
EQUAL, VALUE_IN, EXISTS, NOT_EXISTS = Filter.EQUAL, Filter.VALUE_IN, Filter.EXISTS, Filter.NOT_EXISTS


def _in_project(name: str = "p", **fields: Any) -> run_service_pb2.ListRunsRequest:
    request = run_service_pb2.ListRunsRequest(**fields)
    request.project_id.organization, request.project_id.name, request.project_id.domain = ORG, name, "development"
    return request


async def _names(world: World, request: run_service_pb2.ListRunsRequest) -> list[str]:
    return [run.action.id.run.name for run in (await world.handlers.list_runs(request, context())).runs]


async def _filtered(world: World, *filters: list_pb2.Filter) -> set[str]:
    return set(await _names(world, _in_project(request=list_pb2.ListRequest(filters=filters))))


async def _three(world: World) -> None:
    """r1 of ann succeeded, r2 of bob runs with a paused condition, r3 is another task's and queued; s1 is elsewhere."""
    spec = run_pb2.RunSpec()
    spec.labels.values["team.io/name"] = "x"
    await world.run("r1", run_spec=spec, subject="ann")
    spec.labels.values["team.io/name"] = ""
    await world.run("r2", run_spec=spec, subject="bob")
    await world.run("r3", spec=task_spec("env.other", version="v2"))
    await world.run("s1", project="q")
    await world.move(A0, Phase.RUNNING, Phase.SUCCEEDED)
    root = RunKey("p", "development", "r2").action("a0")
    await world.move(root, Phase.RUNNING)
    await world.condition("c1", root)


async def test_runs_are_listed_newest_first(world: World) -> None:
    """Of the project only, with labels, and the org as it was said."""
    await _three(world)
    response = await world.handlers.list_runs(_in_project(), context())
    assert [run.action.id.run.name for run in response.runs] == ["r3", "r2", "r1"]
    first, last = response.runs[0], response.runs[-1]
    assert (last.action.id.run.org, last.labels["team.io/name"]) == (ORG, "x")
    assert (last.action.status.phase, last.action.metadata.executed_by.user.id.subject) == (int(Phase.SUCCEEDED), "ann")
    assert first.action.metadata.task.id.version == "v2"
    assert response.token == ""


async def test_scopes_of_lists(world: World) -> None:
    """An org is everything there is, whatever its name; a task may be named with its version; no trigger made a run."""
    await _three(world)
    everything = ["s1", "r3", "r2", "r1"]
    for org in ("", "acme", "127"):
        assert await _names(world, run_service_pb2.ListRunsRequest(org=org)) == everything
    assert await _names(world, run_service_pb2.ListRunsRequest()) == everything
    of_task = run_service_pb2.ListRunsRequest()
    of_task.task_name.project, of_task.task_name.domain, of_task.task_name.name = "p", "development", "env.other"
    assert await _names(world, of_task) == ["r3"]
    of_version = run_service_pb2.ListRunsRequest()
    of_version.task_id.name, of_version.task_id.version = "env.other", "v1"
    assert await _names(world, of_version) == []
    of_trigger = run_service_pb2.ListRunsRequest()
    of_trigger.trigger_name.name = "nightly"
    assert await _names(world, of_trigger) == []


@pytest.mark.parametrize(
    ("function", "field", "values", "expected"),
    [
        (EQUAL, "phase", ["5"], {"r1"}),
        (VALUE_IN, "phase", ["1", "4"], {"r2", "r3"}),
        (EQUAL, "phase", ["1", "0"], set()),
        (EQUAL, "task_name", ["env.other"], {"r3"}),
        (EQUAL, "task_version", ["v1"], {"r1", "r2"}),
        (EQUAL, "created_by", ["ann"], {"r1"}),
        (EQUAL, "created_by_subject", ["bob"], {"r2"}),
        (EXISTS, "created_by", [], {"r1", "r2"}),
        (EQUAL, "labels.team.io/name", ["x"], {"r1"}),
        (EXISTS, "labels.team.io/name", [], {"r1", "r2"}),
        (NOT_EXISTS, "labels.team.io/name", [], {"r3"}),
        (Filter.NOT_EQUAL, "labels.team.io/name", ["x"], {"r2", "r3"}),
        (EXISTS, "ended_at", [], {"r1"}),
        (Filter.GREATER_THAN, "duration_ms", ["0"], {"r1"}),
        (Filter.GREATER_THAN_OR_EQUAL, "created_at", ["2023-01-01T00:00:00+00:00"], {"r1", "r2", "r3"}),
        (Filter.LESS_THAN, "updated_at", ["2023-01-01T00:00:00+00:00"], set()),
        (Filter.ENDS_WITH, "name", ["3"], {"r3"}),
        (EQUAL, "run_source", ["0"], {"r1", "r2", "r3"}),
    ],
)
async def test_filters_of_runs(world: World, function: Any, field: str, values: list[str], expected: set[str]) -> None:
    """By the names that the SDK uses and by the columns' own."""
    await _three(world)
    assert await _filtered(world, Filter(function=function, field=field, values=values)) == expected


async def test_filters_that_are_no_filters(world: World) -> None:
    """Unknown fields, keys that no label can have and wrong values are the caller's errors."""
    for field, value in (("trigger", "x"), ('labels."', "x"), ("phase", "running fast"), ("created_at", "1")):
        with pytest.raises(InvalidArgument, match="request"):
            await _filtered(world, Filter(field=field, values=[value]))
    with pytest.raises(InvalidArgument, match=r"request\.limit"):
        await _names(world, _in_project(request=list_pb2.ListRequest(limit=201)))


async def test_runs_that_wait_for_someone(world: World) -> None:
    """With a paused action somewhere in them."""
    await _three(world)
    assert await _names(world, _in_project(paused_actions_only=True)) == ["r2"]


async def test_pages_of_runs(world: World) -> None:
    """Each run once, also when others are created in between; a token of one scope is refused in another."""
    for number in range(7):
        await world.run(f"r{number}")
    sort = list_pb2.Sort(key="created_at")
    seen, token = [], ""
    for number in range(4):
        request = _in_project(request=list_pb2.ListRequest(limit=2, token=token, sort_by=sort))
        response = await world.handlers.list_runs(request, context())
        seen += [run.action.id.run.name for run in response.runs]
        token = response.token
        await world.run(f"new{number}")
        if number == 0:
            elsewhere = _in_project("q", request=list_pb2.ListRequest(token=token, sort_by=sort))
            with pytest.raises(InvalidArgument, match=r"request\.token"):
                await world.handlers.list_runs(elsewhere, context())
    assert (seen, token) == ([f"r{number}" for number in reversed(range(7))], "")


async def _listed(world: World, **fields: Any) -> list[str]:
    request = run_service_pb2.ListActionsRequest(run_id=R1.idl(ORG), request=list_pb2.ListRequest(**fields))
    return [action.id.name for action in (await world.handlers.list_actions(request, context())).actions]


async def test_actions_of_a_run(world: World) -> None:
    """Oldest first, with full metadata; filtered by parent, type, phase and name."""
    await world.run(subject="ann")
    child = await world.child("child")
    await world.child("deep", child)
    await world.condition("gate")
    await world.trace("trace", child)
    await world.run("r2")
    assert sorted(await _listed(world)) == ["a0", "child", "deep", "gate", "trace"]
    assert await _listed(world, filters=[Filter(field="parent_name", values=["a0"])]) == ["child", "gate"]
    assert await _listed(world, filters=[Filter(function=NOT_EXISTS, field="parent_name")]) == ["a0"]
    assert await _listed(world, filters=[Filter(field="action_type", values=["3"])]) == ["gate"]
    assert await _listed(world, filters=[Filter(field="phase", values=["9"])]) == ["gate"]
    assert await _listed(world, filters=[Filter(function=14, field="name", values=["E"])]) == ["deep", "gate", "trace"]
    request = run_service_pb2.ListActionsRequest(run_id=R1.idl(ORG))
    found = {action.id.name: action for action in (await world.handlers.list_actions(request, context())).actions}
    gate, deep = found["gate"].metadata, found["deep"].metadata
    assert (gate.condition.name, gate.condition.type.simple, gate.parent) == ("approve", 4, "a0")
    assert (deep.task.short_name, deep.parent, deep.executed_by.user.id.subject) == ("child", "child", "ann")
    assert found["trace"].metadata.trace.name == "fetch"


async def test_pages_of_actions(world: World) -> None:
    """By any order, each action once."""
    await world.run()
    for number in range(5):
        await world.child(f"c{number}")
    request = run_service_pb2.ListActionsRequest(run_id=R1.idl())
    request.request.limit = 2
    request.request.sort_by_fields.add(key="parent_name")
    seen = []
    while True:
        response = await world.handlers.list_actions(request, context())
        seen += [action.id.name for action in response.actions]
        if not response.token:
            break
        request.request.token = response.token
    assert seen == ["c4", "c3", "c2", "c1", "c0", "a0"]


async def test_actions_of_no_run(world: World) -> None:
    """NotFound rather than an empty list."""
    with pytest.raises(NotFound):
        await _listed(world)


async def test_labels_of_any_length_are_found(world: World) -> None:
    """By all of a label, though no index of Postgres takes so much."""
    long = "".join(random.Random(1).choices(string.printable[:94], k=5000))  # what can't be compressed
    key, near = "k" * 800, long[:900]
    for name, values in (("r1", {"note": near, key: long}), ("r2", {"note": f"{near}!"}), ("r3", {"note": long})):
        await world.run(name, run_spec=run_pb2.RunSpec(labels=run_pb2.Labels(values=values)))
    assert await _filtered(world, Filter(function=EQUAL, field="labels.note", values=[near])) == {"r1"}
    assert await _filtered(world, Filter(function=EXISTS, field="labels.note")) == {"r1", "r2", "r3"}
    assert await _filtered(world, Filter(function=EXISTS, field=f"labels.{key}")) == {"r1"}
