"""The SQL of artifacts, as pieces of work (see ``db.api``).

Whoever adds or removes a version changes the row of its name first, so that one after the other has its turn: no two versions
of a name have the same time, and the newest is never in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flyteidl2.artifact import artifact_pb2
from sqlalchemy import ColumnElement, Row, bindparam, delete, exists, func, select, update

from flyte_unified.artifacts.model import Artifact, ArtifactKey, Group, Name, NameKey, Wanted, mismatch
from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.core.filters import LONG, TIME, Condition
from flyte_unified.core.paging import Listing
from flyte_unified.db import lists
from flyte_unified.db.api import Work
from flyte_unified.db.lists import Field
from flyte_unified.db.tables import artifact_names, artifacts
from flyte_unified.db.upsert import insert_new

PARTITION, METADATA = "partition.", "user_metadata."
"""Before a key, in the names of fields."""

_RECENT = 1000
"""Versions that keys of metadata are looked for in, and how many keys are told."""
_NAME_COLUMNS = ("partition_schema", "declared", "versions", "latest_at")
_SHOWN = tuple(artifacts.c[name] for name in (*ArtifactKey._fields, "spec", "mismatch", "created_by", "created_at"))
_FIELDS = {
    "project": Field(artifacts.c.project),
    "domain": Field(artifacts.c.domain),
    "name": Field(artifacts.c.name),
    "version": Field(artifacts.c.version),
    "created_at": Field(artifacts.c.created_at, TIME),
    "created_by": Field(artifacts.c.created_by),
    "source_run": Field(artifacts.c.source_run),
    "source_action": Field(artifacts.c.source_action),
    "source_external_ref": Field(artifacts.c.source_external_ref),
    "time_partition": Field(artifacts.c.time_partition, TIME, nullable=True),
}
_NAME_FIELDS = {
    "name": Field(artifact_names.c.name),
    "versions": Field(artifact_names.c.versions, LONG),
    "created_at": Field(artifact_names.c.latest_at, TIME),
}


def field(name: str) -> Field | None:
    """What lists of artifacts are filtered and sorted by."""
    for prefix, column in ((PARTITION, artifacts.c.partitions), (METADATA, artifacts.c.user_metadata)):
        key = name.removeprefix(prefix)
        if key and key != name and not set(key) & {'"', "\\", "\0"}:
            return Field(column[key].as_string(), nullable=True)
    return _FIELDS.get(name)


KIND = lists.kinds(field)
NAME_KIND = lists.kinds(_NAME_FIELDS.get)

_OF_NAME = tuple(artifacts.c[name] == bindparam("_" + name) for name in NameKey._fields)
_ONE = (*_OF_NAME, artifacts.c.version == bindparam("_version"))
_GET = select(*_SHOWN).where(*_ONE)
_NEWEST = select(*_SHOWN).where(*_OF_NAME).order_by(artifacts.c.created_at.desc()).limit(1)
_ADD = insert_new(artifacts)
_REMOVE = delete(artifacts).where(*_ONE).returning(artifacts.c.version)
_NAMED = tuple(artifact_names.c[name] == bindparam("_" + name) for name in NameKey._fields)
_OF_A_NAME = tuple(artifact_names.c[name] for name in (*NameKey._fields, *_NAME_COLUMNS))
_NAME = select(*_OF_A_NAME).where(*_NAMED)
_ADD_NAME = insert_new(artifact_names)
_COUNT = (
    update(artifact_names)
    .where(*_NAMED)
    .values(versions=bindparam("versions"), latest=bindparam("latest"), latest_at=bindparam("latest_at"))
)
_HOLD = update(artifact_names).where(*_NAMED).values(versions=artifact_names.c.versions).returning(*_OF_A_NAME)
_DECLARE = update(artifact_names).where(*_NAMED).values(declared=1)
_REMOVE_NAME = delete(artifact_names).where(*_NAMED)
_LATEST_TIME = (
    select(func.max(artifacts.c.time_partition))
    .where(*(artifacts.c[name] == artifact_names.c[name] for name in NameKey._fields))
    .correlate(artifact_names)
    .scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class Added:
    """What there is under the name now; ``new`` if it was not there before."""

    artifact: Artifact
    new: bool


def get(key: ArtifactKey) -> Work[Artifact | None]:
    row = (yield _GET, _place(key)).one_or_none()
    return _artifact(row) if row is not None else None


def newest(key: NameKey) -> Work[Artifact | None]:
    row = (yield _NEWEST, _place(key)).one_or_none()
    return _artifact(row) if row is not None else None


def name(key: NameKey) -> Work[Name | None]:
    row = (yield _NAME, _place(key)).one_or_none()
    return _name(row) if row is not None else None


def add(new: Wanted, *, now: Micros, strict: bool) -> Work[Added]:
    """Stores a version, or finds the one of that name. Raises FailedPrecondition where its partition keys do not fit.

    Not ``strict``: it is stored all the same, with a note of that.
    """
    if (known := (yield from get(new.key))) is not None:
        return Added(known, new=False)
    group = yield from _made(new.key.name_key, new.schema)
    if (known := (yield from get(new.key))) is not None:  # another was faster
        return Added(known, new=False)
    wrong = mismatch(group.schema, new.schema)
    if wrong is not None and strict:
        raise FailedPrecondition(f"spec.partitions: {wrong.message}")
    at = Micros(max(now, (group.latest_at or 0) + 1))
    yield _COUNT, {**_place(group.key), "versions": group.versions + 1, "latest": new.key.version, "latest_at": at}
    artifact = Artifact(key=new.key, spec=new.spec, mismatch=wrong, created_by=new.by, created_at=at)
    yield _ADD, _columns(new, artifact)
    return Added(artifact, new=True)


def remove(key: ArtifactKey) -> Work[bool]:
    """False where there is none. The last version of a name that nobody declared takes the name with it."""
    known = yield from _hold(key.name_key)
    if known is None or (yield _REMOVE, _place(key)).first() is None:
        return False
    latest = yield from newest(key.name_key)
    if latest is None and not known.declared:
        yield _REMOVE_NAME, _place(key.name_key)
        return True
    after = {"latest": latest.key.version, "latest_at": latest.created_at} if latest else {"latest": None, "latest_at": None}
    yield _COUNT, {**_place(key.name_key), "versions": known.versions - 1, **after}
    return True


def declare(key: NameKey, schema: artifact_pb2.ArtifactPartitionSchema) -> Work[Name]:
    """The name as it is now; its schema is another one where it had that before."""
    known = yield from _made(key, schema)
    if not known.declared and mismatch(known.schema, schema) is None:
        yield _DECLARE, _place(key)
    return known


def page(scope: Sequence[ColumnElement[bool]], listing: Listing) -> Work[tuple[list[Artifact], str]]:
    """One page, and the token of the next."""
    rows = (yield lists.apply(select(*_SHOWN).where(*scope), listing, field)).all()
    found, token = lists.cut(rows, listing)
    return [_artifact(row) for row in found], token


def names(project: str, domain: str, listing: Listing) -> Work[tuple[list[Group], str]]:
    """One page of names that have versions, and the token of the next."""
    shown = (*(artifact_names.c[name] for name in _NAME_COLUMNS), _LATEST_TIME.label("latest_time"))
    of_latest = [artifacts.c[name] == artifact_names.c[name] for name in NameKey._fields]
    statement = (
        select(*_SHOWN, *shown)
        .join_from(artifact_names, artifacts, (artifacts.c.version == artifact_names.c.latest) & of_latest[2])
        .where(*of_latest[:2], artifact_names.c.project == project, artifact_names.c.domain == domain)
        .where(artifact_names.c.latest_at.is_not(None))
    )
    rows, token = lists.cut((yield lists.apply(statement, listing, _NAME_FIELDS.get)).all(), listing)
    return [Group(_name(row), _artifact(row), row.latest_time) for row in rows], token


def metadata_keys(scope: Sequence[ColumnElement[bool]]) -> Work[list[str]]:
    """Those that the newest versions have."""
    newest_first = artifacts.c.created_at.desc()
    rows = (yield select(artifacts.c.user_metadata).where(*scope).order_by(newest_first).limit(_RECENT)).all()
    return sorted({key for row in rows for key in row.user_metadata})[:_RECENT]


def partition_values(key: NameKey, partition: str, wanted: Sequence[Condition], limit: int) -> Work[list[Any]]:
    """What one of a name's partition keys is, over all versions that meet ``wanted``: texts, or times for an empty one."""
    column = artifacts.c.partitions[partition].as_string() if partition else artifacts.c.time_partition
    where = (*of(key), *lists.where(wanted, field), column.is_not(None))
    rows = (yield select(column.label("value")).where(*where).distinct().order_by(column.asc()).limit(limit)).all()
    return sorted(row.value for row in rows)


