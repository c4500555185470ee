"""The way to Knative's Services that an ingress would be: it knows each of their names, and asks whom Knative says to ask.

Of Knative's Ingress it takes what a cluster-local Service needs: hosts, the shares of revisions, headers to add. It speaks
HTTP/1.1, with WebSockets.
https://github.com/knative/networking/blob/main/pkg/apis/networking/v1alpha1/ingress_types.go
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Missing
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import SERVICES, Kind, Object

_INGRESSES = Kind("networking.internal.knative.dev", "v1alpha1", "Ingress", "ingresses")
_ENDPOINTS = Kind("", "v1", "Endpoints", "endpoints")
_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse
_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "upgrade"})
_READY = ("NetworkConfigured", "LoadBalancerReady", "Ready")


class Ingress:
    def __init__(self, kube: Kube, *, hosts: Path, address: str) -> None:
        self._kube = kube
        self._hosts = hosts
        self._named: set[str] = set()
        self._address = address
        self._informers = (
            Informer(kube, _INGRESSES, on_event=self._hear),
            Informer(kube, SERVICES, labels="networking.internal.knative.dev/serviceType=Public", on_event=self._hear_service),
        )
        self._paths: dict[str, dict[str, Object]] = {}
        """By the uid of what they come from, and host."""
        self._news: asyncio.Queue[Object] = asyncio.Queue()
        self._client: aiohttp.ClientSession

    @classmethod
    @asynccontextmanager
    async def running(cls, kube: Kube, *, hosts: Path, address: str) -> AsyncGenerator[Ingress]:
        ingress = cls(kube, hosts=hosts, address=address)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", ingress._relay)
        runner = web.AppRunner(application)
        await runner.setup()
        async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)) as ingress._client:
            await web.TCPSite(runner, address, 80).start()
            for informer in ingress._informers:
                await informer.start()
            telling = asyncio.create_task(ingress._tell(), name="states of ingresses")
            try:
                yield ingress
            finally:
                telling.cancel()
                for informer in ingress._informers:
                    await informer.stop()
                await runner.cleanup()

    def _hear(self, change: str, obj: Object) -> None:
        paths = {host: rule["http"]["paths"][0] for rule in obj["spec"].get("rules", ()) for host in rule["hosts"]}
        self._know(change, obj, paths)
        if change != "DELETED" and obj.get("status", {}).get("observedGeneration") != obj["metadata"]["generation"]:
            self._news.put_nowait(obj)

    def _hear_service(self, change: str, obj: Object) -> None:
        """A revision's: whether the activator is before it, the autoscaler asks by its name."""
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
        split = {"serviceName": name, "serviceNamespace": namespace, "servicePort": 80, "percent": 100}
        self._know(change, obj, {f"{name}.{namespace}.svc.cluster.local": {"splits": [split]}})

    def _know(self, change: str, obj: Object, paths: dict[str, Object]) -> None:
        uid = obj["metadata"]["uid"]
        self._paths.pop(uid, None)
        if change != "DELETED":
            self._paths[uid] = paths
        if new := paths.keys() - self._named:
            self._named |= new
            with self._hosts.open("a") as file:  # others read it at any time: what is there stays
                file.write(f"{self._address} {' '.join(sorted(new))}\n")

    async def _tell(self) -> None:
        while True:
            metadata = (await self._news.get())["metadata"]
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            balancer = {"ingress": [{"domainInternal": "ingress.knative-serving.svc.cluster.local"}]}
            status = {
                "observedGeneration": metadata["generation"],
                "conditions": [{"type": name, "status": "True", "lastTransitionTime": now} for name in _READY],
                "publicLoadBalancer": balancer,
                "privateLoadBalancer": balancer,
            }
            try:
                await self._kube.patch(
                    _INGRESSES, metadata["name"], {"status": status}, namespace=metadata["namespace"], subresource="status"
                )
            except Missing:  # it is gone
                continue

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        host = request.host.removesuffix(":80")
        path = next((paths[host] for paths in self._paths.values() if host in paths), None)
        if path is None:
            return web.Response(status=404, text="no such host")
        split = random.choices(path["splits"], [one["percent"] for one in path["splits"]])[0]
        target = await self._target(split)
        if target is None:
            return web.Response(status=503, text="nobody is there")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        headers |= path.get("appendHeaders", {}) | split.get("appendHeaders", {})
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._talk(request, f"http://{target}{request.raw_path}", headers)
        async with self._client.request(
            request.method, f"http://{target}{request.raw_path}", headers=headers, data=await request.read()
        ) as answer:
            told = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=told)
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            return response

    async def _talk(self, request: web.Request, url: str, headers: dict[str, str]) -> web.WebSocketResponse:
        asked = {name: value for name, value in headers.items() if not name.lower().startswith("sec-websocket")}
        visitor = web.WebSocketResponse()
        await visitor.prepare(request)
        async with self._client.ws_connect(url, headers=asked) as program, asyncio.TaskGroup() as group:
            group.create_task(_pass_on(visitor, program))
            group.create_task(_pass_on(program, visitor))
        return visitor

    async def _target(self, split: Object) -> str | None:
        """One of those behind the revision's Service now: its pods, or the activator."""
        name, namespace = split["serviceName"], split["serviceNamespace"]
        service = await self._kube.get(SERVICES, name, namespace=namespace)
        port = next(one for one in service["spec"]["ports"] if one["port"] == split["servicePort"])["name"]
        found: list[Any] = []
        for subset in (await self._kube.get(_ENDPOINTS, name, namespace=namespace)).get("subsets") or ():
            number = next(one["port"] for one in subset["ports"] if one["name"] == port)
            found += [f"{address['ip']}:{number}" for address in subset.get("addresses") or ()]
        return str(random.choice(found)) if found else None


async def _pass_on(source: _Socket, sink: _Socket) -> None:
    async for message in source:
        await (sink.send_str if message.type is aiohttp.WSMsgType.TEXT else sink.send_bytes)(message.data)
    await sink.close()
