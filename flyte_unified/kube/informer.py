"""The objects of a kind as they are now, kept so by a list and a watch, and told as news.

A watch loses nothing that happens between two connections: it goes on from the last version seen, bookmarks included. When the
server no longer remembers that version (410), and once in ``resync`` in any case, everything is listed again and compared, so
that a change or a deletion is told late but never not at all. What happened to an object in between is not told: an informer
is about states.

A change is told as soon as it is read; nothing is asked again and again but a server that is away, with growing pauses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing

import structlog

from flyte_unified.kube.cache import Cache, Key, News, Trim
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Away, Gone, KubeError, Throttled
from flyte_unified.kube.kinds import Kind, Object, key_of

_log = structlog.get_logger(__name__)

_SHORTEST, _LONGEST = 0.5, 30.0
"""Seconds between two tries, before jitter."""
_BRIEF = 1.0
"""Seconds that a watch without news must stand to count: otherwise we would ask, and be cut off, without a pause."""
_TRANSIENT = (Away, Throttled, Gone)


class Informer:
    """Calls ``on_event`` with ADDED, MODIFIED or DELETED and the object; an error in it is logged and ends nothing.

    ``labels`` and ``fields`` are selectors as kubectl takes them; an object that ceases to match is told as DELETED. ``trim``
    gives the part of an object that is kept and told: 10,000 ordinary pods weigh 165 MB, and 51 MB without most of their specs.
    ``resync`` is in seconds, ``pages`` the objects of one page.
    """

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        on_event: Callable[[str, Object], None],
        resync: float = 600.0,
        trim: Trim | None = None,
        pages: int = 500,
    ) -> None:
        self._kube = kube
        self._kind = kind
        self._selected = {"namespace": namespace, "labels": labels, "fields": fields}
        self._on_event = on_event
        self._resync = resync
        self._pages = pages
        self._cache = Cache(trim)
        self._version = ""
        self._resync_at = 0.0
        self._failures = 0
        self._lost_at: float | None = None
        self._first: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.last_seen = 0.0
        """When the server was last heard of, in seconds since 1970; 0 for never."""

    async def start(self) -> None:
        """Returns when every object there is was told; waits for a server that is away. Raises what waiting does not mend."""
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(self._first), name=f"informer-{self._kind.plural}")
        try:
            await self._first
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """What is known stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._first is not None:
            self._first.cancel()  # whoever waits in ``start``

    @property
    def synced(self) -> bool:
        """Whether every object was told once."""
        return self._first is not None and self._first.done() and not self._first.cancelled() and not self._first.exception()

    def get(self, name: str, namespace: str = "") -> Object | None:
        return self._cache.get((namespace, name))

    def __iter__(self) -> Iterator[Object]:
        """Over the objects as they are at this moment."""
        return iter(self._cache)

    def __len__(self) -> int:
        return len(self._cache)

    async def _run(self, first: asyncio.Future[None]) -> None:
        while True:
            try:
                if not self._version or asyncio.get_running_loop().time() >= self._resync_at:
                    await self._list()
                if not first.done():
                    first.set_result(None)
                await self._follow()
            except Exception as error:  # whatever it is: without this task everybody would go by what was true once
                if not (first.done() or isinstance(error, _TRANSIENT)):
                    first.set_exception(error)
                    return
                await self._pause(error)

    async def _list(self) -> None:
        listed: set[Key] = set()
        version = ""
        async with aclosing(self._kube.pages(self._kind, **self._selected, limit=self._pages)) as pages:
            async for items, of in pages:
                version = of
                self._heard()
                for obj in items:
                    listed.add(key_of(obj))
                    self._tell(self._cache.listed(obj))
        self._tell(self._cache.absent(listed))
        self._version = version
        self._resync_at = asyncio.get_running_loop().time() + self._resync * random.uniform(0.9, 1.1)

    async def _follow(self) -> None:
        """Until the server ends the watch, or it is time to list again."""
        loop = asyncio.get_running_loop()
        watch = self._kube.watch(self._kind, **self._selected, resource_version=self._version)
        begun, news = loop.time(), 0
        stands: asyncio.TimerHandle | None = None
        try:
            async with asyncio.timeout_at(self._resync_at), aclosing(watch):
                async for change, obj in watch:
                    self._heard()
                    if stands is None:
                        stands = loop.call_later(_BRIEF, self._recovered)
                        continue
                    news += 1
                    self._recovered()
                    if change != "BOOKMARK":
                        self._tell(self._cache.watched(change, obj))
                    self._version = obj["metadata"]["resourceVersion"]
        except TimeoutError:
            return
        finally:
            if stands is not None:
                stands.cancel()
        if not news and loop.time() - begun < _BRIEF:
            raise Away(f"watch {self._kind.plural}: the server ended it at once, with nothing in it")

    def _heard(self) -> None:
        self.last_seen = time.time()

    def _tell(self, news: Iterable[News]) -> None:
        for change, obj in news:
            try:
                self._on_event(change, obj)
            except Exception:
                namespace, name = key_of(obj)
                _log.exception("a change was not taken in", kind=self._kind.kind, namespace=namespace, name=name, change=change)

    async def _pause(self, error: Exception) -> None:
        """The first failure of an outage is logged. A version that is too old is none, and costs a pause only if repeated."""
        self._failures += 1
        foreseen = isinstance(error, KubeError)
        if isinstance(error, Gone) or not foreseen:
            self._version = ""
        if isinstance(error, Gone):
            if self._failures == 1:
                return
        elif self._lost_at is None:
            self._lost_at = asyncio.get_running_loop().time()
            _log.warning("objects are followed no longer", kind=self._kind.kind, error=str(error), exc_info=not foreseen)
        asked = error.retry_after if isinstance(error, KubeError) else None
        await asyncio.sleep(max(asked or 0.0, pause(self._failures)))

    def _recovered(self) -> None:
        self._failures = 0
        if self._lost_at is not None:
            seconds = asyncio.get_running_loop().time() - self._lost_at
            _log.info("objects are followed again", kind=self._kind.kind, seconds=round(seconds, 1))
            self._lost_at = None


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row: growing, bounded, and not the same for all."""
    return min(_LONGEST, _SHORTEST * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)