def of(key: NameKey) -> list[ColumnElement[bool]]:
    """All versions of a name; of a project and domain, where that is empty."""
    return [artifacts.c[name] == value for name, value in key._asdict().items() if value]


def newest_of_partition() -> ColumnElement[bool]:
    """Versions with no newer one in their partition."""
    newer = artifacts.alias("newer")
    alike = (newer.c[name] == artifacts.c[name] for name in (*NameKey._fields, "partition"))
    return ~exists().where(*alike, newer.c.created_at > artifacts.c.created_at)


def _hold(key: NameKey) -> Work[Name | None]:
    """The name; its versions are nobody else's until the commit."""
    row = (yield _HOLD, _place(key)).one_or_none()
    return _name(row) if row is not None else None


def _made(key: NameKey, schema: artifact_pb2.ArtifactPartitionSchema) -> Work[Name]:
    """The same, made with ``schema`` if need be."""
    while (known := (yield from _hold(key))) is None:
        yield _ADD_NAME, _name_columns(key, schema)
    return known


def _place(key: NameKey | ArtifactKey) -> dict[str, Any]:
    return {f"_{name}": value for name, value in key._asdict().items()}


def _name_columns(key: NameKey, schema: artifact_pb2.ArtifactPartitionSchema) -> dict[str, Any]:
    return {**key._asdict(), "partition_schema": schema.SerializeToString(), "declared": 0, "versions": 0}


