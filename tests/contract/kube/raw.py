"""An API server spoken to in plain HTTP, so that a test says what goes over the wire and sees what comes back."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml

MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
PATIENCE = 10.0
"""Seconds in which what must come has come."""


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Any

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> set[tuple[str, str]]:
        """Reason and field of each."""
        return {(one["reason"], one.get("field", "")) for one in (self.body.get("details") or {}).get("causes") or ()}

    @property
    def version(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])


class Raw:
    """One server. Paths below a namespace of the test's own begin with ``~``."""

    def __init__(self, config: Path, namespace: str) -> None:
        content = yaml.safe_load(config.read_text())
        context = next(one["context"] for one in content["contexts"] if one["name"] == content["current-context"])
        cluster = next(one["cluster"] for one in content["clusters"] if one["name"] == context["cluster"])
        user = next(one["user"] for one in content["users"] if one["name"] == context["user"])
        self.url = cluster["server"]
        self.namespace = namespace
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {user['token']}"} if "token" in user else {},
            connector=aiohttp.TCPConnector(ssl=_tls(cluster, user)) if self.url.startswith("https") else None,
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
        )

    async def close(self) -> None:
        await self._session.close()

    def path(self, path: str) -> str:
        """``~pods`` and ``~apps/v1/deployments`` are of the test's namespace."""
        if not path.startswith("~"):
            return self.url + path
        group, _, resource = path[1:].rpartition("@")
        return f"{self.url}/{f'apis/{group}' if group else 'api/v1'}/namespaces/{self.namespace}/{resource}"

    async def __call__(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", **headers: str
    ) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        told = {"Content-Type": kind} if data is not None else {}
        headers = {key.replace("_", "-"): value for key, value in headers.items()} | told
        async with self._session.request(
            method, self.path(path), data=None if data is None else io.BytesIO(data), headers=headers
        ) as answer:
            content = await answer.read()
            body = json.loads(content) if "json" in answer.headers.get("Content-Type", "") else content.decode()
            return Answer(answer.status, body, answer.headers)

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[Watch]:
        parameters = {"watch": "true", **query}
        async with self._session.get(self.path(path), params=parameters, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            yield Watch(answer)


class Watch:
    """Events, one at a time."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.status = answer.status
        self._content = answer.content

    async def next(self) -> tuple[str, Any]:
        """Raises EOFError at the end."""
        async with asyncio.timeout(PATIENCE):
            line = await self._content.readline()
        if not line:
            raise EOFError
        event = json.loads(line)
        return event["type"], event["object"]

    async def names(self, count: int) -> list[tuple[str, str]]:
        """The next events, by type and name."""
        return [(kind, content["metadata"].get("name", "")) for kind, content in [await self.next() for _ in range(count)]]


def _tls(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif "certificate-authority-data" in cluster:
        context.load_verify_locations(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    elif "certificate-authority" in cluster:
        context.load_verify_locations(cluster["certificate-authority"])
    if "client-certificate" in user:
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    return context


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
    return content if data is None else content | {"data": data}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """No scheduler looks at it."""
    given = {"containers": [{"name": "main", "image": "example.org/image:1"}], "schedulerName": "nobody"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**given, **spec}}
