"""Addresses of pods' own, in network and mount namespaces that only this test sees."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import PODS
from flyte_unified.testing.fake_kube import FakeKube
from flyte_unified.testing.kubelet import Images, Kubelet, Network

_APART = ("unshare", "--net", "--mount", "--user", "--map-root-user")
_SECONDS = 60.0
_SERVER = """
import http.server

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204 if self.path == "/asked" or self.headers["User-Agent"].startswith("kube-probe/") else 404)
        self.end_headers()

http.server.ThreadingHTTPServer(("", 80), Answer).serve_forever()
"""


def _refused() -> str:
    """Why there can be none here."""
    try:
        tried = subprocess.run(
            [*_APART, "ip", "link", "add", "try0", "type", "bridge"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        return str(error)
    return tried.stderr


def test_pods_beside_one_another(tmp_path: Path) -> None:
    """Two pods listen on one port, whose image says what they run; each is asked, and probed by name, at its own address."""
    if why := _refused():
        pytest.skip(f"pods can have no addresses of their own here: {why}")
    command = [*_APART, sys.executable, "-m", "tests.contract.kube.test_kubelet_network", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    assert told.returncode == 0, told.stderr
    addresses = json.loads(told.stdout)
    assert len(set(addresses)) == 2
    assert all(address.startswith("10.244.0.") for address in addresses)


async def _apart(directory: Path) -> list[str]:
    for words in (("ip", "link", "set", "lo", "up"), ("mount", "-t", "tmpfs", "tmpfs", "/run")):
        subprocess.run(words, check=True)
    network = Network()
    await network.start()
    async with FakeKube.running() as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
        kube = Kube(kubeconfig=cluster.kubeconfig(directory / "kubeconfig"))
        await kube.start()
        ready: dict[str, str] = {}
        both = asyncio.Event()

        def hear(change: str, pod: dict[str, Any]) -> None:
            status = pod.get("status", {})
            if any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ())):
                ready[pod["metadata"]["name"]] = status["podIP"]
                if len(ready) == 2:
                    both.set()

        informer = Informer(kube, PODS, on_event=hear)
        images = Images(Path(sys.executable), programs={"server": (sys.executable, "-c", _SERVER)})
        async with Kubelet.running(kube, directory=directory / "node", images=images, network=network) as kubelet:
            await informer.start()
            for name in ("a", "b"):
                probe = {"httpGet": {"port": 80}, "periodSeconds": 1}
                spec = {"nodeName": kubelet.name, "containers": [{"name": "c", "image": "server", "readinessProbe": probe}]}
                await kube.create(
                    PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}, namespace="n"
                )
            await both.wait()
            for address in ready.values():
                await asyncio.to_thread(lambda url=f"http://{address}/asked": urllib.request.urlopen(url, timeout=5).close())
            await informer.stop()
        await kube.stop()
    return list(ready.values())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_apart(Path(sys.argv[1])))))
