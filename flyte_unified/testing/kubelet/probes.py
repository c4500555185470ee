"""Probes and lifecycle handlers: one attempt, and how many make a verdict
(kubernetes.io, "Configure Liveness, Readiness and Startup Probes")."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp

from flyte_unified.testing.kubelet.environment import ConfigError, Object, port_number
from flyte_unified.testing.kubelet.runtime import Runtime, Sandbox

_ASKED_BY = {"User-Agent": "kube-probe/1.33", "Accept": "*/*"}
"""By which programs know a kubelet: Knative's queue-proxy answers others as the app does."""


class Result(NamedTuple):
    """``message`` says why it is not good."""

    good: bool
    message: str


class Handlers:
    """Runs the handlers of one container, whose pod has ``address``."""

    def __init__(self, container: Object, sandbox: Sandbox, *, runtime: Runtime, address: str) -> None:
        self._container = container
        self._address = address
        self._sandbox = sandbox
        self._runtime = runtime

    async def handle(self, handler: Object, *, timeout: float | None) -> Result:
        """Carry out a handler: exec, httpGet, tcpSocket or sleep."""
        try:
            async with asyncio.timeout(timeout):
                return await self._handle(handler)
        except TimeoutError:
            return Result(good=False, message=f"command timed out after {timeout:g}s")
        except ConfigError as error:
            return Result(good=False, message=error.message)

    async def _handle(self, handler: Object) -> Result:
        if command := (handler.get("exec") or {}).get("command"):
            code, output = await self._runtime.execute(self._sandbox, command)
            return Result(code == 0, output.rstrip("\n"))
        if get := handler.get("httpGet"):
            return await self._get(get)
        if tcp := handler.get("tcpSocket"):
            return await self._connect(tcp)
        if sleep := handler.get("sleep"):
            await asyncio.sleep(sleep["seconds"])
            return Result(good=True, message="")
        raise ConfigError("this node knows no such handler")

    async def _get(self, get: Object) -> Result:
        host = get.get("host") or self._address
        url = f"{get.get('scheme', 'HTTP').lower()}://{host}:{port_number(self._container, get['port'])}{get.get('path', '/')}"
        headers = _ASKED_BY | {header["name"]: header["value"] for header in get.get("httpHeaders") or ()}
        try:
            async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=False) as answer:
                return Result(200 <= answer.status < 400, f"HTTP probe failed with statuscode: {answer.status}")
        except aiohttp.ClientError as error:
            return Result(good=False, message=f'Get "{url}": {error}')

    async def _connect(self, tcp: Object) -> Result:
        try:
            _, writer = await asyncio.open_connection(
                tcp.get("host") or self._address, port_number(self._container, tcp["port"])
            )
        except OSError as error:
            return Result(good=False, message=f"dial tcp: {error}")
        writer.close()
        return Result(good=True, message="")


async def watch(
    probe: Object, handlers: Handlers, *, told: Callable[[Result], Awaitable[bool]], failed: Callable[[Result], None]
) -> None:
    """Probe until ``told``, which hears each verdict, returns False. ``failed`` hears every attempt that failed."""
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    good = bad = 0
    while True:
        result = await handlers.handle(probe, timeout=probe.get("timeoutSeconds", 1))
        good, bad = (good + 1, 0) if result.good else (0, bad + 1)
        if not result.good:
            failed(result)
        enough = good >= probe.get("successThreshold", 1) if result.good else bad >= probe.get("failureThreshold", 3)
        if enough and not await told(result):
            return
        await asyncio.sleep(probe.get("periodSeconds", 10))
