"""What Google's and Azure's stores add to the contract: how a start fails that could not go well."""

from __future__ import annotations

import pytest

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import FailedPrecondition, PermissionDenied
from flyte_unified.storage.remote import ObstoreStore
from tests.contract.storage.conftest import CLOUDS, Clouds


@pytest.mark.parametrize("name", CLOUDS)
async def test_an_unknown_bucket_fails_the_start(clouds: Clouds, name: str) -> None:
    """A bucket that is not there is told at the start, with its name."""
    store = ObstoreStore({"objects": f"{clouds[name].scheme}://elsewhere/x"}, clock=SystemClock())
    with pytest.raises(FailedPrecondition, match=r"://elsewhere: make it, or set storage\.root"):
        await store.start()


@pytest.mark.parametrize("name", CLOUDS)
async def test_refused_credentials_fail_the_start(clouds: Clouds, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not read is told so at the start, not by the first run."""
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "YW5vdGhlcg==")
    store = ObstoreStore({"objects": f"{clouds[name].scheme}://objects/x"}, clock=SystemClock())
    with pytest.raises(PermissionDenied, match="403"):
        await store.start()
