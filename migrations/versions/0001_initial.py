"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _projects_and_tasks()
    _runs()
    _actions()
    _attempts()
    _cache()
    if op.get_bind().dialect.name == "postgresql":
        _changes()


def _projects_and_tasks() -> None:
    op.create_table(
        "projects",
        sa.Column("id", _string(63), nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        _text("description"),
        sa.Column("labels", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("state", sa.Integer, nullable=False, server_default="0"),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
    )
    op.create_table(
        "task_specs",
        sa.Column("digest", _string(64), nullable=False, comment="SHA-256 of the bytes, hex"),
        sa.Column("spec", sa.LargeBinary, nullable=False, comment="flyteidl2.task.TaskSpec"),
        sa.PrimaryKeyConstraint("digest", name="pk_task_specs"),
    )
    op.create_table(
        "tasks",
        *_scope(),
        sa.Column("name", _string(255), nullable=False),
        sa.Column("version", _string(255), nullable=False),
        sa.Column("spec_digest", _string(64), nullable=False),
        _text("short_name"),
        _text("environment_name"),
        _text("short_description"),
        sa.Column("entrypoint", sa.Integer, nullable=False, server_default="1"),
        _text("deployed_by"),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("project", "domain", "name", "version", name="pk_tasks"),
    )
    op.create_index("ix_tasks_project_domain_created_at_name", "tasks", ["project", "domain", "created_at", "name"])


def _runs() -> None:
    op.create_table(
        "runs",
        *_scope(),
        sa.Column("run", _string(30), nullable=False),
        sa.Column("run_spec", sa.LargeBinary, nullable=False, comment="flyteidl2.task.RunSpec"),
        sa.Column("labels", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("source", sa.Integer, nullable=False, server_default="0"),
        sa.Column("request_id", _TEXT, comment="of the unnamed CreateRun that made it"),
        sa.Column("content", _string(64), nullable=False, comment="SHA-256 of what CreateRun compares when it is repeated"),
        sa.Column("output_base", _TEXT, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False, comment="what tasks are told: the same on every attempt"),
        _text("created_by"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("project", "domain", "run", name="pk_runs"),
    )
    op.create_index("ix_runs_request_id", "runs", ["project", "domain", "request_id"], unique=True)


def _actions() -> None:
    op.create_table(
        "actions",
        *_scope(),
        sa.Column("run", _string(30), nullable=False),
        sa.Column("name", _string(30), nullable=False),
        sa.Column("parent", _string(30), comment="NULL for the run's root"),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("action_type", sa.Integer, nullable=False),
        _text("group_name"),
        sa.Column("phase", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, comment="grows with every write"),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("system_failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column(
            "interruptions", sa.Integer, nullable=False, server_default="0", comment="attempts ended by a stop of the server"
        ),
        sa.Column("cache_status", sa.Integer, nullable=False, server_default="0"),
        _time("created_at"),
        _time("updated_at"),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("not_before", sa.BigInteger, comment="when the next attempt may start"),
        *map(_text, ("task_project", "task_domain", "task_name", "task_version", "task_type")),
        _text("short_name"),
        _text("environment_name"),
        sa.Column("spec_digest", _string(64), comment="of the task's spec"),
        sa.Column("spec", sa.LargeBinary, comment="ConditionAction or TraceSpec"),
        _text("input_uri", comment="of inputs.pb itself"),
        _text("output_base"),
        _text("output_uri"),
        _text("cache_key"),
        _text("queue"),
        sa.Column("error", sa.LargeBinary, comment="flyteidl2.core.ExecutionError"),
        _text("reason", comment="of an abort"),
        _text("principal", comment="who aborted or signalled"),
        sa.Column("value", sa.LargeBinary, comment="a condition's flyteidl2.core.Literal"),
        _text("state", comment="what StateService.Put stored"),
        sa.Column("record", sa.LargeBinary, nullable=False, comment="the latest attempt, flyteidl2.workflow.ActionAttempt"),
        sa.PrimaryKeyConstraint("project", "domain", "run", "name", name="pk_actions"),
        sa.ForeignKeyConstraint(["project", "domain", "run"], ["runs.project", "runs.domain", "runs.run"], name="fk_actions"),
        postgresql_with={"fillfactor": 60},
    )
    task = ["task_project", "task_domain", "task_name"]
    op.create_index("ix_actions_children", "actions", ["parent", "run", "domain", "project", "created_at"])
    op.create_index("ix_actions_roots", "actions", ["project", "domain", "created_at", "run"], **_only("parent IS NULL"))
    op.create_index("ix_actions_newest", "actions", ["created_at", "project", "domain", "run"], **_only("parent IS NULL"))
    op.create_index("ix_actions_tasks", "actions", [*task, "created_at"], **_only("parent IS NULL"))
    op.create_index("ix_actions_task_versions", "actions", [*task, "task_version", "created_at"], **_only("parent IS NULL"))
    op.create_index("ix_actions_live", "actions", ["created_at"], **_only("ended_at IS NULL"))


def _attempts() -> None:
    op.create_table(
        "attempts",
        *_scope(),
        sa.Column("run", _string(30), nullable=False),
        sa.Column("name", _string(30), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False, comment="flyteidl2.workflow.ActionAttempt"),
        sa.PrimaryKeyConstraint("project", "domain", "run", "name", "attempt", name="pk_attempts"),
    )


def _cache() -> None:
    op.create_table(
        "cache_entries",
        sa.Column("key", _string(512), nullable=False),
        sa.Column("output_uri", _TEXT, nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False, comment="flyteidl2.cacheservice.Metadata"),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("key", name="pk_cache_entries"),
    )
    op.create_table(
        "cache_reservations",
        sa.Column("key", _string(512), nullable=False),
        sa.Column("owner", _TEXT, nullable=False),
        sa.Column("heartbeat", sa.BigInteger, nullable=False, comment="microseconds"),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_cache_reservations"),
    )


def _changes() -> None:
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=True, comment="in the order of commits"),
        sa.Column("origin", sa.BigInteger, nullable=False, comment="the replica that wrote"),
        *_scope(),
        sa.Column("run", _string(30), nullable=False),
        sa.Column("name", _string(30), nullable=False, comment="of an action; empty: a batch that changed none"),
        sa.Column("at", sa.BigInteger, nullable=False, comment="microseconds, by the database's clock"),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
    )


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _scope() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("project", _string(63), nullable=False), sa.Column("domain", _string(63), nullable=False)


def _text(name: str, *, comment: str | None = None) -> sa.Column[str]:
    return sa.Column(name, _TEXT, nullable=False, server_default="", comment=comment)


def _time(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _only(where: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
