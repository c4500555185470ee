"""The service through its handlers: names, scopes, pages, and what is sealed how. Vaults have their own contract."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.secret import definition_pb2, payload_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.db.api import Database
from flyte_unified.secrets.cipher import Cipher
from flyte_unified.secrets.handlers import SecretsHandlers
from flyte_unified.secrets.model import SecretId
from flyte_unified.secrets.service import MAX_BYTES, Secrets
from flyte_unified.secrets.table import TableVault
from tests.unit.manual_clock import ManualClock

CTX = CallContext(procedure="/test")
KEY = bytes(range(32))


async def _require_domain(domain: str, field: str) -> None:
    if domain not in ("dev", "prod"):
        raise NotFound(f"{field}: there is no domain {domain!r}")


async def _require(project: str, domain: str) -> None:
    if project != "p":
        raise NotFound(f"there is no project {project!r}")


@pytest.fixture
def vault(database: Database) -> TableVault:
    return TableVault(database=database, key=KEY)


@pytest.fixture
def handlers(vault: TableVault, clock: ManualClock) -> SecretsHandlers:
    return SecretsHandlers(secrets=Secrets(vault=vault, clock=clock, require_domain=_require_domain, require_project=_require))


def _id(name: str = "key", **scope: str) -> definition_pb2.SecretIdentifier:
    return definition_pb2.SecretIdentifier(name=name, **scope)


async def _create(handlers: SecretsHandlers, key: definition_pb2.SecretIdentifier, **spec: Any) -> None:
    spec = spec or {"string_value": "value"}
    message = payload_pb2.CreateSecretRequest(id=key, secret_spec=definition_pb2.SecretSpec(**spec))
    await handlers.create_secret(message, CTX)


async def test_a_secret_is_shown_without_its_value(handlers: SecretsHandlers) -> None:
    """Its id with the caller's organization, its type, when it was created, and that it is there."""
    await _create(handlers, _id(organization="acme"), binary_value=b"\xff", type=definition_pb2.SECRET_TYPE_IMAGE_PULL_SECRET)
    found = (await handlers.get_secret(payload_pb2.GetSecretRequest(id=_id(organization="other")), CTX)).secret
    assert found.id == _id(organization="other")
    assert found.secret_metadata.type == definition_pb2.SECRET_TYPE_IMAGE_PULL_SECRET
    assert found.secret_metadata.created_time.seconds > 0
    assert found.secret_metadata.secret_status.overall_status == definition_pb2.OverallStatus.FULLY_PRESENT


@pytest.mark.parametrize(
    ("key", "spec", "field"),
    [
        (_id(""), {}, "id.name is empty"),
        (_id("a.b"), {}, "id.name"),
        (_id("a/b"), {}, "id.name"),
        (_id("x" * 256), {}, "id.name"),
        (_id(project="p"), {}, "id.domain is empty"),
        (_id(project="../p", domain="dev"), {}, "id.project"),
        (_id(), {"type": 0}, "secret_spec.value"),
        (_id(), {"string_value": "x", "type": 7}, "secret_spec.type"),
        (_id(), {"binary_value": b"x" * (MAX_BYTES + 1)}, "secret_spec.binary_value has 1048577 bytes"),
    ],
)
async def test_what_is_wrong_is_named(
    handlers: SecretsHandlers, key: definition_pb2.SecretIdentifier, spec: dict[str, Any], field: str
) -> None:
    """InvalidArgument with the field; the value is in no message."""
    with pytest.raises(InvalidArgument, match=field):
        await _create(handlers, key, **spec)


async def test_a_scope_must_exist(handlers: SecretsHandlers) -> None:
    """An unknown project or domain would be a secret that no task finds."""
    with pytest.raises(NotFound, match="project 'q'"):
        await _create(handlers, _id(project="q", domain="dev"))
    with pytest.raises(NotFound, match=r"id\.domain: there is no domain 'nowhere'"):
        await _create(handlers, _id(domain="nowhere"))


async def test_what_is_refused_names_the_command(handlers: SecretsHandlers) -> None:
    """A name that is taken, whatever the value; one that is not there."""
    key = _id(project="p", domain="dev")
    missing = r"no secret 'key' of project 'p', domain 'dev'; `flyte create secret key --project p --domain dev`"
    update = payload_pb2.UpdateSecretRequest(id=key, secret_spec=definition_pb2.SecretSpec(string_value="x"))
    for call in (
        handlers.get_secret(payload_pb2.GetSecretRequest(id=key), CTX),
        handlers.update_secret(update, CTX),
        handlers.delete_secret(payload_pb2.DeleteSecretRequest(id=key), CTX),
    ):
        with pytest.raises(NotFound, match=missing):
            await call
    await _create(handlers, key)
    with pytest.raises(AlreadyExists, match=r"`flyte delete secret key --project p --domain dev`"):
        await _create(handlers, key)


async def test_pages(handlers: SecretsHandlers) -> None:
    """A token leads on within its scope alone; a limit beyond reason is cut, none is fifty."""
    for number in range(5):
        await _create(handlers, _id(f"key{number}", domain="dev"))
    first = await handlers.list_secrets(payload_pb2.ListSecretsRequest(domain="dev", limit=3), CTX)
    assert [secret.id.name for secret in first.secrets] == ["key0", "key1", "key2"]
    rest = await handlers.list_secrets(payload_pb2.ListSecretsRequest(domain="dev", limit=2_000_000, token=first.token), CTX)
    assert [secret.id.name for secret in rest.secrets] == ["key3", "key4"]
    assert rest.token == ""
    with pytest.raises(InvalidArgument, match="token"):
        await handlers.list_secrets(payload_pb2.ListSecretsRequest(token=first.token), CTX)
    with pytest.raises(InvalidArgument, match="domain is empty"):
        await handlers.list_secrets(payload_pb2.ListSecretsRequest(project="p"), CTX)


@pytest.mark.only_sqlite
async def test_a_stored_value_is_sealed(handlers: SecretsHandlers, vault: TableVault, tmp_path: Path) -> None:
    """What lies on the disk does not hold it, and is not the same twice."""
    value = secrets.token_hex(16)
    await _create(handlers, _id("one"), string_value=value)
    await _create(handlers, _id("two"), string_value=value)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"one" in stored
    assert value.encode() not in stored
    assert await vault.reveal("p", "dev", "one") == value.encode()


async def test_another_key_opens_nothing(handlers: SecretsHandlers, database: Database) -> None:
    """The message says what to do."""
    await _create(handlers, _id())
    with pytest.raises(FailedPrecondition, match="delete the secret and create it again"):
        await TableVault(database=database, key=bytes(32)).reveal("p", "dev", "key")


def test_a_value_belongs_to_its_secret() -> None:
    """A row's value put in another's place, or altered, is no value."""
    cipher = Cipher(KEY)
    one = SecretId("p", "dev", "one")
    sealed = cipher.seal(one, b"value")
    assert cipher.open(one, sealed) == b"value"
    assert cipher.seal(one, b"value") != sealed
    for key, content in ((one._replace(name="two"), sealed), (one, sealed[:-1] + bytes([sealed[-1] ^ 1])), (one, b"")):
        with pytest.raises(FailedPrecondition):
            cipher.open(key, content)
