"""A Kubernetes client: verbs over objects as JSON.

A read waits for as long as a server that has too much to do says, within ``timeout``. A write is tried once: whether to
repeat it, and when, is known by the caller's queue, which has a backoff of its own; Away says that it may have happened.

Semantics: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from flyte_unified.kube.errors import Away, Silent, Throttled, from_status
from flyte_unified.kube.kinds import PODS, Kind, Object, key_of
from flyte_unified.kube.transport import Request, Transport

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
"""Of which JSON is a part. The object belongs to ``field_manager`` in what it says, whoever had it before."""

FIELD_MANAGER = "flyte-unified"

_PARTIAL = "application/json;as={};g=meta.k8s.io;v=v1"
"""https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches"""

_PARALLEL = 64
"""Calls at one time; streams do not count."""
_PAUSE = 1.0
"""Seconds that a read waits for a server that does not say how long."""
_WATCH = 290
"""Seconds after which the server is asked to end a watch: way below the age at which load balancers cut connections."""
_SILENCE = 150.0
"""Seconds without an event after which a watch is over: a server that lives sends a bookmark each minute."""
_LONGEST_LINE = 1 << 18
"""Bytes at which a log's line is cut in two."""


class Kube:
    """``kubeconfig`` None: the pod's service account, or kubectl's rules outside of one. ``timeout`` is in seconds, per call.

    Every method raises KubeError and nothing else (``kube.errors``): Missing, Forbidden, Invalid, Throttled and Away can come
    from all of them.
    """

    def __init__(self, *, kubeconfig: Path | None, context: str = "", timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._transport = Transport(kubeconfig=kubeconfig, context=context)
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._may_write: Callable[[], None] = lambda: None

    def guarded(self, may_write: Callable[[], None]) -> Kube:
        """The same client, for writes that somebody may forbid: just before each is sent ``may_write`` is called, and what it
        raises is raised.
        """
        guarded = copy.copy(self)
        guarded._may_write = may_write
        return guarded

    async def start(self) -> None:
        """Reads the configuration; asks the cluster nothing. Raises Unconfigured."""
        await self._transport.start()

    async def stop(self) -> None:
        """Ends what is still under way."""
        await self._transport.stop()

    async def get(self, kind: Kind, name: str, *, namespace: str = "") -> Object:
        return await self._read(_request("get", kind, namespace, name))

    async def create(self, kind: Kind, obj: Object, *, namespace: str = "") -> Object:
        """The object as stored. ``namespace`` counts where the object names none. Raises Exists."""
        namespace = obj["metadata"].get("namespace") or namespace
        name = obj["metadata"].get("name", "")
        if kind.namespaced and not namespace:
            raise ValueError(f"{kind.plural} {name}: no namespace")
        query = {"fieldManager": FIELD_MANAGER}
        return await self._write(_request("create", kind, namespace, method="POST", body=obj, about=name, query=query))

    async def replace(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        """Write the whole object, or of it what ``subresource`` (``status``) owns.

        Raises Conflict if it has a ``resourceVersion`` and somebody wrote since.
        """
        namespace, name = key_of(obj)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._write(_request("replace", kind, namespace, name, subresource, method="PUT", body=obj, query=query))

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: Object | list[Any],
        *,
        namespace: str = "",
        subresource: str = "",
        content_type: str = MERGE,
        field_manager: str = FIELD_MANAGER,
    ) -> Object:
        """``content_type`` is one of MERGE, JSON_PATCH (a list of operations), APPLY (a whole intent; creates what is missing).

        Raises Conflict if the patch says a ``metadata.resourceVersion`` (or ``metadata.uid``) that is not the object's.
        """
        query = {"fieldManager": field_manager} | ({"force": "true"} if content_type == APPLY else {})
        request = _request(
            "patch", kind, namespace, name, subresource, method="PATCH", body=patch, query=query, content_type=content_type
        )
        return await self._write(request)

    async def delete(
        self,
        kind: Kind,
        name: str,
        *,
        namespace: str = "",
        uid: str = "",
        grace: int | None = None,
        propagation: str = "Background",
    ) -> None:
        """Ask for the object's end. It stays, with a ``deletionTimestamp``, while it has finalizers or (a pod) runs.

        ``grace`` is in seconds, None for the object's own. Raises Conflict if there is another one of that name than ``uid``.
        """
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        await self._write(_request("delete", kind, namespace, name, method="DELETE", body=options))

    async def delete_all(self, kind: Kind, *, namespace: str = "", labels: str = "") -> None:
        """Delete every object of a namespace that matches, in one request."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        query = {"labelSelector": labels} if labels else {}
        await self._write(_request("delete all", kind, namespace, method="DELETE", body=options, query=query, about=labels))

    async def pages(
        self, kind: Kind, *, namespace: str = "", labels: str = "", fields: str = "", limit: int = 500
    ) -> AsyncGenerator[tuple[list[Object], str], None]:
        """A list in pages of ``limit``, and with each the version that the whole list is of: watch from there.

        Raises Gone when it took so long (5 minutes) that the server forgot that version.
        """
        query = _selected(labels, fields) | {"limit": str(limit)}
        while True:
            page = await self._read(_request("list", kind, namespace, query=query, about=labels or fields))
            metadata = page.get("metadata") or {}
            items: list[Object] = page.get("items") or []
            for item in items:  # a list says it once, at its head
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.kind)
            yield items, metadata.get("resourceVersion", "")
            if not (following := metadata.get("continue")):
                return
            query["continue"] = following

    async def watch(
        self, kind: Kind, *, namespace: str = "", labels: str = "", fields: str = "", resource_version: str
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """What changes after ``resource_version``: ADDED, MODIFIED, DELETED with the object, BOOKMARK with its version alone.

        The first is a BOOKMARK of ``resource_version`` itself, when the server has taken the watch. It ends after some minutes,
        for the caller to go on from the last version seen. Raises Gone if the server forgot ``resource_version``, Away when
        the connection is cut. Close it (``contextlib.aclosing``).
        """
        query = _selected(labels, fields) | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(_WATCH),
        }
        request = _request("watch", kind, namespace, query=query, about=labels or fields)
        stream = self._transport.stream(request, connect=self._timeout, silence=_SILENCE)
        async with aclosing(stream), aclosing(_lines(stream)) as lines:
            try:
                await anext(stream)
                yield "BOOKMARK", {"metadata": {"resourceVersion": resource_version}}
                async for line in lines:
                    event = _parsed(request, line)
                    if event["type"] == "ERROR":
                        raise from_status(request.doing, event["object"])
                    yield event["type"], event["object"]
            except Silent:
                return

    async def logs(
        self,
        pod: str,
        *,
        namespace: str,
        container: str,
        follow: bool = False,
        timestamps: bool = True,
        since_time: str = "",
        previous: bool = False,
        tail_lines: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """A container's lines without their ends, each as soon as it is complete; ``follow`` waits for the container's end.

        ``since_time`` (RFC 3339) is cut to the second by kubelets: who goes on from a line gets it and its neighbours again.
        Invalid is raised while the container has not started. Away is raised when the connection is cut, and what came of
        a line by then is not told. Close it (``contextlib.aclosing``).
        """
        asked = {
            "container": container,
            "follow": "true" if follow else "",
            "timestamps": "true" if timestamps else "",
            "previous": "true" if previous else "",
            "sinceTime": since_time,
            "tailLines": "" if tail_lines is None else str(tail_lines),
        }
        query = {name: value for name, value in asked.items() if value}
        request = _request("get", PODS, namespace, pod, "log", query=query)
        silence = None if follow else self._timeout
        stream = self._transport.stream(request, connect=self._timeout, silence=silence)
        async with aclosing(stream), aclosing(_lines(stream, longest=_LONGEST_LINE)) as lines:
            async for line in lines:
                yield line

    async def _read(self, request: Request) -> Object:
        async with _within(self._timeout, request) as deadline:
            while True:
                try:
                    return await self._once(request)
                except Throttled as error:
                    pause = _PAUSE if error.retry_after is None else error.retry_after
                    if asyncio.get_running_loop().time() + pause >= deadline:
                        raise
                await asyncio.sleep(pause)

    async def _write(self, request: Request) -> Object:
        async with _within(self._timeout, request), self._slots:
            self._may_write()
            return _parsed(request, await self._transport.call(request))

    async def _once(self, request: Request) -> Object:
        async with self._slots:
            return _parsed(request, await self._transport.call(request))


def _request(
    verb: str,
    kind: Kind,
    namespace: str,
    name: str = "",
    subresource: str = "",
    *,
    method: str = "GET",
    body: Object | list[Any] | None = None,
    query: dict[str, str] | None = None,
    content_type: str = "application/json",
    about: str = "",
) -> Request:
    """``about`` stands for the name in messages where the address has none."""
    shape = "PartialObjectMetadataList" if verb in ("list", "delete all") else "PartialObjectMetadata"
    what = "/".join(part for part in (kind.plural, subresource) if part)
    where = "/".join(part for part in (namespace if kind.namespaced else "", name or about) if part)
    return Request(
        doing=f"{verb} {what} {where}".rstrip(),
        method=method,
        path=kind.path(namespace, name, subresource),
        query=query or {},
        body=None if body is None else orjson.dumps(body),
        content_type=content_type,
        accept=_PARTIAL.format(shape) if kind.partial else "application/json",
    )


def _selected(labels: str, fields: str) -> dict[str, str]:
    selectors = {"labelSelector": labels, "fieldSelector": fields}
    return {name: selector for name, selector in selectors.items() if selector}


def _parsed(request: Request, body: bytes) -> Object:
    try:
        obj = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Away(f"{request.doing}: the answer is no JSON: {body[:80]!r}") from error
    if not isinstance(obj, dict):
        raise Away(f"{request.doing}: the answer is no object: {body[:80]!r}")
    return obj


async def _lines(chunks: AsyncGenerator[bytes, None], *, longest: int = 0) -> AsyncGenerator[bytes, None]:
    """Lines without their ends; one that gets longer than ``longest`` bytes (0: no bound) in pieces."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            parts.append(line)
            yield b"".join(parts)
            parts.clear()
            size = 0
        parts.append(rest)
        size += len(rest)
        if longest and size > longest:
            yield b"".join(parts)
            parts.clear()
            size = 0
    if last := b"".join(parts):
        yield last


@asynccontextmanager
async def _within(seconds: float, request: Request) -> AsyncGenerator[float, None]:
    """Gives the time, of the loop's clock, at which it will be over."""
    try:
        async with asyncio.timeout(seconds):
            yield asyncio.get_running_loop().time() + seconds
    except TimeoutError as error:
        raise Away(f"{request.doing}: no answer within {seconds:g} s") from error
