"""The SQL of apps, as pieces of work (see ``db.api``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from flyteidl2.app import app_definition_pb2 as idl
from sqlalchemy import ColumnElement, Row, bindparam, delete, func, select, update

from flyte_unified.apps.model import App, AppKey, Phase
from flyte_unified.core.clock import Micros
from flyte_unified.core.filters import TIME, Kind
from flyte_unified.core.paging import Listing
from flyte_unified.db import lists
from flyte_unified.db.api import Work
from flyte_unified.db.tables import apps as table
from flyte_unified.db.upsert import insert_new


def _phase(text: str) -> int:
    if text.isdecimal():
        text = Phase.Name(int(text))  # raises ValueError for a number that is none
    name = text.upper()
    return int(Phase.Value(name if name.startswith("DEPLOYMENT_STATUS_") else f"DEPLOYMENT_STATUS_{name}"))


FIELDS = {
    "project": lists.Field(table.c.project),
    "domain": lists.Field(table.c.domain),
    "name": lists.Field(table.c.app),
    "status_phase": lists.Field(table.c.status_phase, Kind("the name of a deployment status", _phase)),
    "created_by": lists.Field(table.c.created_by),
    "created_at": lists.Field(table.c.created_at, TIME),
    "updated_at": lists.Field(table.c.updated_at, TIME),
}
"""What a list of apps can be filtered and sorted by."""
KIND = lists.kinds(FIELDS.get)

_HERE = (
    table.c.project == bindparam("_project"),
    table.c.domain == bindparam("_domain"),
    table.c.app == bindparam("_name"),
)
_GET = select(table).where(*_HERE)
_AT = select(table.c.app).where(table.c.host == bindparam("_host"))
_ADD = insert_new(table).returning(table.c.version)
_CHANGED = ("version", "app_meta", "app_spec", "app_status", "status_phase", "deployment", "cluster", "artifacts", "updated_at")
_REPLACE = (
    update(table)
    .where(*_HERE, table.c.version == bindparam("_version"))
    .values({name: bindparam(name) for name in _CHANGED})
    .returning(table.c.version)
)
_DELETE = delete(table).where(*_HERE).returning(table.c.version)


def get(key: AppKey) -> Work[App | None]:
    row = (yield _GET, _place(key)).one_or_none()
    return _app(row) if row is not None else None


def change(
    key: AppKey, to: Callable[[App | None], App | None], *, hosts: Sequence[str] = ()
) -> Work[tuple[App | None, App | None]]:
    """What was there, and what is after ``to``, which may raise, or give None or the same for no change.

    A new app has the first of ``hosts`` that no other has.
    """
    while True:
        known = yield from get(key)
        after = to(known)
        if after is None or after is known:
            return known, known
        if known is None:
            after = replace(after, host=(yield from _free(hosts)))
            written = (yield _ADD, _columns(after)).first()
        else:
            values = _columns(after)
            changed = {name: values[name] for name in _CHANGED}
            written = (yield _REPLACE, {**changed, **_place(key), "_version": known.version}).first()
        if written is not None:  # else another replica was faster
            return known, after


def remove(key: AppKey) -> Work[App | None]:
    """What was there."""
    known = yield from get(key)
    if known is not None:
        yield _DELETE, _place(key)
    return known


def everything() -> Work[list[App]]:
    rows = (yield select(table).order_by(table.c.created_at)).all()
    return [_app(row) for row in rows]


def some(keys: Iterable[AppKey]) -> Work[list[App]]:
    found = []
    for key in keys:
        app = yield from get(key)
        if app is not None:
            found.append(app)
    return found


def page(scope: Sequence[ColumnElement[bool]], listing: Listing) -> Work[tuple[list[App], str]]:
    """One page, and the token of the next."""
    rows, token = lists.cut((yield lists.apply(select(table).where(*scope), listing, FIELDS.get)).all(), listing)
    return [_app(row) for row in rows], token


def count(scope: Sequence[ColumnElement[bool]], listing: Listing) -> Work[int]:
    """Of all pages."""
    counted = select(func.count()).select_from(table).where(*scope, *lists.where(listing.conditions, FIELDS.get))
    return int((yield counted).scalar_one())


def in_scope(*, artifact: str = "", **wanted: str) -> Sequence[ColumnElement[bool]]:
    """Columns that have a value, an empty one being no matter; ``artifact`` is how a line about what they consume begins."""
    scope = [table.c[name] == value for name, value in wanted.items() if value]
    if artifact:
        lines = table.c.artifacts
        scope.append(func.replace(lines, f"\n{artifact}", "") != lines)
    return scope


def _free(hosts: Sequence[str]) -> Work[str | None]:
    for host in hosts:
        if (yield _AT, {"_host": host}).first() is None:
            return host
    return None


def _place(key: AppKey) -> dict[str, str]:
    return {f"_{name}": value for name, value in key._asdict().items()}


def _columns(app: App) -> dict[str, Any]:
    return {
        "project": app.key.project,
        "domain": app.key.domain,
        "app": app.key.name,
        "version": app.version,
        "app_meta": app.meta.SerializeToString(),
        "app_spec": app.spec.SerializeToString(),
        "app_status": app.status.SerializeToString(),
        "status_phase": app.phase,
        "deployment": app.deployment,
        "host": app.host,
        "cluster": app.spec.cluster,
        "artifacts": _artifacts(app.spec),
        "created_by": app.created_by,
        "created_at": app.created_at,
        "updated_at": app.updated_at,
    }


def _artifacts(spec: idl.Spec) -> str:
    """A line for each that it consumes: project, domain, name and version."""
    lines = []
    for item in spec.inputs.items:
        if item.HasField("artifact_id"):
            key = item.artifact_id.key
            lines.append(f"\n{key.project}/{key.domain}/{key.name}@{item.artifact_id.version}\n")
    return "".join(lines)


def _app(row: Row[Any]) -> App:
    return App(
        key=AppKey(row.project, row.domain, row.app),
        version=row.version,
        meta=idl.Meta.FromString(row.app_meta),
        spec=idl.Spec.FromString(row.app_spec),
        status=idl.Status.FromString(row.app_status),
        deployment=row.deployment,
        host=row.host,
        created_by=row.created_by,
        created_at=Micros(row.created_at),
        updated_at=Micros(row.updated_at),
    )
