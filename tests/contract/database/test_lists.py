"""Lists of runs: each walks an index in its order, on either database, from its first page to its last.

What a plan says is the promise; ``tests/benchmarks/pages.py`` measures it.
"""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.workflow import run_service_pb2
from sqlalchemy import Select, text
from sqlalchemy.dialects import postgresql, sqlite

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.paging import Order, listing
from flyte_unified.db import lists
from flyte_unified.db.api import Database, Work
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.ledger.api import Ledger
from flyte_unified.runs import scopes, store
from flyte_unified.runs.lists import Lister
from tests.benchmarks.filled import fill
from tests.benchmarks.lists import LISTS

_KEY = ("project", "domain", "run_name")


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    """With so many runs that each list has some."""
    for start in (0, 9_990, 19_990):
        await database.write(lambda start=start: fill(120, start=start))  # type: ignore[misc]  # mypy: its default
    return Ledger(database=database, clock=SystemClock())


def _statement(message: run_service_pb2.ListRunsRequest) -> Select[Any]:
    """What a ListRuns asks the database."""
    scope, paused = scopes.of_list(message), message.paused_actions_only
    page = listing(
        message.request, lists.kinds(store.run_field), default=[Order("created_at")], key=_KEY, scope=(scope, paused)
    )
    return next(store.list_runs(scope, page, paused=paused))  # type: ignore[return-value]  # its first step


async def _plan(database: Database, statement: Select[Any]) -> str:
    if isinstance(database, SQLiteDatabase):
        asked = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
        steps = [text(f"EXPLAIN QUERY PLAN {asked}".replace(":", r"\:"))]
    else:
        asked = str(statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
        # So few rows are quickest read as they lie; the question is what an index can do.
        off = [text(f"SET LOCAL enable_{way} = off") for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort")]
        steps = [*off, text(f"EXPLAIN {asked}".replace(":", r"\:"))]

    def work() -> Work[str]:
        for step in steps:
            found = yield step
        return "\n".join(str(row[-1]) for row in found.all())

    return await database.read(work)


@pytest.mark.parametrize("asked", LISTS.values(), ids=LISTS.keys())
async def test_a_list_walks_an_index_and_sorts_nothing(
    database: Database, ledger: Ledger, asked: run_service_pb2.ListRunsRequest
) -> None:
    """Its first page and the one after it."""
    message = run_service_pb2.ListRunsRequest()
    message.CopyFrom(asked)
    message.request.limit = 1
    first = await Lister(ledger=ledger).runs(message)
    for token in filter(None, ("-", first.token)):
        message.request.token = token.strip("-")
        plan = await _plan(database, _statement(message))
        assert _walks(plan), plan


async def test_another_order_is_sorted(database: Database, ledger: Ledger) -> None:
    """So the test before this one can fail: nothing is in the order of the last change."""
    message = run_service_pb2.ListRunsRequest()
    message.CopyFrom(LISTS["all"])
    message.request.sort_by.key = "updated_at"
    assert not _walks(await _plan(database, _statement(message)))


def _walks(plan: str) -> bool:
    """Nothing is sorted, and no table is read from one end to the other but by an index."""
    whole = [line for line in plan.splitlines() if line.startswith("SCAN") and "USING" not in line]
    return not whole and not any(word in plan for word in ("TEMP B-TREE", "Sort", "Seq Scan"))


async def test_each_list_has_what_it_asks_for(ledger: Ledger) -> None:
    """Whatever is walked, every filter holds, and the pages are the whole."""
    everything = {run.action.id.run.name: run for run in await _all(ledger, LISTS["all"])}
    assert len(everything) == 360
    for name, asked in LISTS.items():
        found = [run.action.id.run.name for run in await _all(ledger, asked)]
        wanted = {run for run in everything if _meets(everything[run], int(run[1:]), name)}
        assert set(found) == wanted, name
        assert found == sorted(wanted, reverse=asked.request.sort_by.direction == 0), name
        assert wanted or name == "nobody's", name


async def _all(ledger: Ledger, asked: run_service_pb2.ListRunsRequest) -> list[Any]:
    message = run_service_pb2.ListRunsRequest()
    message.CopyFrom(asked)
    found: list[Any] = []
    while True:
        page = await Lister(ledger=ledger).runs(message)
        found += page.runs
        message.request.token = page.token
        if not page.token:
            return found


def _meets(run: Any, number: int, name: str) -> bool:
    phase, task = run.action.status.phase, run.action.metadata.task.id
    return {
        "running": phase == 4,
        "failed, newest first": phase == 6,
        "timed out": phase == 8,
        "succeeded": phase == 5,
        "queued or running": phase == 4,
        "failed or running": phase in (4, 6),
        "of a task": task.name == "env.rare",
        "of a version": (task.name, task.version) == ("env.task_1", "v0"),
        "of a task that succeeded": task.name == "env.task_1" and phase == 5,
        "mine": number % 10_000 == 8,
        "nobody's": False,
        "of an hour": 1_700_100_000 <= 1_700_000_000 + 10 * number < 1_700_103_600,
        "not changed since": 1_700_000_005 + 10 * number < 1_700_006_400,
        "with a label": run.labels["team"] == "red",
        "with two labels": "rare" in run.labels,
        "with a key": "rare" in run.labels,
        "paused": number % 20_000 == 1,
        "of a task, by scope": task.name == "env.task_1",
        "of a version, by scope": (task.name, task.version) == ("env.task_1", "v0"),
        "of a trigger": number % 100 == 7,
    }.get(name, True)
