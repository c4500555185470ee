"""The SQL of operations."""

from __future__ import annotations

from sqlalchemy import text

from flyte_unified.db.api import Work


def revision() -> Work[str]:
    """The database's schema, as it says itself."""
    return str((yield text("SELECT version_num FROM alembic_version")).scalar_one())
