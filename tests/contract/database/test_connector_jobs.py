"""What is kept of connectors' jobs, over each database."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from flyteidl2.connector import connector_pb2

from flyte_unified.core.ids import ActionKey
from flyte_unified.db.api import Database
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.connectors import store
from flyte_unified.launchers.connectors.job import Kept

WORK = WorkId(ActionKey("p", "development", "r1", "a0"), 1)
REQUEST = connector_pb2.GetTaskRequest(resource_meta=b"\x007", output_prefix="s3://b/r1/a0/1")
JOB = Kept(id=WORK, connector="grpcs://farm:443", request=REQUEST, outputs=("o0", "o1"))


async def test_an_attempt_has_one_job(database: Database) -> None:
    """The first that is kept; whoever comes second is told of it."""
    later = replace(JOB, connector="other:1")
    assert await database.write(partial(store.add, JOB)) == JOB
    assert await database.write(partial(store.add, later)) == JOB
    assert await database.read(store.every) == [JOB]


async def test_attempts_are_told_apart(database: Database) -> None:
    """And forgotten one by one."""
    second = replace(JOB, id=WORK._replace(attempt=2), outputs=())
    for job in (JOB, second):
        await database.write(partial(store.add, job))
    await database.write(partial(store.remove, WORK))
    await database.write(partial(store.remove, WORK))
    assert await database.read(partial(store.get, WORK)) is None
    assert await database.read(partial(store.get, second.id)) == second
