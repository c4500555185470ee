"""What is owed to those who are to be told of runs and conditions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("project", _string(63), nullable=False),
        sa.Column("domain", _string(63), nullable=False),
        sa.Column("run", _string(30), nullable=False),
        sa.Column("name", _string(30), nullable=False, comment="of the action that gives cause"),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("channel", _string(16), nullable=False, comment="webhook, email or condition"),
        sa.Column("rule", sa.LargeBinary, nullable=False, comment="flyteidl2.task.InlineRule; empty: a condition's own"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("ready_at", sa.BigInteger, comment="NULL until there is something to tell"),
        sa.Column("due_at", sa.BigInteger, comment="of the next try; NULL: none is to come"),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("error", _text(), nullable=False, comment="of the latest try"),
        sa.PrimaryKeyConstraint("project", "domain", "run", "name", "number", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_due_at", "deliveries", ["due_at"], **_only("due_at IS NOT NULL"))
    op.create_index("ix_deliveries_waiting", "deliveries", ["created_at"], **_only("ready_at IS NULL"))


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _only(where: str) -> dict[str, sa.TextClause]:
    return {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
