"""What every vault promises, and what a cluster's adds: values as Secrets, found by pods."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from flyteidl2.common import list_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import FailedPrecondition, NotFound
from flyte_unified.core.filters import TEXT
from flyte_unified.core.paging import Listing, listing
from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import SECRETS, SECRETS_BY_NAME
from flyte_unified.plugins.pods.config import SecretRef, default_secret, secret_name
from flyte_unified.secrets.model import Sealed, Secret, SecretId, SecretKind, Vault
from flyte_unified.secrets.objects import ObjectVault
from flyte_unified.secrets.table import TableVault
from flyte_unified.testing.fake_kube import FakeKube
from tests.databases import sqlite

KEY = bytes(range(32))
WIDE, DOMAIN, OWN = SecretId("", "", "key"), SecretId("", "dev", "key"), SecretId("p", "dev", "key")


def sealed(key: SecretId, value: bytes = b"value", kind: SecretKind = SecretKind.GENERIC) -> Sealed:
    return Sealed(secret=Secret(id=key, kind=kind, created_at=Micros(1_700_000_000_000_000)), value=value)


def asked(limit: int = 100, token: str = "") -> Listing:
    return listing(list_pb2.ListRequest(limit=limit, token=token), lambda _: TEXT, default=[], key=SecretId._fields)


@asynccontextmanager
async def following(kube: Kube, template: str) -> AsyncIterator[ObjectVault]:
    vault = ObjectVault(kube, template=template)
    vault.start()
    await vault.followed()
    try:
        yield vault
    finally:
        await vault.stop()


@pytest.fixture
async def objects(kube: Kube, namespace: str) -> AsyncIterator[ObjectVault]:
    async with following(kube, namespace) as vault:
        yield vault


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[TableVault]:
    database = sqlite(tmp_path / "flyte.db")
    await database.start()
    yield TableVault(database=database, key=KEY)
    await database.stop()


@pytest.fixture(params=["table", "objects"])
def vault(request: pytest.FixtureRequest, table: TableVault, objects: ObjectVault) -> Iterator[Vault]:
    yield table if request.param == "table" else objects


async def test_an_id_is_taken_once(vault: Vault) -> None:
    """The same name in another scope is another secret."""
    assert await vault.add(sealed(OWN))
    assert not await vault.add(sealed(OWN))
    assert await vault.add(sealed(DOMAIN))
    assert await vault.add(sealed(SecretId("p", "dev", "-_Odd-name_")))


async def test_what_is_kept_is_told_but_for_the_value(vault: Vault) -> None:
    """Id, kind, time; None for what there is not."""
    assert await vault.get(OWN) is None
    await vault.add(sealed(OWN, kind=SecretKind.IMAGE_PULL))
    found = await vault.get(OWN)
    assert found is not None
    assert (found.id, found.kind) == (OWN, SecretKind.IMAGE_PULL)
    assert found.created_at > 0
    assert await vault.get(DOMAIN) is None


async def test_a_change_needs_a_secret(vault: Vault) -> None:
    """Of that very scope."""
    assert not await vault.change(sealed(OWN))
    await vault.add(sealed(OWN))
    assert await vault.change(sealed(OWN, b"other", SecretKind.IMAGE_PULL))
    changed = await vault.get(OWN)
    assert changed is not None
    assert changed.kind is SecretKind.IMAGE_PULL
    assert not await vault.change(sealed(DOMAIN))


async def test_what_is_removed_is_gone(vault: Vault) -> None:
    """Once, at once, from lists too."""
    await vault.add(sealed(OWN))
    assert await vault.remove(OWN)
    assert not await vault.remove(OWN)
    assert await vault.get(OWN) is None
    assert await vault.page(asked(), project="", domain="") == ([], "")


async def test_a_list_has_what_is_within_a_scope(vault: Vault) -> None:
    """In the order of ids, a page after the other; what was just created is in it."""
    ids = [WIDE, DOMAIN, SecretId("", "prod", "key"), SecretId("other", "dev", "key"), OWN]
    for key in reversed(ids):
        await vault.add(sealed(key))
    seen, token = [], ""
    for _ in range(3):
        page, token = await vault.page(asked(2, token), project="", domain="")
        seen += [secret.id for secret in page]
    assert (seen, token) == (ids, "")
    within, _ = await vault.page(asked(), project="", domain="dev")
    assert [secret.id for secret in within] == [DOMAIN, SecretId("other", "dev", "key"), OWN]
    own, _ = await vault.page(asked(), project="p", domain="dev")
    assert [secret.id for secret in own] == [OWN]


async def test_the_most_specific_is_revealed(vault: TableVault | ObjectVault) -> None:
    """To a task of a project and domain, or to its connector; NotFound where no scope has it."""
    with pytest.raises(NotFound, match=r"no secret 'key' for project 'p', domain 'dev'.*flyte create secret key"):
        await vault.reveal("p", "dev", "key")
    for key, value in ((WIDE, b"wide"), (DOMAIN, b"domain"), (OWN, b"\x00own")):
        await vault.add(sealed(key, value))
        assert await vault.reveal("p", "dev", "key") == value
    assert await vault.reveal("p", "prod", "key") == b"wide"
    assert await vault.reveal("q", "dev", "key") == b"domain"


async def test_a_pods_secret_is_the_most_specific_there_is(objects: ObjectVault) -> None:
    """A group's object is for what no scope has, as is the name that kubectl may have given."""
    assert objects.lookup("p", "dev", "", "key") == default_secret("p", "dev", "", "key")
    assert objects.lookup("p", "dev", "group", "key") == SecretRef("group", "key")
    for key in (WIDE, DOMAIN, OWN):
        await objects.add(sealed(key))
        assert objects.lookup("p", "dev", "", "key") == SecretRef(secret_name(*key), "value")
    assert objects.lookup("p", "dev", "group", "key") == SecretRef(secret_name(*OWN), "value")
    await objects.remove(OWN)
    assert objects.lookup("p", "dev", "", "key") == SecretRef(secret_name(*DOMAIN), "value")


