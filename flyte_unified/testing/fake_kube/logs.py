"""Logs of containers: asked from the kubelet of the pod's node, or from a text that a test set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from aiohttp import web

from flyte_unified.testing.fake_kube import errors
from flyte_unified.testing.fake_kube.api import Api
from flyte_unified.testing.fake_kube.errors import ApiError
from flyte_unified.testing.fake_kube.listing import truth
from flyte_unified.testing.fake_kube.resources import Object, Registry
from flyte_unified.testing.fake_kube.store import Key

_OPTIONS = ("follow", "timestamps", "previous", "tailLines", "sinceSeconds", "sinceTime", "limitBytes")
_PORT = 10250


class Logs:
    """``GET pods/<name>/log``."""

    def __init__(self, *, api: Api, registry: Registry) -> None:
        self._api = api
        self._registry = registry
        self._session: aiohttp.ClientSession | None = None
        self.texts: dict[tuple[str, str, str], str] = {}
        """What a test says a container wrote, by namespace, pod and container."""

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def answer(self, request: web.Request, key: Key) -> web.StreamResponse:
        """Raises ApiError."""
        pods, nodes = self._registry.named("pods"), self._registry.named("nodes")
        assert pods is not None and nodes is not None
        pod = self._api.get(pods, key).object()
        container = _container(pod, request.query.get("container", ""))
        text = self.texts.get((*key, container))
        if text is not None:
            return web.Response(text=_tail(text, request.query), content_type="text/plain")
        node = pod["spec"].get("nodeName")
        if not node:
            return web.Response(text="", content_type="text/plain")
        try:
            address = _kubelet(self._api.get(nodes, ("", node)).object())
        except ApiError:
            raise ApiError(500, "InternalError", f'Internal error: node "{node}" not found') from None
        return await self._proxied(request, f"{address}/containerLogs/{key[0]}/{key[1]}/{container}")

    async def _proxied(self, request: web.Request, url: str) -> web.StreamResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0))
        query = {name: request.query[name] for name in _OPTIONS if name in request.query}
        try:
            async with self._session.get(url, params=query) as answer:
                if answer.status != 200:
                    raise errors.bad_request((await answer.text()).strip())
                response = web.StreamResponse(headers={"Content-Type": "text/plain"})
                await response.prepare(request)
                async for chunk in _chunks(answer):
                    await response.write(chunk)
                return response
        except aiohttp.ClientConnectorError as error:
            message = f'Get "{url}": dial tcp: {error.os_error}'
            raise ApiError(500, "InternalError", message) from None


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """What the kubelet sends, until it ends or breaks off: a reader of logs is told no more than that they end."""
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except aiohttp.ClientError:
        return


def _container(pod: Object, asked: str) -> str:
    """The container whose log is meant. Raises ApiError 400."""
    name = pod["metadata"]["name"]
    spec = pod["spec"]
    names = [one["name"] for kind in ("initContainers", "containers") for one in spec.get(kind) or ()]
    if not asked:
        main = [one["name"] for one in spec["containers"]]
        if len(main) > 1:
            choices = " ".join(main)
            raise errors.bad_request(f"a container name must be specified for pod {name}, choose one of: [{choices}]")
        return str(main[0])
    if asked not in names:
        raise errors.bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def _kubelet(node: Object) -> str:
    """The address that a node declares for its kubelet."""
    status: dict[str, Any] = node.get("status") or {}
    addresses = {one["type"]: one["address"] for one in status.get("addresses") or ()}
    host = next((addresses[kind] for kind in ("InternalIP", "ExternalIP", "Hostname") if kind in addresses), "")
    if not host:
        raise ApiError(500, "InternalError", f"no preferred addresses found; known addresses: {list(addresses)}")
    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port") or _PORT
    return f"http://{host}:{port}"


def _tail(text: str, query: Mapping[str, str]) -> str:
    lines = text.splitlines(keepends=True)
    if (count := query.get("tailLines")) is not None:
        lines = lines[len(lines) - min(int(count), len(lines)) :]
    if truth(query.get("timestamps", "")):
        lines = [f"1970-01-01T00:00:00.{index:09d}Z {line}" for index, line in enumerate(lines)]
    return "".join(lines)
