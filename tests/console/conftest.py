"""The console in a browser: Debian's Chromium without a window, spoken to in its own protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from flyte_unified.core.context import Headers, Identity
from flyte_unified.rpc.edge import Edge
from flyte_unified.rpc.registry import Registry
from flyte_unified.storage.routes import data_routes
from tests.databases import database, pytest_generate_tests
from tests.unit.console.conftest import Console, console

__all__ = ["console", "database", "pytest_generate_tests"]

CHROMIUM = shutil.which("chromium")
collect_ignore_glob = [] if CHROMIUM else ["test_*.py"]

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not CHROMIUM:
        terminalreporter.write_line("tests/console was left out: there is no chromium on PATH")


class Tab:
    """One page of the browser. ``events`` holds what it told and nobody asked for."""

    def __init__(self, channel: aiohttp.ClientWebSocketResponse) -> None:
        self._channel = channel
        self._sent = 0
        self._loader = ""
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        await self._channel.send_json({"id": self._sent, "method": method, "params": params})
        async with asyncio.timeout(30):
            while (message := await self._channel.receive_json()).get("id") != self._sent:
                self.events.append(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    async def event(self, method: str) -> dict[str, Any]:
        """The next event of this kind, among those that came already or will come; the ones before it are dropped."""
        async with asyncio.timeout(30):
            while True:
                while self.events:
                    if (told := self.events.pop(0))["method"] == method:
                        params: dict[str, Any] = told["params"]
                        return params
                self.events.append(await self._channel.receive_json())

    async def show(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.events.clear()
        self._loader = (await self.call("Page.navigate", url=url))["loaderId"]

    async def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Returns when the page is loaded."""
        await self.show(url, width=width, height=height, dark=dark)
        while (told := await self.event("Page.lifecycleEvent"))["name"] != "load" or told["loaderId"] != self._loader:
            pass

    async def loaded(self) -> None:
        """Returns when another page than before is loaded, or the same once more."""
        while (told := await self.event("Page.lifecycleEvent"))["name"] != "load" or told["loaderId"] == self._loader:
            pass
        self._loader = told["loaderId"]

    async def evaluate(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def visible(self) -> str:
        """The text that is not hidden; nothing while a page goes and the next one comes."""
        return " ".join((await self.evaluate("document.body?.innerText ?? ''")).split())

    async def screenshot(self) -> bytes:
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])


async def _anyone(token: str | None, headers: Headers) -> Identity:
    return Identity()


@pytest.fixture
async def site(console: Console) -> AsyncIterator[str]:
    """The console behind the real edge; its address."""
    edge = Edge(registry=Registry(), identify=_anyone, routes=[*console.pages.routes, *data_routes(console.store)])
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    await edge.start([listening])
    yield f"http://localhost:{edge.port}"
    await edge.stop(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[str]:
    """Where it can be spoken to. It is no child of the tests: its processes come and go with many."""
    with tempfile.TemporaryDirectory(prefix="fu-", ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}"]
        with subprocess.Popen(
            ["sh", "-c", '"$@" &', "sh", *command],
            env={**os.environ, "HOME": profile},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as shell:
            assert shell.stderr is not None
            try:
                yield next(found for line in shell.stderr if (found := line.partition("DevTools listening on ")[2].strip()))
            finally:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.stderr.read()  # to the end of all who had it: nobody writes into the profile while it is removed


@pytest.fixture
async def tab(browser: str) -> AsyncIterator[Tab]:
    """With cookies, a cache and a storage of its own."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session, session.ws_connect(browser) as whole:
        context = await Tab(whole).call("Target.createBrowserContext", disposeOnDetach=True)
        made = await Tab(whole).call("Target.createTarget", url="about:blank", **context)
        address = f"ws://{urlsplit(browser).netloc}/devtools/page/{made['targetId']}"
        async with session.ws_connect(address, max_msg_size=0) as channel:
            tab = Tab(channel)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await tab.call(f"{domain}.enable")
            await tab.call("Page.setLifecycleEventsEnabled", enabled=True)
            yield tab
