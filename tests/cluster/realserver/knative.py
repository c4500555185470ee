"""Knative Serving, built from its Go module, before a real control plane of Kubernetes; a command runs with both.

    python -m tests.cluster.realserver.knative COMMAND...

Its controller, webhook, autoscaler and activator are processes, each with an address of its own, in a network and mount
namespace that ends with this program: so pods have addresses, too, and names of the cluster are found (``/etc/hosts``). There
is no kube-proxy; before Knative is a plain ingress (``ingress``). It needs root, or user namespaces, and the programs ``ip``
and ``unshare``. Building needs Go and takes ten minutes, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import yaml

from flyte_unified.kube.client import Kube
from flyte_unified.testing.kubelet import Network
from tests.cluster.realserver import serve
from tests.cluster.realserver.ingress import Ingress

VERSION = "v0.50.0"
"""Which is Knative 1.23."""
SPACE = "knative-serving"
CACHE = serve.CACHE.with_name(f"knative-{VERSION}")
_COMMANDS = ("controller", "webhook", "autoscaler", "activator", "queue")
_INSIDE = "FLYTE_TEST_KNATIVE"
_QUEUE = "knative.local/queue"
_SETTINGS = {
    "config-deployment": {"queue-sidecar-image": _QUEUE, "registries-skipping-tag-resolving": "index.docker.io,knative.local"},
    "config-autoscaler": {"scale-to-zero-grace-period": "6s"},
    "config-features": {f"kubernetes.podspec-{name}": "enabled" for name in ("nodeselector", "tolerations")},
}
"""What differs from Knative's own."""
_PLACES = ("networking", "caching", "serving/core")
_LEFT_OUT = ("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Image")
_ADDRESSES = {name: f"10.244.255.{number}" for number, name in enumerate(_COMMANDS[:-1], 1)}
_KEPT = 'while :; do "$0"; sleep 1; done'
"""They end when the API server is slow, and somebody starts them again."""
_PATIENCE = 120.0


def main() -> int:
    if _INSIDE in os.environ:
        return asyncio.run(_serve(sys.argv[1:]))
    if not serve.built() and not serve.build():
        return 2
    if not (CACHE / "config").exists():
        _build()
    return _go_apart()


def _go_apart() -> NoReturn:
    """This program again, in namespaces whose processes all end with it."""
    as_root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    apart = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    os.environ[_INSIDE] = str(CACHE / "queue")
    again = (sys.executable, "-m", "tests.cluster.realserver.knative", *sys.argv[1:])
    os.execvp("unshare", ["unshare", *apart, *as_root, *again])


def _build() -> None:
    sys.stderr.write(f"building Knative {VERSION} into {CACHE}: this takes some minutes\n")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        go = partial(subprocess.run, check=True, cwd=directory, stdout=subprocess.PIPE)
        Path(directory, "go.mod").write_text(f"module knative\n\ngo 1.26.0\n\nrequire knative.dev/serving {VERSION}\n")
        commands = [f"knative.dev/serving/cmd/{name}" for name in _COMMANDS]
        go(["go", "build", "-mod=mod", "-o", f"{CACHE}/", *commands])
        config = Path(directory, "config")
        for module in ("serving", "networking", "caching"):
            source = go(["go", "list", "-mod=mod", "-m", "-f", "{{.Dir}}", f"knative.dev/{module}"]).stdout.decode().strip()
            for file in Path(source, "config").glob("**/*.yaml"):
                place = config / module / file.relative_to(Path(source, "config")).parent
                place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place / file.name)
        shutil.copytree(config, CACHE / "config")


