"""The SQL of scopes' settings, as pieces of work (see ``db.api``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, select, update

from flyte_unified.core.clock import Micros
from flyte_unified.db.api import Work
from flyte_unified.db.tables import scope_settings as table
from flyte_unified.db.upsert import insert_new


class Scope(NamedTuple):
    """``project`` is empty for a domain, ``domain`` too for the whole."""

    project: str
    domain: str

    @property
    def levels(self) -> tuple[Scope, ...]:
        """Itself and those above, the widest first."""
        domain = (Scope("", self.domain),) if self.domain else ()
        return (Scope("", ""), *domain, *((self,) if self.project else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is set at one scope. Version 0: nothing is, and nothing is stored."""

    scope: Scope
    settings: bytes = b""
    """flyteidl2.settings.Settings"""
    version: int = 0


_HERE = (table.c.project == bindparam("_project"), table.c.domain == bindparam("_domain"))
_GET = select(table.c.settings, table.c.version).where(*_HERE)
_ADD = insert_new(table).returning(table.c.version)
_CHANGE = (
    update(table)
    .where(*_HERE, table.c.version == bindparam("_version"))
    .values(settings=bindparam("settings"), version=bindparam("version"), updated_at=bindparam("updated_at"))
    .returning(table.c.version)
)


def get(scopes: Sequence[Scope]) -> Work[list[Record]]:
    """One record a scope, in their order."""
    found = []
    for scope in scopes:
        row: Row[Any] | None = (yield _GET, _here(scope)).one_or_none()
        found.append(
            Record(scope=scope) if row is None else Record(scope=scope, settings=bytes(row.settings), version=row.version)
        )
    return found


def add(scope: Scope, settings: bytes, *, at: Micros) -> Work[bool]:
    """Version 1. False when there is a record."""
    row = {**scope._asdict(), "settings": settings, "version": 1, "created_at": at, "updated_at": at}
    return (yield _ADD, row).first() is not None


def change(scope: Scope, settings: bytes, *, version: int, at: Micros) -> Work[bool]:
    """The version after ``version``. False when that is not the present one."""
    values = {"settings": settings, "version": version + 1, "updated_at": at}
    return (yield _CHANGE, {**_here(scope), "_version": version, **values}).first() is not None


def _here(scope: Scope) -> dict[str, str]:
    return {"_project": scope.project, "_domain": scope.domain}
