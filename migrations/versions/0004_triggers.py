"""Triggers, their revisions, and which one started a run."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    place = ("project", "domain", "task", "name")
    op.create_table(
        "triggers",
        *_columns(),
        sa.Column("next_fire", sa.BigInteger, comment="NULL: nothing is to come"),
        sa.PrimaryKeyConstraint(*place, name="pk_triggers"),
    )
    op.create_index("ix_triggers_next_fire", "triggers", ["next_fire"], **_only("next_fire IS NOT NULL"))
    op.create_table(
        "trigger_revisions",
        *_columns(),
        sa.PrimaryKeyConstraint(*place, "revision", name="pk_trigger_revisions"),
    )
    op.add_column("runs", sa.Column("trigger_task", _string(255), comment="of the trigger that started it, if one did"))
    op.add_column("runs", sa.Column("trigger_name", _string(255)))
    op.add_column("runs", sa.Column("trigger_revision", sa.BigInteger))
    op.add_column("runs", sa.Column("trigger_type", sa.Integer))
    started = ["project", "domain", "trigger_task", "trigger_name", "created_at", "run"]
    op.create_index("ix_runs_triggers", "runs", started, **_only("trigger_name IS NOT NULL"))


def _columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("project", _string(63), nullable=False),
        sa.Column("domain", _string(63), nullable=False),
        sa.Column("task", _string(255), nullable=False, comment="its name, whatever the version"),
        sa.Column("name", _string(255), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("change", sa.Integer, nullable=False, comment="what made the revision"),
        sa.Column("spec", sa.LargeBinary, nullable=False, comment="flyteidl2.trigger.TriggerSpec"),
        sa.Column("automation", sa.LargeBinary, nullable=False, comment="flyteidl2.task.TriggerAutomationSpec"),
        sa.Column("automation_type", sa.Integer, nullable=False),
        sa.Column("task_version", _string(255), nullable=False),
        sa.Column("active", sa.Integer, nullable=False),
        sa.Column("description", _TEXT, nullable=False, server_default=""),
        sa.Column("deployed_by", _TEXT, nullable=False, server_default=""),
        sa.Column("updated_by", _TEXT, nullable=False, server_default=""),
        sa.Column("deployed_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
    )


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _only(where: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
