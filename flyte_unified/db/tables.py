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
from sqlalchemy.types import TypeEngine

_NAMES = {"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s", "fk": "fk_%(table_name)s"}

metadata = MetaData(naming_convention=_NAMES)
replicated = MetaData(naming_convention=_NAMES)
"""What only a database of several replicas has."""


def _string(length: int) -> TypeEngine[str]:
    """Text in the order of its code points, which is SQLite's, whatever language the Postgres server was set up in."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def _scope() -> tuple[Column[str], Column[str]]:
    return Column("project", _string(63), nullable=False), Column("domain", _string(63), nullable=False)


def _only(where: str) -> dict[str, Any]:
    """Restricts an index to the rows that meet ``where``, with Postgres too (``schema.create``)."""
    return {"sqlite_where": text(where)}


def _trigger_columns() -> tuple[Column[Any], ...]:
    return (
        *_scope(),
        Column("task", _string(255), nullable=False, comment="its name, whatever the version"),
        Column("name", _string(255), nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("change", Integer, nullable=False, comment="what made the revision"),
        Column("spec", LargeBinary, nullable=False, comment="flyteidl2.trigger.TriggerSpec"),
        Column("automation", LargeBinary, nullable=False, comment="flyteidl2.task.TriggerAutomationSpec"),
        Column("automation_type", Integer, nullable=False),
        Column("task_version", _string(255), nullable=False),
        Column("active", Integer, nullable=False),
        Column("description", _TEXT, nullable=False, server_default=""),
        Column("deployed_by", _TEXT, nullable=False, server_default=""),
        Column("updated_by", _TEXT, nullable=False, server_default=""),
        Column("deployed_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        Column("deleted_at", BigInteger),
    )


projects = Table(
    "projects",
    metadata,
    Column("id", _string(63), primary_key=True),
    Column("name", _TEXT, nullable=False),
    Column("description", _TEXT, nullable=False, server_default=""),
    Column("labels", JSON, nullable=False, server_default=text("'{}'")),
    Column("state", Integer, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

domains = Table(
    "domains",
    metadata,
    Column("id", _string(63), primary_key=True),
    Column("name", _TEXT, nullable=False, comment="for people"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger, comment="so that the settings do not bring it back"),
)

task_specs = Table(
    "task_specs",
    metadata,
    Column("digest", _string(64), primary_key=True, comment="SHA-256 of the bytes, hex"),
    Column("spec", LargeBinary, nullable=False, comment="flyteidl2.task.TaskSpec"),
)

tasks = Table(
    "tasks",
    metadata,
    *_scope(),
    Column("name", _string(255), nullable=False),
    Column("version", _string(255), nullable=False),
    Column("spec_digest", _string(64), nullable=False),
    Column("short_name", _TEXT, nullable=False, server_default=""),
    Column("environment_name", _TEXT, nullable=False, server_default=""),
    Column("short_description", _TEXT, nullable=False, server_default=""),
    Column("entrypoint", Integer, nullable=False, server_default="1"),
    Column("deployed_by", _TEXT, nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "domain", "name", "version"),
    Index(None, "project", "domain", "created_at", "name"),
)

runs = Table(
    "runs",
    metadata,
    *_scope(),
    Column("run", _string(30), nullable=False),
    Column("run_spec", LargeBinary, nullable=False, comment="flyteidl2.task.RunSpec"),
    Column("labels", JSON, nullable=False, server_default=text("'{}'")),
    Column("source", Integer, nullable=False, server_default="0"),
    Column("request_id", _TEXT, comment="of the unnamed CreateRun that made it"),
    Column("content", _string(64), nullable=False, comment="SHA-256 of what CreateRun compares when it is repeated"),
    Column("output_base", _TEXT, nullable=False),
    Column("start_time", BigInteger, nullable=False, comment="what tasks are told: the same on every attempt"),
    Column("created_by", _TEXT, nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("trigger_task", _string(255), comment="of the trigger that started it, if one did"),
    Column("trigger_name", _string(255)),
    Column("trigger_revision", BigInteger),
    Column("trigger_type", Integer),
    PrimaryKeyConstraint("project", "domain", "run"),
    Index("ix_runs_request_id", "project", "domain", "request_id", unique=True),
    Index("ix_runs_people", "project", "domain", "created_by", "created_at", "run"),
    Index(
        "ix_runs_triggers",
        "project",
        "domain",
        "trigger_task",
        "trigger_name",
        "created_at",
        "run",
        **_only("trigger_name IS NOT NULL"),
    ),
)

LABEL = 256
"""Characters of a label's key, and of its value, that an index of Postgres takes whatever they are."""

