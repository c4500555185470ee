"""A database with a history, written in bulk: a hundred thousand runs of one project, with a child each.

Most have succeeded. What people look for is rare: runs that failed, that run, that wait for somebody, that one person started
or that have a label.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flyteidl2.task import run_pb2
from sqlalchemy import insert

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Work
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.db.tables import actions, run_labels, runs, task_specs
from flyte_unified.db.upsert import insert_new
from flyte_unified.ledger.api import EncodedSpec, first_record
from tests.benchmarks.api import sleep_spec

PROJECT, DOMAIN = "flytesnacks", "development"
BEGAN = 1_700_000_000 * SECOND
_APART = 10 * SECOND
_TASKS = 50
_BATCH = 2000


def fill(count: int, *, start: int = 0) -> Work[None]:
    """Runs by number, from ``start`` on."""
    spec = EncodedSpec.of(sleep_spec("nap"))
    yield insert_new(task_specs), {"digest": spec.digest, "spec": spec.raw}
    numbers = range(start, start + count)
    yield insert(runs), [_run(number) for number in numbers]
    yield insert(run_labels), [row for number in numbers for row in _labels(number)]
    yield insert(actions), [row for number in numbers for row in _actions(number, spec.digest)]


async def filled(directory: Path, count: int) -> None:
    """A data directory with so many runs."""
    directory.mkdir(mode=0o700, parents=True)
    database = SQLiteDatabase(directory / "flyte.db")
    await database.start()
    for start in range(0, count, _BATCH):
        await database.write(lambda start=start: fill(_BATCH, start=start))  # type: ignore[misc]  # mypy: its default
    await database.stop()


def phase_of(number: int) -> Phase:
    """Of a hundred thousand: twenty run, a thousand failed, a hundred were aborted, ten timed out."""
    if number % 5000 == 1:
        return Phase.RUNNING
    if number % 100 == 2:
        return Phase.FAILED
    if number % 1000 == 3:
        return Phase.ABORTED
    return Phase.TIMED_OUT if number % 10_000 == 4 else Phase.SUCCEEDED


def _labelled(number: int) -> dict[str, str]:
    return {"team": "red" if number % 1000 == 5 else "blue"} | ({"rare": "yes"} if number % 20_000 == 6 else {})


def _labels(number: int) -> Iterator[dict[str, Any]]:
    for key, value in _labelled(number).items():
        place = {"project": PROJECT, "domain": DOMAIN, "run": f"r{number:08d}", "created_at": BEGAN + number * _APART}
        yield {**place, "key": key, "value": value}


def _run(number: int) -> dict[str, Any]:
    key = RunKey(PROJECT, DOMAIN, f"r{number:08d}")
    labels = _labelled(number)
    by_trigger = number % 100 == 7
    return {
        **dict(zip(("project", "domain", "run"), key, strict=True)),
        "run_spec": run_pb2.RunSpec(labels=run_pb2.Labels(values=labels)).SerializeToString(),
        "labels": labels,
        "source": 3 if by_trigger else 2,
        "request_id": None,
        "content": "",
        "output_base": f"/data/{key}",
        "start_time": BEGAN + number * _APART,
        "created_by": "eve" if number % 10_000 == 8 else "ada",
        "created_at": BEGAN + number * _APART,
        "trigger_task": "nap" if by_trigger else None,
        "trigger_name": "nightly" if by_trigger else None,
        "trigger_revision": 1 if by_trigger else None,
        "trigger_type": 1 if by_trigger else None,
    }


def _actions(number: int, digest: str) -> Iterator[dict[str, Any]]:
    at = Micros(BEGAN + number * _APART)
    phase = phase_of(number)
    waits = number % 20_000 == 1
    for name, parent, own in (("a0", None, phase), ("n0", "a0", Phase.PAUSED if waits else Phase.SUCCEEDED)):
        record = first_record(own, at=at)
        yield {
            **dict(zip(("project", "domain", "run"), (PROJECT, DOMAIN, f"r{number:08d}"), strict=True)),
            "name": name,
            "parent": parent,
            "depth": 0 if parent is None else 1,
            "action_type": 1,
            "phase": int(own),
            "version": 3,
            "created_at": at,
            "updated_at": at + 5 * SECOND,
            "started_at": at + SECOND,
            "ended_at": at + (number * 7 % 1000) * SECOND if own.terminal else None,
            "task_project": PROJECT,
            "task_domain": DOMAIN,
            "task_name": f"env.task_{number % _TASKS}" if number % 10_000 != 9 else "env.rare",
            "task_version": f"v{number // 10_000}",
            "task_type": "python",
            "short_name": f"task_{number % _TASKS}",
            "environment_name": "env",
            "spec_digest": digest,
            "input_uri": f"/data/{number}/inputs.pb",
            "output_base": f"/data/{number}",
            "output_uri": f"/data/{number}/{name}/1/outputs.pb" if own is Phase.SUCCEEDED else "",
            "record": record.SerializeToString(),
            "outcome": int(own) if own.terminal else 0,
        }
