"""The unmodified SDK uploads a file and a directory."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

from flyte_unified.core.context import Headers, Identity
from flyte_unified.dataproxy.handlers import ClusterHandlers, DataProxyHandlers
from flyte_unified.dataproxy.logs import LogTail
from flyte_unified.rpc.edge import Edge
from flyte_unified.rpc.registry import Registry
from flyte_unified.storage.routes import data_routes
from tests.unit.dataproxy.conftest import Proxy
from tests.unit.dataproxy.test_logs import Written

_CLIENT = """
import asyncio, json, pathlib, sys
import flyte
from flyte.remote import upload_dir, upload_file

async def main(endpoint, directory):
    await flyte.init.aio(endpoint=endpoint, insecure=True, project="p", domain="development")
    path = pathlib.Path(directory)
    _, uri = await upload_file.aio(path / "one (1).txt")
    print(json.dumps([uri, await upload_dir.aio(path)]))

asyncio.run(main(*sys.argv[1:]))
"""


async def _anyone(token: str | None, headers: Headers) -> Identity:
    return Identity()


async def test_the_sdk_uploads(proxy: Proxy, tmp_path: Path) -> None:
    """SelectCluster, CreateUploadLocation and the signed PUT as the SDK calls them; the addresses it gets are readable."""
    registry = Registry()
    logs = LogTail(ledger=proxy.ledger, lines=Written())
    handlers = DataProxyHandlers(uploads=proxy.uploads, downloads=proxy.downloads, logs=logs)
    registry.add("flyteidl2.dataproxy.DataProxyService", handlers)
    registry.add("flyteidl2.cluster.ClusterService", ClusterHandlers())
    edge = Edge(registry=registry, identify=_anyone, routes=data_routes(proxy.store))
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    await edge.start([listening])
    source = tmp_path / "source"
    source.mkdir()
    for name in ("one (1).txt", "two.txt"):
        (source / name).write_text(name)
    address = f"http://127.0.0.1:{edge.port}"
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CLIENT, address, str(source), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await client.communicate()
    await edge.stop(1)
    assert client.returncode == 0
    file, directory = json.loads(output.splitlines()[0])
    assert Path(file).read_text() == "one (1).txt"
    assert {path.name: path.read_text() for path in Path(directory).iterdir()} == {
        name: name for name in ("one (1).txt", "two.txt")
    }
