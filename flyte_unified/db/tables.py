"""Every table, one text for SQLite and Postgres.

Times are microseconds since the epoch, UTC, as integers: exact, sortable, and equal on both databases. Messages are kept as
the bytes that came (protobuf), so that a field this program does not know survives. ``actions`` holds the record of the
attempt under way; when another begins, the finished one moves to ``attempts``: a successful action costs one insert and
one update per phase, whatever its history.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s",
    }
)


def _scope() -> tuple[Column[str], Column[str]]:
    return Column("project", String(63), nullable=False), Column("domain", String(63), nullable=False)


def _only(where: str) -> dict[str, Any]:
    """Restricts an index to the rows that meet ``where``."""
    return {"sqlite_where": text(where), "postgresql_where": text(where)}


projects = Table(
    "projects",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("labels", JSON, nullable=False, server_default=text("'{}'")),
    Column("state", Integer, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

task_specs = Table(
    "task_specs",
    metadata,
    Column("digest", String(64), primary_key=True, comment="SHA-256 of the bytes, hex"),
    Column("spec", LargeBinary, nullable=False, comment="flyteidl2.task.TaskSpec"),
)

tasks = Table(
    "tasks",
    metadata,
    *_scope(),
    Column("name", String(255), nullable=False),
    Column("version", String(255), nullable=False),
    Column("spec_digest", String(64), nullable=False),
    Column("short_name", Text, nullable=False, server_default=""),
    Column("environment_name", Text, nullable=False, server_default=""),
    Column("short_description", Text, nullable=False, server_default=""),
    Column("entrypoint", Integer, nullable=False, server_default="1"),
    Column("deployed_by", Text, nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "domain", "name", "version"),
    Index(None, "project", "domain", "created_at", "name"),
)

runs = Table(
    "runs",
    metadata,
    *_scope(),
    Column("run", String(30), nullable=False),
    Column("run_spec", LargeBinary, nullable=False, comment="flyteidl2.task.RunSpec"),
    Column("labels", JSON, nullable=False, server_default=text("'{}'")),
    Column("source", Integer, nullable=False, server_default="0"),
    Column("request_id", Text, comment="of the unnamed CreateRun that made it"),
    Column("content", String(64), nullable=False, comment="SHA-256 of what CreateRun compares when it is repeated"),
    Column("output_base", Text, nullable=False),
    Column("start_time", BigInteger, nullable=False, comment="what tasks are told: the same on every attempt"),
    Column("created_by", Text, nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "domain", "run"),
    Index("ix_runs_request_id", "project", "domain", "request_id", unique=True),
)

actions = Table(
    "actions",
    metadata,
    *_scope(),
    Column("run", String(30), nullable=False),
    Column("name", String(30), nullable=False),
    Column("parent", String(30), comment="NULL for the run's root"),
    Column("depth", Integer, nullable=False),
    Column("action_type", Integer, nullable=False),
    Column("group_name", Text, nullable=False, server_default=""),
    Column("phase", Integer, nullable=False),
    Column("version", Integer, nullable=False, comment="grows with every write"),
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("system_failures", Integer, nullable=False, server_default="0"),
    Column("interruptions", Integer, nullable=False, server_default="0", comment="attempts ended by a stop of the server"),
    Column("cache_status", Integer, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("not_before", BigInteger, comment="when the next attempt may start"),
    Column("task_project", Text, nullable=False, server_default=""),
    Column("task_domain", Text, nullable=False, server_default=""),
    Column("task_name", Text, nullable=False, server_default=""),
    Column("task_version", Text, nullable=False, server_default=""),
    Column("task_type", Text, nullable=False, server_default=""),
    Column("short_name", Text, nullable=False, server_default=""),
    Column("environment_name", Text, nullable=False, server_default=""),
    Column("spec_digest", String(64), comment="of the task's spec"),
    Column("spec", LargeBinary, comment="ConditionAction or TraceSpec"),
    Column("input_uri", Text, nullable=False, server_default="", comment="of inputs.pb itself"),
    Column("output_base", Text, nullable=False, server_default=""),
    Column("output_uri", Text, nullable=False, server_default=""),
    Column("cache_key", Text, nullable=False, server_default=""),
    Column("queue", Text, nullable=False, server_default=""),
    Column("error", LargeBinary, comment="flyteidl2.core.ExecutionError"),
    Column("reason", Text, nullable=False, server_default="", comment="of an abort"),
    Column("principal", Text, nullable=False, server_default="", comment="who aborted or signalled"),
    Column("value", LargeBinary, comment="a condition's flyteidl2.core.Literal"),
    Column("state", Text, nullable=False, server_default="", comment="what StateService.Put stored"),
    Column("record", LargeBinary, nullable=False, comment="the latest attempt, flyteidl2.workflow.ActionAttempt"),
    PrimaryKeyConstraint("project", "domain", "run", "name"),
    ForeignKeyConstraint(["project", "domain", "run"], ["runs.project", "runs.domain", "runs.run"]),
    Index("ix_actions_children", "project", "domain", "run", "parent", "created_at"),
    Index("ix_actions_roots", "project", "domain", "created_at", "run", **_only("parent IS NULL")),
    Index("ix_actions_newest", "created_at", "project", "domain", "run", **_only("parent IS NULL")),
    Index("ix_actions_tasks", "task_project", "task_domain", "task_name", "created_at", **_only("parent IS NULL")),
    Index(
        "ix_actions_task_versions",
        "task_project",
        "task_domain",
        "task_name",
        "task_version",
        "created_at",
        **_only("parent IS NULL"),
    ),
    Index("ix_actions_live", "created_at", **_only("ended_at IS NULL")),
)

attempts = Table(
    "attempts",
    metadata,
    *_scope(),
    Column("run", String(30), nullable=False),
    Column("name", String(30), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("record", LargeBinary, nullable=False, comment="flyteidl2.workflow.ActionAttempt"),
    PrimaryKeyConstraint("project", "domain", "run", "name", "attempt"),
)

cache_entries = Table(
    "cache_entries",
    metadata,
    Column("key", String(512), primary_key=True),
    Column("output_uri", Text, nullable=False),
    Column("metadata", LargeBinary, nullable=False, comment="flyteidl2.cacheservice.Metadata"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

cache_reservations = Table(
    "cache_reservations",
    metadata,
    Column("key", String(512), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("heartbeat", BigInteger, nullable=False, comment="microseconds"),
    Column("expires_at", BigInteger, nullable=False),
)
