"""The runs room's SQL: queries only, as pieces of work (see ``db.api``)."""

from __future__ import annotations

from sqlalchemy import select

from flyte_unified.core.ids import RunKey
from flyte_unified.db.api import Work
from flyte_unified.db.tables import runs


def made_by(project: str, domain: str, request_id: str) -> Work[RunKey | None]:
    """The run that the unnamed CreateRun with this request id made."""
    statement = select(runs.c.run).where(runs.c.project == project, runs.c.domain == domain, runs.c.request_id == request_id)
    row = (yield statement).one_or_none()
    return RunKey(project, domain, row.run) if row is not None else None
