"""An HTTP server that answers as a test's function says, for what no API server would do."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Its address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    host, port = runner.addresses[0]
    try:
        yield f"{'https' if tls else 'http'}://{host}:{port}"
    finally:
        await runner.cleanup()


def kubeconfig(path: Path, server: str, *, authority: bytes = b"", **user: Any) -> Path:
    """``one`` is ``server``, known by ``authority`` (PEM); at ``other`` nobody is."""
    trusted = {"certificate-authority-data": b64encode(authority).decode()} if authority else {}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("one", "other")],
        "clusters": [
            {"name": "one", "cluster": {"server": server} | trusted},
            {"name": "other", "cluster": {"server": "http://127.0.0.1:9"}},
        ],
        "users": [{"name": "me", "user": user}],
    }
    path.write_text(json.dumps(config))
    return path