run_labels = Table(
    "run_labels",
    metadata,
    *_scope(),
    Column("key", _TEXT, nullable=False),
    Column("value", _TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False, comment="of the run"),
    Column("run", _string(30), nullable=False),
    PrimaryKeyConstraint("project", "domain", "key", "value", "created_at", "run"),
    Index("ix_run_labels_keys", "project", "domain", "key", "created_at", "run"),
)
"""What ``runs.labels`` says, for lists: of a value the first ``LABEL`` characters, and nothing of a key that is longer."""

triggers = Table(
    "triggers",
    metadata,
    *_trigger_columns(),
    Column("next_fire", BigInteger, comment="NULL: nothing is to come"),
    PrimaryKeyConstraint("project", "domain", "task", "name"),
    Index("ix_triggers_next_fire", "next_fire", **_only("next_fire IS NOT NULL")),
    Index("ix_triggers_on_artifacts", "project", "domain", **_only("automation_type = 3 AND active = 1")),
)

trigger_revisions = Table(
    "trigger_revisions",
    metadata,
    *_trigger_columns(),
    PrimaryKeyConstraint("project", "domain", "task", "name", "revision"),
)

trigger_offers = Table(
    "trigger_offers",
    metadata,
    *_scope(),
    Column("task", _string(255), nullable=False),
    Column("name", _string(255), nullable=False, comment="of the trigger"),
    Column("at", BigInteger, nullable=False, comment="when the artifact's version was created"),
    Column("artifact", _string(255), nullable=False),
    Column("version", _string(255), nullable=False),
    PrimaryKeyConstraint("project", "domain", "task", "name", "at", "artifact", "version"),
)
"""Versions of artifacts for which a trigger has not fired yet; ``triggers.next_fire`` is the oldest one's time."""

artifact_names = Table(
    "artifact_names",
    metadata,
    *_scope(),
    Column("name", _string(255), nullable=False),
    Column("partition_schema", LargeBinary, nullable=False, comment="flyteidl2.artifact.ArtifactPartitionSchema"),
    Column("declared", Integer, nullable=False, comment="whether by itself, and not by a first version alone"),
    Column("versions", BigInteger, nullable=False),
    Column("latest", _string(255), comment="NULL while there is no version"),
    Column("latest_at", BigInteger),
    PrimaryKeyConstraint("project", "domain", "name"),
    Index("ix_artifact_names_newest", "project", "domain", "latest_at", "name", **_only("latest_at IS NOT NULL")),
)

artifacts = Table(
    "artifacts",
    metadata,
    *_scope(),
    Column("name", _string(255), nullable=False),
    Column("version", _string(255), nullable=False),
    Column("spec", LargeBinary, nullable=False, comment="flyteidl2.artifact.ArtifactSpec"),
    Column("mismatch", LargeBinary, comment="flyteidl2.artifact.PartitionSchemaMismatch, of a task's that does not fit"),
    Column("partition", _string(64), nullable=False, comment="digest of all partition values"),
    Column("partitions", JSON, nullable=False, comment="those that are text"),
    Column("time_partition", BigInteger),
    Column("user_metadata", JSON, nullable=False),
    Column("source_run", _TEXT, nullable=False),
    Column("source_action", _TEXT, nullable=False),
    Column("source_external_ref", _TEXT, nullable=False),
    Column("created_by", _TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False, comment="of a name's versions, no two at one time"),
    PrimaryKeyConstraint("project", "domain", "name", "version"),
    Index("ix_artifacts_newest", "project", "domain", "created_at", "name", "version"),
    Index("ix_artifacts_versions", "project", "domain", "name", "created_at", "version"),
    Index("ix_artifacts_partitions", "project", "domain", "name", "partition", "created_at"),
    Index("ix_artifacts_times", "project", "domain", "name", "time_partition", "created_at", "version"),
    Index("ix_artifacts_runs", "project", "domain", "source_run", "created_at", "name", "version"),
)

