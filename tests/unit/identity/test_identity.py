"""Who a caller is, where nobody signs in."""

from __future__ import annotations

import getpass

import pytest
from flyteidl2.auth import auth_service_pb2, identity_pb2

from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.errors import Unimplemented
from flyte_unified.identity.api import Identities
from flyte_unified.identity.handlers import AuthMetadataHandlers, IdentityHandlers

CTX = CallContext(procedure="/test")


async def _user_info(identities: Identities, ctx: CallContext = CTX) -> identity_pb2.UserInfoResponse:
    return await IdentityHandlers(identities=identities).user_info(identity_pb2.UserInfoRequest(), ctx)


async def test_a_caller_without_a_name_is_the_servers_owner() -> None:
    """The subject is the login name, never empty: the CLI lists one's own runs by it."""
    info = await _user_info(Identities())
    assert info.subject == info.name == info.preferred_username == getpass.getuser()


async def test_the_settings_say_how_the_owner_is_shown() -> None:
    """Name and address are for people; the subject, which runs are kept under, does not change with them."""
    info = await _user_info(Identities(name="Ada Lovelace", email="ada@example.org"))
    assert (info.subject, info.name, info.email) == (getpass.getuser(), "Ada Lovelace", "ada@example.org")


async def test_a_caller_with_a_subject_is_that_one() -> None:
    """Nobody is shown under the owner's name but the owner."""
    ctx = CallContext(procedure="/test", identity=Identity(subject="grace"))
    info = await _user_info(Identities(name="Ada Lovelace", email="ada@example.org"), ctx)
    assert (info.subject, info.name, info.email) == ("grace", "grace", "")


async def test_a_user_without_a_name_still_has_a_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under a number that no file knows."""

    def nobody() -> str:
        raise OSError("no such uid")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert (await _user_info(Identities())).subject.startswith("uid-")


def test_replies_show_who_did_something() -> None:
    """A stored subject becomes the user that consoles show."""
    identities = Identities(name="Ada", email="ada@example.org")
    owner = identities.enriched(getpass.getuser()).user
    assert (owner.id.subject, owner.spec.first_name, owner.spec.email) == (getpass.getuser(), "Ada", "ada@example.org")
    assert identities.enriched("grace").user.id.subject == "grace"


async def test_there_is_no_sign_in_to_be_led_to() -> None:
    """A client set up for a sign-in is told to leave it, instead of being sent to an empty address."""
    handlers = AuthMetadataHandlers()
    with pytest.raises(Unimplemented, match="authType"):
        await handlers.get_o_auth2_metadata(auth_service_pb2.GetOAuth2MetadataRequest(), CTX)
    with pytest.raises(Unimplemented, match="authType"):
        await handlers.get_public_client_config(auth_service_pb2.GetPublicClientConfigRequest(), CTX)
