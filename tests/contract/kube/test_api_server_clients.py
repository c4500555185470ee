"""Clients that nobody here wrote find what they look for: the kubernetes package, its asyncio half, kubectl."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import yaml
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config
from kubernetes.aio import watch as aio_watch
from kubernetes.dynamic import DynamicClient
from kubernetes.informer import SharedInformer

from tests.contract.kube.conftest import REAL
from tests.contract.kube.raw import MERGE, PATIENCE, Raw, config_map, pod
from tests.contract.kube.test_api_server_custom import DEFINITIONS, definition

KUBECTL = os.environ.get("FLYTE_TEST_KUBECTL") or shutil.which("kubectl")


@pytest.fixture
def config(api: Raw, tmp_path: Path) -> Path:
    """The clients' configuration."""
    return Path(REAL) if REAL else tmp_path / "kubeconfig"


def typed(config: Path, namespace: str) -> list[str]:
    """The generated client: models, lists, a watch."""
    with kubernetes.config.new_client_from_config(str(config)) as client:
        core = kubernetes.client.CoreV1Api(client)
        container = kubernetes.client.V1Container(name="main", image="example.org/image:1")
        meta, spec = kubernetes.client.V1ObjectMeta(name="p"), kubernetes.client.V1PodSpec(containers=[container])
        core.create_namespaced_pod(namespace, kubernetes.client.V1Pod(metadata=meta, spec=spec))
        core.patch_namespaced_pod_status("p", namespace, {"status": {"phase": "Running"}})
        version = core.list_namespaced_pod(namespace).metadata.resource_version
        core.delete_namespaced_pod("p", namespace)
        events = kubernetes.watch.Watch().stream(
            core.list_namespaced_pod, namespace, resource_version=version, timeout_seconds=1
        )
        told = [f"{event['type']} {event['object'].status.phase}" for event in events]
        try:
            core.read_namespaced_pod("p", namespace)
        except kubernetes.client.ApiException as error:
            told.append(json.loads(error.body)["reason"])
    return told


async def test_the_official_client_works(api: Raw, config: Path):
    """Typed."""
    told = await asyncio.to_thread(typed, config, api.namespace)
    assert told == ["MODIFIED Running", "DELETED Running", "NotFound"]


async def test_its_informer_follows(api: Raw, config: Path):
    """List, then watch, in its own thread."""
    told: queue.Queue[str] = queue.Queue()
    with kubernetes.config.new_client_from_config(str(config)) as client:
        core = kubernetes.client.CoreV1Api(client)
        informer = SharedInformer(core.list_namespaced_config_map, namespace=api.namespace, label_selector="followed")
        for kind in ("ADDED", "MODIFIED", "DELETED"):
            informer.add_event_handler(kind, lambda one, kind=kind: told.put(f"{kind} {one.metadata.name}"))
        await api("POST", "~configmaps", config_map("a", labels={"followed": ""}))
        informer.start()
        assert await asyncio.to_thread(told.get, timeout=PATIENCE) == "ADDED a"
        await api("PATCH", "~configmaps/a", {"data": {"k": "v"}}, MERGE)
        assert await asyncio.to_thread(told.get, timeout=PATIENCE) == "MODIFIED a"
        await api("DELETE", "~configmaps/a")
        assert await asyncio.to_thread(told.get, timeout=PATIENCE) == "DELETED a"
        stopped = asyncio.create_task(asyncio.to_thread(informer.stop))
        while not stopped.done():  # it looks up at the next event
            await api("POST", "~configmaps", {"metadata": {"generateName": "b-", "labels": {"followed": ""}}})
        await stopped


async def test_its_asyncio_half_watches(api: Raw, config: Path):
    """The same objects as models."""
    async with await aio_config.new_client_from_config(str(config)) as client:
        core = aio_client.CoreV1Api(client)
        await core.create_namespaced_config_map(api.namespace, {"metadata": {"name": "a", "labels": {"l": "1"}}})
        version = (await core.list_namespaced_config_map(api.namespace)).metadata.resource_version
        await core.delete_namespaced_config_map("a", api.namespace)
        async with aio_watch.Watch() as watch:
            stream = watch.stream(core.list_namespaced_config_map, api.namespace, resource_version=version, label_selector="l")
            event = await anext(aiter(stream))
        assert (event["type"], event["object"].metadata.name) == ("DELETED", "a")


def dynamic(config: Path, group: str, namespace: str) -> list[Any]:
    """The client that learns kinds by discovery."""
    with kubernetes.config.new_client_from_config(str(config)) as client:
        things = DynamicClient(client).resources.get(api_version=f"{group}/v1", kind="Thing")
        content = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"size": 1}}
        made = things.create(body=content, namespace=namespace)
        content["spec"] = {"size": 2}
        applied = things.server_side_apply(body=content, namespace=namespace, field_manager="test", force_conflicts=True)
        return [made.spec.size, made.spec.default, applied.spec.size, len(things.get(namespace=namespace).items)]