actions = Table(
    "actions",
    metadata,
    *_scope(),
    Column("run", _string(30), nullable=False),
    Column("name", _string(30), nullable=False),
    Column("parent", _string(30), comment="NULL for the run's root"),
    Column("depth", Integer, nullable=False),
    Column("action_type", Integer, nullable=False),
    Column("group_name", _TEXT, nullable=False, server_default=""),
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
    Column("task_project", _TEXT, nullable=False, server_default=""),
    Column("task_domain", _TEXT, nullable=False, server_default=""),
    Column("task_name", _TEXT, nullable=False, server_default=""),
    Column("task_version", _TEXT, nullable=False, server_default=""),
    Column("task_type", _TEXT, nullable=False, server_default=""),
    Column("short_name", _TEXT, nullable=False, server_default=""),
    Column("environment_name", _TEXT, nullable=False, server_default=""),
    Column("spec_digest", _string(64), comment="of the task's spec"),
    Column("spec", LargeBinary, comment="ConditionAction or TraceSpec"),
    Column("input_uri", _TEXT, nullable=False, server_default="", comment="of inputs.pb itself"),
    Column("output_base", _TEXT, nullable=False, server_default=""),
    Column("output_uri", _TEXT, nullable=False, server_default=""),
    Column("cache_key", _TEXT, nullable=False, server_default=""),
    Column("queue", _TEXT, nullable=False, server_default=""),
    Column("error", LargeBinary, comment="flyteidl2.core.ExecutionError"),
    Column("reason", _TEXT, nullable=False, server_default="", comment="of an abort"),
    Column("principal", _TEXT, nullable=False, server_default="", comment="who aborted or signalled"),
    Column("value", LargeBinary, comment="a condition's flyteidl2.core.Literal"),
    Column("state", _TEXT, nullable=False, server_default="", comment="what StateService.Put stored"),
    Column("record", LargeBinary, nullable=False, comment="the latest attempt, flyteidl2.workflow.ActionAttempt"),
    Column("reported", BigInteger, comment="of a tracked run: its client's latest version; NULL: carried out here"),
    Column("outcome", Integer, nullable=False, server_default="0", comment="the phase in which it ended; 0: it lives"),
    PrimaryKeyConstraint("project", "domain", "run", "name"),
    ForeignKeyConstraint(["project", "domain", "run"], ["runs.project", "runs.domain", "runs.run"]),
    # Not in the order of the primary key: Postgres, which thinks little of runs' sizes, would take it for that. Without the
    # roots, whose order SQLite would rather look up here and sort.
    Index("ix_actions_children", "parent", "run", "domain", "project", "created_at", **_only("parent IS NOT NULL")),
    Index("ix_actions_roots", "project", "domain", "created_at", "run", **_only("parent IS NULL")),
    # Of the outcome and not of the phase: what changes at the end alone costs the moves before it nothing.
    Index("ix_actions_outcomes", "project", "domain", "outcome", "created_at", "run", **_only("parent IS NULL")),
    Index("ix_actions_names", "project", "domain", "task_name", "created_at", "run", **_only("parent IS NULL")),
    Index("ix_actions_newest", "created_at", "project", "domain", "run", **_only("parent IS NULL")),
    Index(
        "ix_actions_tasks",
        "task_project",
        "task_domain",
        "task_name",
        "created_at",
        "project",
        "domain",
        "run",
        **_only("parent IS NULL"),
    ),
    Index(
        "ix_actions_task_versions",
        "task_project",
        "task_domain",
        "task_name",
        "task_version",
        "created_at",
        "project",
        "domain",
        "run",
        **_only("parent IS NULL"),
    ),
    Index("ix_actions_live", "created_at", **_only("ended_at IS NULL")),
    Index(
        "ix_actions_tracked",
        "project",
        "domain",
        "created_at",
        "run",
        **_only("parent IS NULL AND reported IS NOT NULL"),
    ),
    info={"postgresql_with": {"fillfactor": 60}},  # room for a row's next versions on its page, so that a move touches no index
)

