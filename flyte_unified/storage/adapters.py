"""The store that the settings ask for: a directory, or a bucket by the scheme of its address."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flyte_unified import settings
from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.core.http import Route
from flyte_unified.settings import SettingsError
from flyte_unified.storage.api import DataStore
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.routes import data_routes
from flyte_unified.storage.signing import Signer

DATA, BUNDLES = "data", "bundles"
"""The roots of the server's store"""

_SCHEMES = frozenset({"", "s3", "gs", "abfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A store and what comes with it: routes for URLs that it serves itself, and what tasks need to reach it."""

    store: DataStore
    routes: Sequence[Route] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def choose(storage: settings.Storage, *, key: bytes, clock: Clock) -> Chosen:
    """``key`` signs the URLs of a local store. Raises SettingsError, and FailedPrecondition where a library is missing."""
    _check(storage)
    scheme = settings.scheme(storage.root)
    if not scheme:
        return _local(storage, key=key, clock=clock)
    try:
        return _s3(storage, clock=clock) if scheme == "s3" else _others(storage, clock=clock)
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"storage.root = {storage.root!r} needs {error.name}: pip install 'flyte-unified[cluster]'"
        ) from error


def _check(storage: settings.Storage) -> None:
    kinds = [settings.scheme(address) for address in (storage.root, storage.bundles)]
    if kinds[0] not in _SCHEMES:
        raise SettingsError(f"storage.root = {storage.root!r}: a directory is expected, or one of s3://, gs://, abfs://")
    if kinds[0] != kinds[1]:
        raise SettingsError(f"storage.bundles = {storage.bundles!r} is in another store than storage.root = {storage.root!r}")
    for key, url in (("s3_endpoint", storage.s3_endpoint), ("s3_public_endpoint", storage.s3_public_endpoint)):
        if url and settings.scheme(url) not in ("http", "https"):
            raise SettingsError(f"storage.{key} = {url!r}: a URL is expected, http://host:port or https://host")
    if bool(storage.s3_access_key) != bool(storage.s3_secret_key):
        raise SettingsError("storage.s3_access_key and storage.s3_secret_key belong together: one of them is empty")


def _local(storage: settings.Storage, *, key: bytes, clock: Clock) -> Chosen:
    roots = {DATA: Path(storage.root), BUNDLES: Path(storage.bundles)}
    store = LocalStore(roots, signer=Signer(key), clock=clock, min_free_bytes=storage.min_free_bytes)
    return Chosen(store=store, routes=data_routes(store))


def _s3(storage: settings.Storage, *, clock: Clock) -> Chosen:
    from flyte_unified.storage.s3 import Access, S3Store  # a laptop has no use for it

    access = Access(
        endpoint=storage.s3_endpoint,
        public_endpoint=storage.s3_public_endpoint,
        region=storage.s3_region,
        access_key=storage.s3_access_key,
        secret_key=storage.s3_secret_key,
        virtual_host=storage.s3_virtual_host,
    )
    # The names that the SDK in a task reads. Where no keys are set it finds the same ones as we do.
    environment = {
        "FLYTE_AWS_ENDPOINT": storage.s3_endpoint,
        "FLYTE_AWS_ACCESS_KEY_ID": storage.s3_access_key,
        "FLYTE_AWS_SECRET_ACCESS_KEY": storage.s3_secret_key,
        "FLYTE_AWS_S3_ADDRESSING_STYLE": "virtual" if storage.s3_virtual_host else "",
        "AWS_REGION": storage.s3_region,
    }
    return Chosen(
        store=S3Store(_roots(storage), access=access, clock=clock),
        environment={name: value for name, value in environment.items() if value},
    )


_WHERE = (
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_STORAGE_USE_EMULATOR",
    "AZURITE_BLOB_STORAGE_URL",
    "GOOGLE_BASE_URL",
    "GOOGLE_SKIP_SIGNATURE",
)
"""Where a store is. Who asks is another matter: a key of the server's is not for pods to read."""


def _others(storage: settings.Storage, *, clock: Clock) -> Chosen:
    from flyte_unified.storage.remote import ObstoreStore  # the same

    environment = {name: os.environ[name] for name in _WHERE if name in os.environ}
    return Chosen(store=ObstoreStore(_roots(storage), clock=clock), environment=environment)


def _roots(storage: settings.Storage) -> dict[str, str]:
    return {DATA: storage.root, BUNDLES: storage.bundles}