async def test_the_dynamic_client_learns_custom_kinds(api: Raw, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And applies."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))  # where it keeps what it learned
    group = f"{api.namespace}.example.org"
    await api("POST", DEFINITIONS, definition(group))
    try:
        while (await api("GET", f"~{group}/v1@things")).status == 404:
            continue
        assert await asyncio.to_thread(dynamic, config, group, api.namespace) == [1, "there", 2, 1]
    finally:
        await api("DELETE", f"{DEFINITIONS}/things.{group}")


@pytest.fixture
async def kubectl(config: Path, api: Raw, tmp_path: Path) -> Any:
    """The program in the test's namespace. What it says, and how it ended."""
    if KUBECTL is None:
        pytest.skip("there is no kubectl in PATH, and FLYTE_TEST_KUBECTL names none")

    async def run(*arguments: str, content: Any = None) -> tuple[int, str]:
        words = [str(KUBECTL), f"--kubeconfig={config}", f"--cache-dir={tmp_path}", f"--namespace={api.namespace}", *arguments]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        async with asyncio.timeout(3 * PATIENCE):
            output, _ = await process.communicate(yaml.safe_dump_all(content).encode() if content else b"")
        return process.returncode or 0, output.decode()

    return run


def workload(image: str, **variables: str) -> dict[str, Any]:
    env = [{"name": name, "value": value} for name, value in variables.items()]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": image, "env": env}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


async def test_kubectl_applies_and_shows(api: Raw, kubectl: Any):
    """Applied again it changes what changed; a dry run on the server changes nothing."""
    assert await kubectl("apply", "-f", "-", content=[workload("i:1", A="1", B="2")]) == (0, "deployment.apps/d created\n")
    assert await kubectl("apply", "-f", "-", content=[workload("i:1", A="1", B="2")]) == (0, "deployment.apps/d unchanged\n")
    dry = await kubectl("apply", "--dry-run=server", "-f", "-", content=[workload("i:2")])
    assert dry == (0, "deployment.apps/d configured (server dry run)\n")
    assert await kubectl("apply", "-f", "-", content=[workload("i:1", A="9")]) == (0, "deployment.apps/d configured\n")
    container = (await api("GET", "~apps/v1@deployments/d")).body["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "A", "value": "9"}]
    wrong = await kubectl("apply", "-f", "-", content=[workload("i:1") | {"foo": 1}])
    assert wrong[0] == 1 and 'unknown field "foo"' in wrong[1]
    status, shown = await kubectl("get", "deployments")
    assert status == 0 and shown.split()[0] == "NAME" and "d " in shown


async def test_kubectl_follows_a_pod(api: Raw, kubectl: Any):
    """describe, wait, get -w, logs, delete."""
    assert (await kubectl("apply", "-f", "-", content=[pod("p")]))[0] == 0
    assert re.search(r"^Status: +Pending$", (await kubectl("describe", "pod", "p"))[1], re.MULTILINE)
    waiting = asyncio.create_task(kubectl("wait", "pod/p", "--for=jsonpath={.status.phase}=Running", "--timeout=20s"))
    await api("PATCH", "~pods/p/status", {"status": {"phase": "Running"}}, MERGE)
    assert await waiting == (0, "pod/p condition met\n")
    if not REAL:
        assert await kubectl("logs", "p") == (0, "")
    assert (await kubectl("get", "pods", "p", "--watch", "--request-timeout=1s"))[1].count("Running") == 1
    status, said = await kubectl("delete", "pod", "p", "--timeout=10s")
    assert status == 0 and 'pod "p" deleted' in said
    assert (await kubectl("get", "pod", "p"))[1] == 'Error from server (NotFound): pods "p" not found\n'


async def test_kubectl_knows_custom_kinds(api: Raw, kubectl: Any):
    """As soon as they are established."""
    group = f"{api.namespace}.example.org"
    assert (await kubectl("apply", "-f", "-", content=[definition(group)]))[0] == 0
    assert (await kubectl("wait", f"crd/things.{group}", "--for=condition=Established", "--timeout=10s"))[0] == 0
    while (await api("GET", f"~{group}/v1@things")).status == 404:
        continue
    assert "Thing" in (await kubectl("api-resources", f"--api-group={group}"))[1]
    content = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"size": 3}}
    assert (await kubectl("apply", "--server-side", "-f", "-", content=[content]))[0] == 0
    status, shown = await kubectl("get", f"things.{group}")
    assert status == 0 and shown.split()[:5] == ["NAME", "SIZE", "AGE", "a", "3"]
    assert (await kubectl("delete", f"crd/things.{group}", "--timeout=10s"))[0] == 0


@pytest.mark.skipif(bool(REAL), reason="is about the fake as a program")
async def test_it_serves_a_terminal(tmp_path: Path):
    """Until it is interrupted; what it says can be pasted into a shell."""
    config = tmp_path / "config"
    words = [sys.executable, "-m", "flyte_unified.testing.fake_kube", "--kubeconfig", str(config)]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(3 * PATIENCE):
        url, export = [(await process.stdout.readline()).decode().strip() for _ in range(2)]
        assert export == f"export KUBECONFIG={config}"
        raw = Raw(config, "default")
        assert raw.url == url and (await raw("GET", "/version")).body["major"] == "1"
        await raw.close()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