attempts = Table(
    "attempts",
    metadata,
    *_scope(),
    Column("run", _string(30), nullable=False),
    Column("name", _string(30), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("record", LargeBinary, nullable=False, comment="flyteidl2.workflow.ActionAttempt"),
    PrimaryKeyConstraint("project", "domain", "run", "name", "attempt"),
)

cache_entries = Table(
    "cache_entries",
    metadata,
    Column("key", _string(512), primary_key=True),
    Column("output_uri", _TEXT, nullable=False),
    Column("metadata", LargeBinary, nullable=False, comment="flyteidl2.cacheservice.Metadata"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

cache_reservations = Table(
    "cache_reservations",
    metadata,
    Column("key", _string(512), primary_key=True),
    Column("owner", _TEXT, nullable=False),
    Column("heartbeat", BigInteger, nullable=False, comment="microseconds"),
    Column("expires_at", BigInteger, nullable=False),
)

connector_jobs = Table(
    "connector_jobs",
    metadata,
    *_scope(),
    Column("run", _string(30), nullable=False),
    Column("name", _string(30), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("connector", _TEXT, nullable=False, comment="the address of the service that runs it"),
    Column("request", LargeBinary, nullable=False, comment="flyteidl2.connector.GetTaskRequest"),
    Column("outputs", JSON, nullable=False, comment="names of what the task promises"),
    PrimaryKeyConstraint("project", "domain", "run", "name", "attempt"),
)

secrets = Table(
    "secrets",
    metadata,
    *_scope(),
    Column("name", _string(255), nullable=False),
    Column("kind", Integer, nullable=False, comment="flyteidl2.secret.SecretType"),
    Column("value", LargeBinary, nullable=False, comment="sealed: see secrets.cipher"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "domain", "name"),
)
"""An empty project stands for all of a domain's, an empty domain for every one."""

scope_settings = Table(
    "scope_settings",
    metadata,
    *_scope(),
    Column("settings", LargeBinary, nullable=False, comment="flyteidl2.settings.Settings, as set here and nowhere above"),
    Column("version", BigInteger, nullable=False, comment="grows with every write"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "domain"),
)
"""The same."""

apps = Table(
    "apps",
    metadata,
    *_scope(),
    Column("app", _string(30), nullable=False, comment="its name"),
    Column("version", BigInteger, nullable=False, comment="grows with every write"),
    Column("app_meta", LargeBinary, nullable=False, comment="flyteidl2.app.Meta"),
    Column("app_spec", LargeBinary, nullable=False, comment="flyteidl2.app.Spec"),
    Column("app_status", LargeBinary, nullable=False, comment="flyteidl2.app.Status"),
    Column("status_phase", Integer, nullable=False, comment="the latest deployment status"),
    Column("deployment", _string(64), nullable=False, comment="SHA-256 of what its replicas are made of, hex"),
    Column("host", _string(63), comment="its short host name; NULL: somebody else's"),
    Column("cluster", _string(63), nullable=False, server_default="", comment="where it is pinned to"),
    Column("artifacts", _TEXT, nullable=False, server_default="", comment="what it consumes, a line each"),
    Column("created_by", _TEXT, nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "domain", "app"),
    Index("ix_apps_host", "host", unique=True),
)

deliveries = Table(
    "deliveries",
    metadata,
    *_scope(),
    Column("run", _string(30), nullable=False),
    Column("name", _string(30), nullable=False, comment="of the action that gives cause"),
    Column("number", Integer, nullable=False),
    Column("channel", _string(16), nullable=False, comment="webhook, email or condition"),
    Column("rule", LargeBinary, nullable=False, comment="flyteidl2.task.InlineRule; empty: a condition's own"),
    Column("created_at", BigInteger, nullable=False),
    Column("ready_at", BigInteger, comment="NULL until there is something to tell"),
    Column("due_at", BigInteger, comment="of the next try; NULL: none is to come"),
    Column("tries", Integer, nullable=False),
    Column("error", _TEXT, nullable=False, comment="of the latest try"),
    PrimaryKeyConstraint("project", "domain", "run", "name", "number"),
    Index("ix_deliveries_due_at", "due_at", **_only("due_at IS NOT NULL")),
    Index("ix_deliveries_waiting", "created_at", **_only("ready_at IS NULL")),
)

compatibility = Table(
    "compatibility",
    metadata,
    Column("minimum", _string(32), primary_key=True, comment="the oldest revision whose programs may use this schema"),
)

leadership = Table(
    "leadership",
    metadata,
    Column("name", _string(63), primary_key=True, comment="of what there is one leader for"),
    Column("epoch", BigInteger, nullable=False, comment="of the lease, greater with every leader"),
    Column("holder", _TEXT, nullable=False),
    Column("since", BigInteger, nullable=False),
)

changes = Table(
    "changes",
    replicated,
    Column("id", BigInteger, primary_key=True, autoincrement=True, comment="in the order of commits"),
    Column("origin", BigInteger, nullable=False, comment="the replica that wrote"),
    *_scope(),
    Column("run", _string(30), nullable=False),
    Column("name", _string(30), nullable=False, comment="of an action; empty: a batch that changed none"),
    Column("at", BigInteger, nullable=False, comment="microseconds, by the database's clock"),
    Column("topic", _string(30), nullable=False, server_default="", comment="of a notice, which is about no action"),
    Column("key", _TEXT, nullable=False, server_default="", comment="what the notice is about"),
)