async def _serve(command: list[str]) -> int:
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="knative-")))
        hosts = directory / "hosts"
        shutil.copy("/etc/hosts", hosts)
        for words in (
            ("ip", "link", "set", "lo", "up"),
            ("mount", "-t", "tmpfs", "tmpfs", "/run"),
            ("mount", "--bind", str(hosts), "/etc/hosts"),
        ):
            subprocess.run(words, check=True)
        network = Network()
        await network.start()
        kubeconfig = directory / "kubeconfig"
        stack.enter_context(serve.running(kubeconfig, address=network.machine))
        _apply(kubeconfig, _objects())
        for name, address in _ADDRESSES.items():
            await network.add(address)
            stack.enter_context(_component(directory, name, kubeconfig=kubeconfig, path=network.path(address)))
        with hosts.open("a") as file:
            file.write(f"\n{_ADDRESSES['autoscaler']} autoscaler.{SPACE}.svc.cluster.local\n")
        await _started(kubeconfig)
        kube = Kube(kubeconfig=kubeconfig)
        await kube.start()
        stack.push_async_callback(kube.stop)
        await stack.enter_async_context(Ingress.running(kube, hosts=hosts, address=network.machine))
        sys.stderr.write(f"Knative {VERSION} is up; logs are in {directory}\n")
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "FLYTE_TEST_KUBECONFIG": str(kubeconfig)})
        return await process.wait()


def _objects() -> list[dict[str, Any]]:
    """Knative's own, but what would run its programs."""
    files = (file for place in _PLACES for file in sorted((CACHE / "config" / place).glob("**/*.yaml")))
    objects = [obj for file in files for obj in yaml.safe_load_all(file.read_text()) if obj and obj["kind"] not in _LEFT_OUT]
    for obj in objects:
        if obj["kind"] == "ConfigMap":
            obj["data"] = _SETTINGS.get(obj["metadata"]["name"], {})
    return objects + [_endpoints(obj) for obj in objects if obj["kind"] == "Service"]


def _endpoints(service: dict[str, Any]) -> dict[str, Any]:
    """Those of a Service whose pods we are."""
    app = service["spec"].pop("selector")["app"]
    ports = [{"name": port["name"], "port": port["targetPort"]} for port in service["spec"]["ports"]]
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": service["metadata"]["name"], "namespace": SPACE},
        "subsets": [{"addresses": [{"ip": _ADDRESSES[app]}], "ports": ports}],
    }


def _kubectl(kubeconfig: Path, *arguments: str, given: str = "") -> str:
    command = [serve.CACHE / "kubectl", f"--kubeconfig={kubeconfig}", *arguments]
    return subprocess.run(command, check=True, input=given, capture_output=True, text=True).stdout


def _apply(kubeconfig: Path, objects: Sequence[dict[str, Any]]) -> None:
    first = [obj for obj in objects if obj["kind"] in ("Namespace", "CustomResourceDefinition")]
    _kubectl(kubeconfig, "apply", "--server-side", "-f", "-", given=yaml.safe_dump_all(first))
    _kubectl(kubeconfig, "wait", "--for=condition=Established", "customresourcedefinitions", "--all")
    others = [obj for obj in objects if obj not in first]
    _kubectl(kubeconfig, "apply", "--server-side", "-f", "-", given=yaml.safe_dump_all(others))


@contextlib.contextmanager
def _component(directory: Path, name: str, *, kubeconfig: Path, path: Path) -> Iterator[None]:
    told = {
        "KUBECONFIG": str(kubeconfig),
        "SYSTEM_NAMESPACE": SPACE,
        "POD_NAME": name,
        "POD_IP": _ADDRESSES[name],
        "CONFIG_LOGGING_NAME": "config-logging",
        "CONFIG_OBSERVABILITY_NAME": "config-observability",
        "WEBHOOK_NAME": "webhook",
        "WEBHOOK_PORT": "8443",
    }
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            ["nsenter", f"--net={path}", "sh", "-c", _KEPT, str(CACHE / name)],
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _started(kubeconfig: Path) -> None:
    """When the webhooks answer. Nobody tells us."""
    asked = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "try", "namespace": "default"}}
    asked["spec"] = {"template": {"spec": {"containers": [{"image": "try"}]}}}
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                found = _kubectl(kubeconfig, "create", "--dry-run=server", "-o", "json", "-f", "-", given=json.dumps(asked))
            except subprocess.CalledProcessError as error:
                said = error.stderr
            else:
                said = "no webhook is registered"
                if "containerConcurrency" in json.loads(found)["spec"]["template"]["spec"]:
                    return
            sys.stderr.write(f"Knative is not up: {said}\n")
            await asyncio.sleep(2)


if __name__ == "__main__":
    sys.exit(main())
