"""The laptop's vault: rows with sealed values, opened for the process that asked, when it is launched."""

from __future__ import annotations

from flyte_unified.core.paging import Listing
from flyte_unified.db.api import Database
from flyte_unified.secrets import store
from flyte_unified.secrets.cipher import Cipher
from flyte_unified.secrets.model import Sealed, Secret, SecretId, lookups
from flyte_unified.secrets.service import missing


class TableVault:
    """``key`` is the server's secret key."""

    def __init__(self, *, database: Database, key: bytes) -> None:
        self._database = database
        self._cipher = Cipher(key)

    async def add(self, new: Sealed) -> bool:
        value = self._cipher.seal(new.secret.id, new.value)
        return await self._database.write(lambda: store.add(new.secret, value))

    async def change(self, new: Sealed) -> bool:
        secret, value = new.secret, self._cipher.seal(new.secret.id, new.value)
        return await self._database.write(lambda: store.change(secret.id, kind=secret.kind, value=value, at=secret.created_at))

    async def get(self, key: SecretId) -> Secret | None:
        return await self._database.read(lambda: store.get(key))

    async def remove(self, key: SecretId) -> bool:
        return await self._database.write(lambda: store.remove(key))

    async def page(self, listing: Listing, *, project: str, domain: str) -> tuple[list[Secret], str]:
        return await self._database.read(lambda: store.page(listing, project=project, domain=domain))

    async def reveal(self, project: str, domain: str, name: str) -> bytes:
        """The value for a task there. Raises NotFound; FailedPrecondition for one stored with another key."""
        found = await self._database.read(lambda: store.value(lookups(project, domain, name)))
        if found is None:
            raise missing(SecretId(project, domain, name))
        return self._cipher.open(*found)
