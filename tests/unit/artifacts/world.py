"""What the tests of artifacts stand on, and their messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flyteidl2.artifact import artifact_pb2
from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.core import artifact_id_pb2, literals_pb2, types_pb2
from google.protobuf.message import Message

from flyte_unified.artifacts.handlers import ArtifactsHandlers
from flyte_unified.artifacts.service import Artifacts
from flyte_unified.core.clock import Clock
from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.errors import NotFound
from flyte_unified.db.api import Database
from flyte_unified.identity.api import Identities
from flyte_unified.triggers.api import Triggers

R = TypeVar("R", bound=Message)

PROJECT, DOMAIN = "p", "development"
IN_PROJECT = identifier_pb2.ProjectIdentifier(organization="acme", name=PROJECT, domain=DOMAIN)
CTX = CallContext(procedure="/test", identity=Identity(subject="grace"))
DAY = 86_400
MONDAY = 1_789_344_000
"""Seconds: 2026-09-14T00:00:00Z"""
BLOB = types_pb2.LiteralType(blob=types_pb2.BlobType(format="csv"))


def named(name: str = "events") -> artifact_pb2.ArtifactName:
    return artifact_pb2.ArtifactName(org="acme", project=PROJECT, domain=DOMAIN, name=name)


def identifier(version: str, name: str = "events") -> artifact_pb2.ArtifactIdentifier:
    return artifact_pb2.ArtifactIdentifier(name=named(name), version=version)


def file(uri: str = "/data/file", *, hashed: str = "") -> literals_pb2.Literal:
    blob = literals_pb2.Blob(uri=uri, metadata=literals_pb2.BlobMetadata(type=BLOB.blob))
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=blob), hash=hashed)


def partitions(**values: str) -> artifact_id_pb2.Partitions:
    return artifact_id_pb2.Partitions(
        value={key: artifact_id_pb2.LabelValue(static_value=value) for key, value in values.items()}
    )


def at(seconds: int, granularity: int = artifact_id_pb2.DAY, *, key: str = "") -> artifact_id_pb2.TimePartition:
    time = artifact_id_pb2.TimePartition(value=artifact_id_pb2.LabelValue(time_value={"seconds": seconds}), key=key)
    time.granularity = granularity  # type: ignore[assignment]  # an int on the wire
    return time


def made_by(run: str, action: str = "a0", attempt: int = 0) -> artifact_pb2.ArtifactSource:
    of = identifier_pb2.RunIdentifier(project=PROJECT, domain=DOMAIN, name=run)
    identity = identifier_pb2.ActionIdentifier(run=of, name=action)
    return artifact_pb2.ArtifactSource(task_action=artifact_pb2.TaskActionSource(action=identity, attempt=attempt))


def spec(value: literals_pb2.Literal | None = None, **fields: Any) -> artifact_pb2.ArtifactSpec:
    return artifact_pb2.ArtifactSpec(value=value or file(), type=BLOB, **fields)


def where(field: str, *values: str, function: str = "EQUAL") -> list_pb2.Filter:
    return list_pb2.Filter(field=field, function=list_pb2.Filter.Function.Value(function), values=values)


@dataclass
class World:
    artifacts: Artifacts
    handlers: ArtifactsHandlers
    triggers: Triggers
    database: Database

    async def create(
        self, version: str, name: str = "events", *, value: literals_pb2.Literal | None = None, **fields: Any
    ) -> artifact_pb2.Artifact:
        message = idl.CreateArtifactRequest(artifact_id=identifier(version, name), spec=spec(value, **fields))
        return (await self.handlers.create_artifact(message, CTX)).artifact

    async def get(self, name: str = "events", version: str | None = None) -> artifact_pb2.Artifact:
        return (await self.handlers.get_artifact(idl.GetArtifactRequest(name=named(name), version=version), CTX)).artifact

    async def listed(self, *filters: list_pb2.Filter, limit: int = 100, sort: str = "", **fields: Any) -> list[str]:
        """Versions, over all pages."""
        request = list_pb2.ListRequest(filters=filters, limit=limit)
        if sort:
            request.sort_by_fields.add(key=sort.lstrip("-"), direction=int(not sort.startswith("-")))
        message = idl.ListArtifactsRequest(request=request, project_id=IN_PROJECT, **fields)
        pages = await every_page(message, self.handlers.list_artifacts)
        return [each.artifact_id.version for page in pages for each in page.artifacts]

    async def groups(self, *filters: list_pb2.Filter, limit: int = 100) -> list[idl.ArtifactGroup]:
        request = list_pb2.ListRequest(filters=filters, limit=limit)
        message = idl.ListArtifactNamesRequest(request=request, project_id=IN_PROJECT)
        return [each for page in await every_page(message, self.handlers.list_artifact_names) for each in page.groups]

    async def values(self, key: str, *filters: list_pb2.Filter, limit: int = 0, name: str = "events") -> list[str]:
        message = idl.ListPartitionValuesRequest(
            request=list_pb2.ListRequest(filters=filters, limit=limit), project_id=IN_PROJECT, name=name, key=key
        )
        return list((await self.handlers.list_partition_values(message, CTX)).values)

    async def declare(self, *keys: str, time: str = "", name: str = "events") -> artifact_pb2.ArtifactPartitionSchema:
        schema = artifact_pb2.ArtifactPartitionSchema(partition_keys=keys)
        if time:
            schema.time_partition.key = time
        message = idl.DeclareArtifactRequest(name=named(name), partition_schema=schema)
        return (await self.handlers.declare_artifact(message, CTX)).partition_schema

    async def schema(self, name: str = "events") -> idl.GetArtifactSchemaResponse:
        return await self.handlers.get_artifact_schema(idl.GetArtifactSchemaRequest(name=named(name)), CTX)

    async def delete(self, version: str, name: str = "events") -> None:
        await self.handlers.delete_artifact(idl.DeleteArtifactRequest(artifact_id=identifier(version, name)), CTX)


async def every_page(message: Any, call: Callable[[Any, CallContext], Awaitable[R]]) -> list[R]:
    pages: list[R] = []
    while True:
        pages.append(await call(message, CTX))
        if not (token := pages[-1].token):  # type: ignore[attr-defined]  # every page has one
            return pages
        message.request.token = token


async def _require(project: str, domain: str) -> None:
    if (project, domain) != (PROJECT, DOMAIN):
        raise NotFound(f"project_id: there is no {project}/{domain}")


def world_on(database: Database, clock: Clock) -> World:
    triggers = Triggers(database=database, clock=clock)
    artifacts = Artifacts(database=database, triggers=triggers, clock=clock, require_project=_require)
    return World(artifacts, ArtifactsHandlers(artifacts=artifacts, identities=Identities()), triggers, database)
