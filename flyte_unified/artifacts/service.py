"""Artifacts: values that outlive the run that made them, by name and version.

A version never changes. To create it again as it is changes nothing, and is no error, so a call may be repeated and a task
tried again. The first version of a name, or a declaration before it, fixes its partition keys. What waits for a new version is
noted in the transaction that stores it: whatever dies after the commit, it is fired.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from flyteidl2.artifact import artifact_pb2
from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.common import identifier_pb2

from flyte_unified.artifacts import requests, store
from flyte_unified.artifacts.model import (
    LATEST,
    Artifact,
    ArtifactKey,
    Group,
    Name,
    NameKey,
    Wanted,
    differences,
    keys,
    mismatch,
)
from flyte_unified.artifacts.store import Added
from flyte_unified.core.clock import Clock, Micros, timestamp
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.core.filters import conditions
from flyte_unified.core.ids import scope_part
from flyte_unified.core.paging import Order, listing
from flyte_unified.db.api import Database, Notice, Work
from flyte_unified.triggers.api import Appeared, Triggers

_MAX_LIMIT = 1000
_NEWEST_FIRST = (Order("created_at", descending=True),)


class Artifacts:
    """One for a server. ``require_project`` raises NotFound for a project or domain that does not exist."""

    def __init__(
        self,
        *,
        database: Database,
        triggers: Triggers,
        clock: Clock,
        require_project: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._database = database
        self._triggers = triggers
        self._clock = clock
        self._require_project = require_project

    async def create(self, message: idl.CreateArtifactRequest, *, by: str) -> Artifact:
        """The version, which may have been there.

        Raises AlreadyExists where it has another content; FailedPrecondition where its name has other partition keys; NotFound
        for the project; InvalidArgument naming the field.
        """
        org = message.artifact_id.name.org
        wanted = requests.wanted(requests.artifact_key(message.artifact_id), message.spec, org=org, by=by)
        await self._require_project(wanted.key.project, wanted.key.domain)
        now = self._clock.now()
        added, _ = await self._database.write(
            lambda: self.added([wanted], now=now, strict=True),
            then=lambda done: self.committed(done[1]),
            changed=lambda done: done[1],
        )
        found = added[0].artifact
        if not added[0].new and (different := differences(found.spec, wanted.spec)):
            raise AlreadyExists(f"artifact_id.version: artifact {wanted.key} exists, with another {' and '.join(different)}")
        return found

    def added(self, wanted: Sequence[Wanted], *, now: Micros, strict: bool) -> Work[tuple[list[Added], list[Notice]]]:
        """The work that stores ``wanted``; its second result is for ``committed``, and for other replicas.

        Raises FailedPrecondition, if ``strict``.
        """
        done, notices = [], []
        for each in wanted:
            added = yield from store.add(each, now=now, strict=strict)
            done.append(added)
            if added.new:
                appeared = Appeared(**each.key._asdict(), partitions=each.partitions, at=added.artifact.created_at)
                notices += self._triggers.notices((yield from self._triggers.appeared(appeared)))
        return done, notices

    def committed(self, notices: Sequence[Notice]) -> None:
        """After the commit of ``added``."""
        for notice in notices:
            self._triggers.noticed(notice)

    async def get(self, name: artifact_pb2.ArtifactName, version: str) -> Artifact:
        """The newest where no version is said. Raises NotFound; InvalidArgument naming the field."""
        key = requests.name_key(name, field="name")
        if version in ("", LATEST):
            found = await self._database.read(lambda: store.newest(key))
            missing = f"name: there is no artifact {key}"
        else:
            wanted = key.version(requests.version_part(version, field="version"))
            found = await self._database.read(lambda: store.get(wanted))
            missing = f"version: there is no artifact {wanted}"
        if found is None:
            raise NotFound(missing)
        return found

    async def find(self, project: str, domain: str, name: str, version: str) -> artifact_pb2.ArtifactSpec | None:
        """What is stored as that version; None for nothing."""
        found = await self.known(ArtifactKey(project, domain, name, version))
        return found.spec if found is not None else None

    async def known(self, key: ArtifactKey) -> Artifact | None:
        return await self._database.read(lambda: store.get(key))

    async def delete(self, message: artifact_pb2.ArtifactIdentifier) -> None:
        """Nothing is done to the data that it names. Raises NotFound; InvalidArgument naming the field."""
        key = requests.artifact_key(message)
        if not await self._database.write(lambda: store.remove(key)):
            raise NotFound(f"artifact_id: there is no artifact {key}")

    async def page(self, message: idl.ListArtifactsRequest) -> tuple[list[Artifact], str]:
        """One page, the newest first if nothing else is asked, and the token of the next. Raises InvalidArgument."""
        place = _place(message.project_id)
        name = requests.name_part(message.name, field="name") if message.name else ""
        if message.latest_per_partition and not name:
            raise InvalidArgument("latest_per_partition: only the partitions of one artifact can be told apart; set name")
        asked = listing(
            message.request,
            store.KIND,
            default=_NEWEST_FIRST,
            key=("name", "version"),
            scope=(*place, name, message.latest_per_partition),
            max_limit=_MAX_LIMIT,
        )
        scope = store.of(NameKey(*place, name))
        if message.latest_per_partition:
            scope.append(store.newest_of_partition())
        return await self._database.read(lambda: store.page(scope, asked))

    async def names(self, message: idl.ListArtifactNamesRequest) -> tuple[list[Group], str]:
        """One page of names, that of the newest version first if nothing else is asked. Raises InvalidArgument."""
        place = _place(message.project_id)
        asked = listing(
            message.request, store.NAME_KIND, default=_NEWEST_FIRST, key=("name",), scope=place, max_limit=_MAX_LIMIT
        )
        return await self._database.read(lambda: store.names(*place, asked))

    async def metadata_keys(self, message: idl.ListArtifactMetadataKeysRequest) -> list[str]:
        """Keys of user metadata, sorted; those of the newest versions only. Raises InvalidArgument."""
        name = requests.name_part(message.name, field="name") if message.name else ""
        scope = store.of(NameKey(*_place(message.project_id), name))
        return await self._database.read(lambda: store.metadata_keys(scope))

    async def declare(self, message: idl.DeclareArtifactRequest) -> artifact_pb2.ArtifactPartitionSchema:
        """Fixes a name's partition keys.

        Raises FailedPrecondition where it has others; NotFound for the project; InvalidArgument naming the field.
        """
        key = requests.name_key(message.name, field="name")
        schema = requests.schema(message.partition_schema)
        await self._require_project(key.project, key.domain)
        known = await self._database.write(lambda: store.declare(key, schema))
        if (wrong := mismatch(known.schema, schema)) is not None:
            raise FailedPrecondition(f"partition_schema: {wrong.message}")
        return known.schema

    async def schema(self, message: artifact_pb2.ArtifactName) -> Name:
        """What is known of a name. Raises NotFound; InvalidArgument naming the field."""
        return await self._named(requests.name_key(message, field="name"))

    async def partition_values(self, message: idl.ListPartitionValuesRequest) -> list[str]:
        """The values of one partition key, sorted; times as in RFC 3339. Raises NotFound; InvalidArgument naming the field."""
        key = NameKey(*_place(message.project_id), requests.name_part(message.name, field="name"))
        wanted = conditions(message.request.filters, store.KIND)
        if message.request.limit > _MAX_LIMIT:
            raise InvalidArgument(f"request.limit is {message.request.limit}; at most {_MAX_LIMIT} are allowed")
        schema = (await self._named(key)).schema
        if message.key not in keys(schema):
            told = ", ".join(keys(schema)) or "none"
            raise InvalidArgument(f"key: artifact {key} has no partition key {message.key[:64]!r}; it has {told}")
        timed = message.key == schema.time_partition.key
        partition = "" if timed else message.key
        limit = message.request.limit or _MAX_LIMIT
        found = await self._database.read(lambda: store.partition_values(key, partition, wanted, limit))
        return [timestamp(value).ToJsonString() for value in found] if timed else found

    async def _named(self, key: NameKey) -> Name:
        found = await self._database.read(lambda: store.name(key))
        if found is None:
            raise NotFound(f"name: there is no artifact {key}, and none is declared")
        return found


def _place(message: identifier_pb2.ProjectIdentifier) -> tuple[str, str]:
    return scope_part(message.name, field="project_id.name"), scope_part(message.domain, field="project_id.domain")