def _columns(new: Wanted, artifact: Artifact) -> dict[str, Any]:
    return {
        **new.key._asdict(),
        "spec": new.spec.SerializeToString(),
        "mismatch": artifact.mismatch.SerializeToString() if artifact.mismatch is not None else None,
        "partition": new.partition,
        "partitions": new.partitions,
        "time_partition": new.time,
        "user_metadata": dict(new.spec.info.user_metadata),
        "source_run": new.source.run if new.source is not None else "",
        "source_action": new.source.name if new.source is not None else "",
        "source_external_ref": new.spec.source.external_ref,
        "created_by": new.by,
        "created_at": artifact.created_at,
    }


def _artifact(row: Row[Any]) -> Artifact:
    wrong = artifact_pb2.PartitionSchemaMismatch.FromString(row.mismatch) if row.mismatch is not None else None
    return Artifact(
        key=ArtifactKey._make(row[:4]),
        spec=artifact_pb2.ArtifactSpec.FromString(row.spec),
        mismatch=wrong,
        created_by=row.created_by,
        created_at=row.created_at,
    )


def _name(row: Row[Any]) -> Name:
    return Name(
        key=NameKey._make(row[:3]),
        schema=artifact_pb2.ArtifactPartitionSchema.FromString(row.partition_schema),
        declared=bool(row.declared),
        versions=row.versions,
        latest_at=row.latest_at,
    )
