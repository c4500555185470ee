"""Runs that are carried out elsewhere and told here, and what lists of runs are read by.

Programs that do not know the first would carry them out, and those that do not note outcomes leave runs out of lists: both are
out.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ROOTS = "parent IS NULL"
_TERMINAL = "(5, 6, 7, 8, 10)"


def upgrade() -> None:
    about = "of a tracked run: its client's latest version; NULL: carried out here"
    op.add_column("actions", sa.Column("reported", sa.BigInteger, comment=about))
    about = "the phase in which it ended; 0: it lives"
    op.add_column("actions", sa.Column("outcome", sa.Integer, nullable=False, server_default="0", comment=about))
    op.execute(f"UPDATE actions SET outcome = phase WHERE phase IN {_TERMINAL}")
    _index("children", "parent", "run", "domain", "project", "created_at", where="parent IS NOT NULL", anew=True)
    _index("outcomes", "project", "domain", "outcome", "created_at", "run")
    _index("names", "project", "domain", "task_name", "created_at", "run")
    task, order = ("task_project", "task_domain", "task_name"), ("created_at", "project", "domain", "run")
    _index("tasks", *task, *order, anew=True)
    _index("task_versions", *task, "task_version", *order, anew=True)
    _index("tracked", "project", "domain", "created_at", "run", where=f"{_ROOTS} AND reported IS NOT NULL")
    op.create_index("ix_runs_people", "runs", ["project", "domain", "created_by", "created_at", "run"])
    _labels()
    op.execute("UPDATE compatibility SET minimum = '0009'")


def _labels() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "run_labels",
        sa.Column("project", _string(63), nullable=False),
        sa.Column("domain", _string(63), nullable=False),
        sa.Column("key", text, nullable=False),
        sa.Column("value", text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False, comment="of the run"),
        sa.Column("run", _string(30), nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "key", "value", "created_at", "run", name="pk_run_labels"),
    )
    op.create_index("ix_run_labels_keys", "run_labels", ["project", "domain", "key", "created_at", "run"])
    each = "json_each_text" if op.get_bind().dialect.name == "postgresql" else "json_each"
    op.execute(
        "INSERT INTO run_labels (project, domain, key, value, created_at, run) "
        "SELECT r.project, r.domain, l.key, substr(l.value, 1, 256), r.created_at, r.run "
        f"FROM runs AS r, {each}(r.labels) AS l WHERE length(l.key) <= 256"
    )


def _index(name: str, *columns: str, where: str = _ROOTS, anew: bool = False) -> None:
    only: dict[str, Any] = {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
    if anew:
        op.drop_index(f"ix_actions_{name}", "actions")
    op.create_index(f"ix_actions_{name}", "actions", list(columns), **only)


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
