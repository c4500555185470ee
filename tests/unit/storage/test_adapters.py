"""The settings choose the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.settings import SettingsError, load, shown
from flyte_unified.storage.adapters import BUNDLES, DATA, Chosen, choose
from flyte_unified.storage.local import LocalStore

KEYS = {"storage.s3_access_key": "id", "storage.s3_secret_key": "hidden"}


def chosen(tmp_path: Path, environ: dict[str, str] | None = None, /, **flags: Any) -> Chosen:
    values = {f"storage.{name}": value for name, value in flags.items()}
    loaded = load(environ=environ, flags={"data.dir": str(tmp_path), **values})
    return choose(loaded.storage, key=b"k" * 32, clock=SystemClock())


def test_a_directory_by_default(tmp_path: Path) -> None:
    """The local store serves its own URLs, and tasks need nothing to reach it."""
    found = chosen(tmp_path)
    assert isinstance(found.store, LocalStore)
    assert (found.store.base(DATA), found.store.base(BUNDLES)) == (f"{tmp_path}/storage", f"{tmp_path}/bundles")
    assert {route.method for route in found.routes} == {"GET", "HEAD", "PUT"}
    assert found.environment == {}


def test_a_bucket_by_its_address(tmp_path: Path) -> None:
    """S3 serves its URLs itself; tasks are told how to reach it, in the SDK's own variables."""
    found = chosen(
        tmp_path,
        root="s3://bucket/pre/",
        s3_endpoint="http://store:9000",
        s3_region="eu-west-3",
        s3_access_key="id",
        s3_secret_key="hidden",
        s3_virtual_host="yes",
    )
    assert (found.store.base(DATA), found.store.base(BUNDLES)) == ("s3://bucket/pre", "s3://bucket/pre/_bundles")
    assert not found.routes
    assert found.environment == {
        "FLYTE_AWS_ENDPOINT": "http://store:9000",
        "FLYTE_AWS_ACCESS_KEY_ID": "id",
        "FLYTE_AWS_SECRET_ACCESS_KEY": "hidden",
        "FLYTE_AWS_S3_ADDRESSING_STYLE": "virtual",
        "AWS_REGION": "eu-west-3",
    }
    assert "hidden" not in repr(found)


def test_the_variables_of_aws(tmp_path: Path) -> None:
    """Endpoint and region are AWS's own variables where the settings have none; keys are left to them."""
    environ = {"AWS_ENDPOINT_URL_S3": "http://store:9000", "AWS_DEFAULT_REGION": "eu-north-1"}
    environment = chosen(tmp_path, environ, root="s3://bucket").environment
    assert environment == {"FLYTE_AWS_ENDPOINT": "http://store:9000", "AWS_REGION": "eu-north-1"}
    assert chosen(tmp_path, root="s3://bucket").environment == {"AWS_REGION": "us-east-1"}


@pytest.mark.parametrize("root", ["gs://bucket/pre", "abfs://container@account.dfs.core.windows.net/pre"])
def test_other_clouds(tmp_path: Path, root: str) -> None:
    """Google's and Azure's stores are chosen alike."""
    found = chosen(tmp_path, root=root)
    assert found.store.base(BUNDLES) == f"{root}/_bundles"
    assert found.store.owns(f"{root}/x/y")
    assert not found.store.owns(root.removesuffix("pre") + "other/x")
    assert not found.routes


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"root": "ftp://host/x"}, r"storage\.root = 'ftp://host/x'"),
        ({"root": "s3://bucket", "bundles": "/tmp/bundles"}, r"storage\.bundles = '/tmp/bundles' is in another store"),
        ({"root": "s3://bucket", "s3_endpoint": "store:9000"}, r"storage\.s3_endpoint = 'store:9000'"),
        ({"root": "s3://bucket", "s3_access_key": "id"}, "belong together"),
    ],
)
def test_what_contradicts_itself(tmp_path: Path, flags: dict[str, str], sentence: str) -> None:
    """The setting to change is named."""
    with pytest.raises(SettingsError, match=sentence):
        chosen(tmp_path, **flags)


@pytest.mark.parametrize(("root", "library"), [("s3://bucket", "minio"), ("gs://bucket", "obstore")])
def test_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, library: str) -> None:
    """A laptop's installation has neither; the error says what to install."""
    for module in ("s3", "remote"):
        monkeypatch.delitem(sys.modules, f"flyte_unified.storage.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(FailedPrecondition, match=rf"needs {library}: pip install 'flyte-unified\[cluster\]'"):
        chosen(tmp_path, root=root)


def test_tasks_are_told_where_a_clouds_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account and the endpoint of the server's environment; its key is not for pods."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "aGlkZGVu")
    assert chosen(tmp_path, root="abfs://container/prefix").environment == {"AZURE_STORAGE_ACCOUNT_NAME": "account"}


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    """`config show` and a log of the settings leave it out."""
    loaded = load(flags={"data.dir": str(tmp_path), **KEYS})
    assert shown("storage.s3_secret_key", loaded.storage.s3_secret_key) == "***"
    assert shown("storage.s3_secret_key", "") == '""'
    assert "hidden" not in repr(loaded)
