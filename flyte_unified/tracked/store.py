"""The SQL of tracked runs: queries only; every write of actions is the ledger's."""

from __future__ import annotations

from sqlalchemy import and_, func, select

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import RunKey
from flyte_unified.db.api import Work
from flyte_unified.db.tables import actions

_RUN = (actions.c.project, actions.c.domain, actions.c.run)
_LIVE = select(*_RUN).where(actions.c.reported.is_not(None), actions.c.ended_at.is_(None)).distinct().subquery()
_HEARD = (
    select(*_RUN, func.max(actions.c.updated_at).label("heard"))
    .join(_LIVE, and_(*(column == _LIVE.c[column.name] for column in _RUN)))
    .group_by(*_RUN)
)


def heard() -> Work[list[tuple[RunKey, Micros]]]:
    """When each tracked run in which anything lives was heard of last."""
    return [(RunKey._make(row[:3]), Micros(row.heard)) for row in (yield _HEARD).all()]
