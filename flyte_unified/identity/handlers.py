"""flyteidl2.auth.IdentityService and AuthMetadataService (flyteidl2/auth/*.proto).

A client asks for the metadata of the sign-in only after it was refused, and then it shows the error of that call instead of the
first one. So the answer where there is no sign-in is an error that says what to change: empty metadata would open a browser at
no address.
"""

from __future__ import annotations

from flyteidl2.auth import auth_service_pb2, identity_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import Unimplemented
from flyte_unified.identity.service import Identities

_NO_SIGN_IN = "this server has no sign-in: take authType and client settings out of the client's configuration"


class IdentityHandlers:
    """flyteidl2.auth.IdentityService."""

    def __init__(self, *, identities: Identities) -> None:
        self._identities = identities

    async def user_info(self, message: identity_pb2.UserInfoRequest, ctx: CallContext) -> identity_pb2.UserInfoResponse:
        person = self._identities.of(ctx)
        return identity_pb2.UserInfoResponse(
            subject=person.subject, name=person.name, preferred_username=person.subject, email=person.email
        )


class AuthMetadataHandlers:
    """flyteidl2.auth.AuthMetadataService."""

    async def get_o_auth2_metadata(
        self, message: auth_service_pb2.GetOAuth2MetadataRequest, ctx: CallContext
    ) -> auth_service_pb2.GetOAuth2MetadataResponse:
        raise Unimplemented(_NO_SIGN_IN)

    async def get_public_client_config(
        self, message: auth_service_pb2.GetPublicClientConfigRequest, ctx: CallContext
    ) -> auth_service_pb2.GetPublicClientConfigResponse:
        raise Unimplemented(_NO_SIGN_IN)
