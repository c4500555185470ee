"""The output of an app's pods, as the cluster keeps it: all of them at once, restarts included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from itertools import groupby
from operator import itemgetter

from flyte_unified.apps.api import Output
from flyte_unified.apps.cluster.view import View
from flyte_unified.apps.model import AppKey
from flyte_unified.core.errors import NotFound
from flyte_unified.dataproxy.api import Line, LogCursor
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import KubeError, Missing
from flyte_unified.kube.informer import pause
from flyte_unified.kube.kinds import Object
from flyte_unified.plugins.pods import reading

_AHEAD = 64
"""Lines, of 256 KiB at most, read before anybody takes them."""


async def follow(kube: Kube, view: View, key: AppKey, replica: str, *, active: Callable[[], bool]) -> AsyncGenerator[Output]:
    """See ``api.AppLauncher``. ``active`` says whether there are pods, or are about to be."""
    lines: asyncio.Queue[tuple[str, Line]] = asyncio.Queue(_AHEAD)
    news = asyncio.Event()
    told = asyncio.create_task(_tell(view, news), name=f"news of app {key}")
    readers: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            news.clear()
            for name in (pod["metadata"]["name"] for pod in view.pods(key)):
                if replica in ("", name) and name not in readers:
                    yield Output(name)
                    readers[name] = asyncio.create_task(_read(kube, view, key, name, lines, news), name=f"log of {name}")
            if replica and not readers:
                raise NotFound(f"app {key} has no replica {replica!r}")
            over = all(reader.done() for reader in readers.values())
            taken = [lines.get_nowait() for _ in range(lines.qsize())]
            for name, batch in groupby(taken, key=itemgetter(0)):
                yield Output(name, [line for _, line in batch])
            if over and (replica or not active()):
                return
            await news.wait()
    finally:
        for task in (told, *readers.values()):
            task.cancel()
        await asyncio.gather(told, *readers.values(), return_exceptions=True)


async def _tell(view: View, news: asyncio.Event) -> None:
    while True:
        await view.turn.wait()
        news.set()


async def _read(
    kube: Kube, view: View, key: AppKey, name: str, lines: asyncio.Queue[tuple[str, Line]], news: asyncio.Event
) -> None:
    """Until there is no such pod. A connection that broke is made again where it left off."""
    cursor, read, seen, failures = LogCursor(), "", "", 0
    try:
        while (pod := view.pod(key, name)) is not None:
            turn, container = view.turn, reading.primary_name(pod)
            run, running = _run(pod, container)
            if not run or (run == seen and not running):
                await turn.wait()
                continue
            if run != read:
                cursor, read = LogCursor(), run
            place = view.place(key)
            stream = kube.logs(name, namespace=place, container=container, follow=True, since_time=cursor.again())
            try:
                async with aclosing(stream):
                    async for line in stream:
                        for new in cursor.news([line]):
                            failures = 0
                            await lines.put((name, new))
                            news.set()
                seen = run
            except Missing:
                return
            except KubeError:
                failures += 1
            await asyncio.sleep(pause(failures + 1))
    finally:
        news.set()


def _run(pod: Object, container: str) -> tuple[str, bool]:
    """Which of its runs a container is in, empty before the first one, and whether it is still in it."""
    statuses = reading.mappings(reading.mapping(pod.get("status")).get("containerStatuses"))
    found = next((one for one in statuses if one.get("name") == container), {})
    state, before = reading.mapping(found.get("state")), reading.mapping(found.get("lastState"))
    begun = "running" in state or "terminated" in state or "terminated" in before
    return (str(found.get("restartCount", 0)) if begun else ""), "running" in state
