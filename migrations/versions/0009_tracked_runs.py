"""Runs that are carried out elsewhere and told here. Programs that do not know them would carry them out: those are out."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    about = "of a tracked run: its client's latest version; NULL: carried out here"
    op.add_column("actions", sa.Column("reported", sa.BigInteger, comment=about))
    place = ["project", "domain", "created_at", "run"]
    op.create_index("ix_actions_tracked", "actions", place, **_only("parent IS NULL AND reported IS NOT NULL"))
    op.execute("UPDATE compatibility SET minimum = '0009'")


def _only(where: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
