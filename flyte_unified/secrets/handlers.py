"""flyteidl2.secret.SecretService (flyteidl2/secret/secret.proto). There are no secrets of the system's own to hide."""

from __future__ import annotations

from flyteidl2.common import identifier_pb2
from flyteidl2.secret import definition_pb2, payload_pb2

from flyte_unified.core.clock import timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.secrets.model import Secret
from flyte_unified.secrets.service import Secrets

_CLUSTER = "flyte-unified"
"""There is one, and a secret is in it."""


class SecretsHandlers:
    """No answer holds a value."""

    def __init__(self, *, secrets: Secrets) -> None:
        self._secrets = secrets

    async def create_secret(
        self, message: payload_pb2.CreateSecretRequest, ctx: CallContext
    ) -> payload_pb2.CreateSecretResponse:
        await self._secrets.create(message.id, message.secret_spec)
        return payload_pb2.CreateSecretResponse()

    async def update_secret(
        self, message: payload_pb2.UpdateSecretRequest, ctx: CallContext
    ) -> payload_pb2.UpdateSecretResponse:
        await self._secrets.update(message.id, message.secret_spec)
        return payload_pb2.UpdateSecretResponse()

    async def get_secret(self, message: payload_pb2.GetSecretRequest, ctx: CallContext) -> payload_pb2.GetSecretResponse:
        found = await self._secrets.get(message.id)
        return payload_pb2.GetSecretResponse(secret=_message(found, message.id.organization))

    async def delete_secret(
        self, message: payload_pb2.DeleteSecretRequest, ctx: CallContext
    ) -> payload_pb2.DeleteSecretResponse:
        await self._secrets.delete(message.id)
        return payload_pb2.DeleteSecretResponse()

    async def list_secrets(self, message: payload_pb2.ListSecretsRequest, ctx: CallContext) -> payload_pb2.ListSecretsResponse:
        found, token = await self._secrets.page(
            project=message.project, domain=message.domain, limit=message.limit, token=message.token
        )
        return payload_pb2.ListSecretsResponse(
            secrets=[_message(secret, message.organization) for secret in found], token=token
        )


def _message(secret: Secret, org: str) -> definition_pb2.Secret:
    cluster = definition_pb2.ClusterSecretStatus(
        cluster=identifier_pb2.ClusterIdentifier(organization=org, name=_CLUSTER),
        presence_status=definition_pb2.SecretPresenceStatus.PRESENT,
    )
    return definition_pb2.Secret(
        id=definition_pb2.SecretIdentifier(
            name=secret.id.name, organization=org, domain=secret.id.domain, project=secret.id.project
        ),
        secret_metadata=definition_pb2.SecretMetadata(
            created_time=timestamp(secret.created_at),
            secret_status=definition_pb2.SecretStatus(
                overall_status=definition_pb2.OverallStatus.FULLY_PRESENT, cluster_status=[cluster]
            ),
            type=definition_pb2.SecretType.ValueType(secret.kind),
        ),
    )
