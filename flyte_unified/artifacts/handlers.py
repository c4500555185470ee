"""flyteidl2.artifact.ArtifactService (flyteidl2/artifact/artifact_service.proto)."""

from __future__ import annotations

from flyteidl2.artifact import artifact_pb2
from flyteidl2.artifact import artifact_service_pb2 as idl

from flyte_unified.artifacts.model import Artifact, Group, keys
from flyte_unified.artifacts.service import Artifacts
from flyte_unified.core.clock import timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.identity.api import Identities


class ArtifactsHandlers:
    """The org of a request is echoed and nothing more."""

    def __init__(self, *, artifacts: Artifacts, identities: Identities) -> None:
        self._artifacts = artifacts
        self._identities = identities

    async def create_artifact(self, message: idl.CreateArtifactRequest, ctx: CallContext) -> idl.CreateArtifactResponse:
        found = await self._artifacts.create(message, by=self._identities.of(ctx).subject)
        return idl.CreateArtifactResponse(artifact=self._message(found, message.artifact_id.name.org))

    async def get_artifact(self, message: idl.GetArtifactRequest, ctx: CallContext) -> idl.GetArtifactResponse:
        found = await self._artifacts.get(message.name, message.version)
        return idl.GetArtifactResponse(artifact=self._message(found, message.name.org))

    async def delete_artifact(self, message: idl.DeleteArtifactRequest, ctx: CallContext) -> idl.DeleteArtifactResponse:
        await self._artifacts.delete(message.artifact_id)
        return idl.DeleteArtifactResponse()

    async def list_artifacts(self, message: idl.ListArtifactsRequest, ctx: CallContext) -> idl.ListArtifactsResponse:
        found, token = await self._artifacts.page(message)
        org = message.project_id.organization
        return idl.ListArtifactsResponse(artifacts=[self._message(each, org) for each in found], token=token)

    async def list_artifact_names(
        self, message: idl.ListArtifactNamesRequest, ctx: CallContext
    ) -> idl.ListArtifactNamesResponse:
        found, token = await self._artifacts.names(message)
        org = message.project_id.organization
        return idl.ListArtifactNamesResponse(groups=[self._group(each, org) for each in found], token=token)

    async def list_artifact_metadata_keys(
        self, message: idl.ListArtifactMetadataKeysRequest, ctx: CallContext
    ) -> idl.ListArtifactMetadataKeysResponse:
        return idl.ListArtifactMetadataKeysResponse(keys=await self._artifacts.metadata_keys(message))

    async def declare_artifact(self, message: idl.DeclareArtifactRequest, ctx: CallContext) -> idl.DeclareArtifactResponse:
        return idl.DeclareArtifactResponse(partition_schema=await self._artifacts.declare(message))

    async def get_artifact_schema(
        self, message: idl.GetArtifactSchemaRequest, ctx: CallContext
    ) -> idl.GetArtifactSchemaResponse:
        found = await self._artifacts.schema(message.name)
        return idl.GetArtifactSchemaResponse(partition_schema=found.schema, declared=found.declared)

    async def list_partition_values(
        self, message: idl.ListPartitionValuesRequest, ctx: CallContext
    ) -> idl.ListPartitionValuesResponse:
        return idl.ListPartitionValuesResponse(values=await self._artifacts.partition_values(message))

    def _message(self, artifact: Artifact, org: str) -> artifact_pb2.Artifact:
        project, domain, name, version = artifact.key
        return artifact_pb2.Artifact(
            artifact_id=artifact_pb2.ArtifactIdentifier(
                name=artifact_pb2.ArtifactName(org=org, project=project, domain=domain, name=name), version=version
            ),
            spec=artifact.spec,
            created_at=timestamp(artifact.created_at),
            created_by=self._identities.enriched(artifact.created_by),
            partition_schema_mismatch=artifact.mismatch,
        )

    def _group(self, group: Group, org: str) -> idl.ArtifactGroup:
        schema = group.name.schema
        return idl.ArtifactGroup(
            latest=self._message(group.latest, org),
            versions=group.name.versions,
            partition_schema=schema if keys(schema) else None,
            latest_time_partition=timestamp(group.latest_time) if group.latest_time is not None else None,
        )
