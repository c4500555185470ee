"""Which connector runs a type of tasks: asked when there is such a task, as they come and go without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from flyteidl2.connector import connector_pb2

from flyte_unified.core.errors import FlyteUnifiedError, NotFound, Unavailable
from flyte_unified.net.connectors import ConnectorClient


class Directory:
    """Remembers what it was told until ``forget``."""

    def __init__(self, client: ConnectorClient) -> None:
        self._client = client
        self._known: dict[tuple[str, int], str] = {}

    async def find(self, category: connector_pb2.TaskCategory, addresses: Sequence[str]) -> str:
        """The first of ``addresses`` that runs it; the only one unasked, as it will say itself.

        Raises NotFound where none does, Unavailable where one that may was not to be asked.
        """
        if len(addresses) == 1:
            return addresses[0]
        key = category.name, category.version
        if (known := self._known.get(key)) is None:
            known = self._known[key] = await self._ask(key, addresses)
        return known

    def forget(self, category: connector_pb2.TaskCategory) -> bool:
        """Whether there was something to forget: to ask again may help then."""
        return self._known.pop((category.name, category.version), None) is not None

    async def _ask(self, key: tuple[str, int], addresses: Sequence[str]) -> str:
        answers = await asyncio.gather(*map(self._client.categories, addresses), return_exceptions=True)
        failed: list[FlyteUnifiedError] = []
        for address, answer in zip(addresses, answers, strict=True):
            if isinstance(answer, FlyteUnifiedError):
                failed.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif any((category.name, category.version) == key for category in answer):
                return address
        if failed:
            told = "; ".join(error.message for error in failed)
            raise Unavailable(f"no connector that answers runs tasks of type {key[0]!r}, and not all do: {told}")
        raise NotFound(f"no connector runs tasks of type {key[0]!r}, version {key[1]}; asked were {', '.join(addresses)}")
