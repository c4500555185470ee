"""The SQL of secrets, as pieces of work (see ``db.api``). What stands in ``value`` is sealed before it comes here."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, delete, select, update

from flyte_unified.core.clock import Micros
from flyte_unified.core.paging import Listing
from flyte_unified.db import lists
from flyte_unified.db.api import Work
from flyte_unified.db.tables import secrets
from flyte_unified.db.upsert import insert_new
from flyte_unified.secrets.model import Secret, SecretId, SecretKind

_SHOWN = (secrets.c.project, secrets.c.domain, secrets.c.name, secrets.c.kind, secrets.c.created_at)
_FIELDS = {name: lists.Field(secrets.c[name]) for name in SecretId._fields}

_HERE = tuple(secrets.c[name] == bindparam(f"_{name}") for name in SecretId._fields)
_ADD = insert_new(secrets).returning(secrets.c.name)
_CHANGE = (
    update(secrets)
    .where(*_HERE)
    .values(kind=bindparam("kind"), value=bindparam("value"), updated_at=bindparam("updated_at"))
    .returning(secrets.c.name)
)
_GET = select(*_SHOWN).where(*_HERE)
_VALUE = select(secrets.c.value).where(*_HERE)
_REMOVE = delete(secrets).where(*_HERE).returning(secrets.c.name)


def add(secret: Secret, value: bytes) -> Work[bool]:
    """False when there is one of that id."""
    times = {"created_at": secret.created_at, "updated_at": secret.created_at}
    row = {**secret.id._asdict(), "kind": int(secret.kind), "value": value, **times}
    return (yield _ADD, row).first() is not None


def change(key: SecretId, *, kind: SecretKind, value: bytes, at: Micros) -> Work[bool]:
    """False when there is none of that id."""
    row = {**_here(key), "kind": int(kind), "value": value, "updated_at": at}
    return (yield _CHANGE, row).first() is not None


def get(key: SecretId) -> Work[Secret | None]:
    row = (yield _GET, _here(key)).one_or_none()
    return _secret(row) if row is not None else None


def value(keys: tuple[SecretId, ...]) -> Work[tuple[SecretId, bytes] | None]:
    """The sealed value of the first of ``keys`` that there is."""
    for key in keys:
        row = (yield _VALUE, _here(key)).one_or_none()
        if row is not None:
            return key, bytes(row.value)
    return None


def remove(key: SecretId) -> Work[bool]:
    """False when there is none of that id."""
    return (yield _REMOVE, _here(key)).first() is not None


def page(listing: Listing, *, project: str, domain: str) -> Work[tuple[list[Secret], str]]:
    """One page, and the token of the next."""
    statement = select(*_SHOWN)
    if project:
        statement = statement.where(secrets.c.project == project)
    if domain:
        statement = statement.where(secrets.c.domain == domain)
    rows = (yield lists.apply(statement, listing, _FIELDS.get)).all()
    found, token = lists.cut(rows, listing)
    return [_secret(row) for row in found], token


def _here(key: SecretId) -> dict[str, Any]:
    return {f"_{name}": part for name, part in key._asdict().items()}


def _secret(row: Row[Any]) -> Secret:
    return Secret(id=SecretId(row.project, row.domain, row.name), kind=SecretKind(row.kind), created_at=row.created_at)
