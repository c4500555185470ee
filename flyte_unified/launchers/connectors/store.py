"""The SQL of jobs, as pieces of work (see ``db.api``)."""

from __future__ import annotations

from typing import Any

from flyteidl2.connector import connector_pb2
from sqlalchemy import Row, bindparam, delete, select

from flyte_unified.core.ids import ActionKey
from flyte_unified.db.api import Work
from flyte_unified.db.tables import connector_jobs
from flyte_unified.db.upsert import insert_new
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.connectors.job import Kept

_KEY = ("project", "domain", "run", "name", "attempt")
_HERE = [connector_jobs.c[name] == bindparam(f"_{name}") for name in _KEY]

_ALL = select(connector_jobs)
_GET = select(connector_jobs).where(*_HERE)
_ADD = insert_new(connector_jobs).returning(connector_jobs.c.attempt)
_REMOVE = delete(connector_jobs).where(*_HERE)


def every() -> Work[list[Kept]]:
    return [_kept(row) for row in (yield _ALL)]


def get(work: WorkId) -> Work[Kept | None]:
    row = (yield _GET, _where(work)).one_or_none()
    return _kept(row) if row is not None else None


def add(job: Kept) -> Work[Kept]:
    """``job``; or what was kept of its attempt before."""
    values = {**_columns(job.id), "connector": job.connector, "outputs": list(job.outputs)}
    added = (yield _ADD, {**values, "request": job.request.SerializeToString()}).first()
    known = job if added is not None else (yield from get(job.id))
    return known or job


def remove(work: WorkId) -> Work[None]:
    yield _REMOVE, _where(work)


def _columns(work: WorkId) -> dict[str, Any]:
    return {**work.action._asdict(), "attempt": work.attempt}


def _where(work: WorkId) -> dict[str, Any]:
    return {f"_{name}": value for name, value in _columns(work).items()}


def _kept(row: Row[Any]) -> Kept:
    return Kept(
        id=WorkId(ActionKey(row.project, row.domain, row.run, row.name), row.attempt),
        connector=row.connector,
        request=connector_pb2.GetTaskRequest.FromString(row.request),
        outputs=tuple(row.outputs),
    )