async def test_pods_find_the_value(objects: ObjectVault, kube: Kube, namespace: str) -> None:
    """As it came, in the entry that they refer to, in an object that says whose it is."""
    await objects.add(sealed(OWN, b"\x00\xff"))
    await objects.change(sealed(OWN, b"\x00\xfe"))
    obj = await kube.get(SECRETS, secret_name(*OWN), namespace=namespace)
    assert base64.b64decode(obj["data"]["value"]) == b"\x00\xfe"
    assert obj["metadata"]["labels"]["flyte.org/secret-project"] == "p"


async def test_other_replicas_know_it(kube: Kube, namespace: str, objects: ObjectVault) -> None:
    """From their start on, whoever created it."""
    await objects.add(sealed(OWN))
    async with following(kube, namespace) as other:
        assert other.lookup("p", "dev", "", "key") == SecretRef(secret_name(*OWN), "value")


async def test_values_are_not_asked_for_with_names(kube: Kube, namespace: str) -> None:
    """A list, a watch, a read and the answer to a write hold metadata alone."""
    made = await kube.create(SECRETS, {"metadata": {"name": "a"}, "data": {"value": "dg=="}}, namespace=namespace)
    read = await kube.get(SECRETS_BY_NAME, "a", namespace=namespace)
    patched = await kube.patch(SECRETS_BY_NAME, "a", {"data": {"value": "dw=="}}, namespace=namespace)
    pages = [item async for items, _ in kube.pages(SECRETS_BY_NAME, namespace=namespace) for item in items]
    version = made["metadata"]["resourceVersion"]
    events = kube.watch(SECRETS_BY_NAME, namespace=namespace, resource_version=version)
    seen = [(await anext(events))[1], (await anext(events))[1]]
    await events.aclose()
    assert "data" in made
    assert not [obj for obj in (read, patched, *pages, *seen) if "data" in obj or "stringData" in obj]


async def test_a_wider_scope_needs_a_namespace_of_all(kube: Kube) -> None:
    """Where pods of a project are by themselves, a secret of all has no place that they could refer to."""
    async with following(kube, "{project}-{domain}") as vault:
        for key in (WIDE, DOMAIN):
            with pytest.raises(FailedPrecondition, match="namespaces of their own"):
                await vault.add(sealed(key))
        assert vault.lookup("p", "dev", "", "key") == default_secret("p", "dev", "", "key")


async def test_without_rights_secrets_are_kubectls(fake: FakeKube, kube: Kube, namespace: str) -> None:
    """The server starts; calls are told which manifest gives the rights, and pods refer to their projects' own."""
    fake.faults.fail(403, 100, lambda asked: asked.resource == "secrets")
    async with following(kube, namespace) as vault:
        with pytest.raises(FailedPrecondition, match="config/kubernetes/secrets"):
            await vault.add(sealed(OWN))
        with pytest.raises(FailedPrecondition, match="config/kubernetes/secrets"):
            await vault.page(asked(), project="", domain="")
        with pytest.raises(FailedPrecondition, match="give the secret to the connector itself"):
            await vault.reveal("p", "dev", "key")
        assert vault.lookup("p", "dev", "", "key") == default_secret("p", "dev", "", "key")
