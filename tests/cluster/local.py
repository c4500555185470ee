"""A cluster with a node on this machine, in a thread.

It is the fake API server with a scheduler and a process kubelet, or, where FLYTE_TEST_KUBECONFIG names one, a real cluster with
that kubelet as a virtual node, and with that scheduler and the controller of Deployments if it has none of its own. There
everything is in a namespace that is removed afterwards; real nodes get no pods of ours, and ours gets none of others.

The server under test is no administrator: it has the ServiceAccount and the roles that config/kubernetes gives it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import yaml

from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Exists, Missing
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import CRDS, LEASES, NAMESPACES, PODS, TASK_ACTIONS, Kind, Object
from flyte_unified.testing.fake_kube import FakeKube
from flyte_unified.testing.kubelet import Deployments, Images, Kubelet, Network, Scheduler
from tests.cluster.manifests import ACCOUNT, access, access_everywhere, project_access, task_actions

REAL = os.environ.get("FLYTE_TEST_KUBECONFIG", "")
ADDRESS = os.environ.get("FLYTE_TEST_NODE_ADDRESS", "127.0.0.1")
QUEUE = os.environ.get("FLYTE_TEST_KNATIVE", "")
"""Knative's queue-proxy, in a cluster that has Knative: see ``realserver.knative``."""
"""This machine, as the API server reaches it to read logs."""
NODE_LABEL = "flyte-unified.test/node"
_START_SECONDS = 30.0
_RENEWED = timedelta(minutes=2)
_TOKEN_SECONDS = 6 * 3600
_RBAC = "rbac.authorization.k8s.io"
_ACCOUNTS = Kind("", "v1", "ServiceAccount", "serviceaccounts")
_KINDS = {
    "ServiceAccount": _ACCOUNTS,
    "Role": Kind(_RBAC, "v1", "Role", "roles"),
    "RoleBinding": Kind(_RBAC, "v1", "RoleBinding", "rolebindings"),
    "ClusterRole": Kind(_RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False),
    "ClusterRoleBinding": Kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
}

T = TypeVar("T")


class _Token(Kind):
    """The subresource of one account, as a kind whose collection it is."""

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        return _ACCOUNTS.path(namespace, self.plural, "token")


class LocalCluster:
    """``with LocalCluster(directory) as cluster``; what it is made of lives in its loop: ``do`` runs things there."""

    def __init__(self, directory: Path, *, warm: bool = True, projects: Sequence[str] = ()) -> None:
        """With ``projects`` each has a namespace of its own for development; not in a real cluster."""
        self._directory = directory
        self._places = [f"{project}-development" for project in projects]
        self._warm = warm
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="cluster")
        self.kubeconfig = directory / "kubeconfig"
        """The server's under test."""
        self.admin = Path(REAL) if REAL else directory / "admin"
        self.namespace = f"flyte-unified-test-{uuid.uuid4().hex[:8]}"
        self.server: FakeKube
        """Not in a real cluster."""
        self.kube: Kube
        """The administrator's."""
        self.kubelet: Kubelet

    def __enter__(self) -> LocalCluster:
        self._thread.start()
        self._loop = self._ready.result(_START_SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._ended.result()

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` answers, awaited in the cluster's loop."""

        async def done() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(_START_SECONDS)

    @property
    def settings(self) -> dict[str, Any]:
        """Of a server whose tasks run here."""
        return {
            "execution.launcher": "pods",
            "kubernetes.kubeconfig": str(self.kubeconfig),
            "kubernetes.namespace": "{project}-{domain}" if self._places else self.namespace,
            "kubernetes.lease_namespace": self.namespace,
            "kubernetes.lease_duration": 3.0,
            "pods.node_selector": (f"{NODE_LABEL}={self.namespace}",),
            "pods.tolerations": (f"{NODE_LABEL}={self.namespace}:NoSchedule",),
            "pods.service_account": "flyte-task",
            "server.key": base64.b64encode(bytes(range(32))).decode(),
        }

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._start(stack)
                self._ready.set_result(asyncio.get_running_loop())
                await self._over.wait()
        except BaseException as error:
            (self._ended if self._ready.done() else self._ready).set_exception(error)
        else:
            self._ended.set_result(None)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        if not REAL:
            self.server = await stack.enter_async_context(FakeKube.running())
            self.server.kubeconfig(self.admin)
            self.server.access.enforced = True
            stack.callback(self._all_allowed)
        self.kube = Kube(kubeconfig=self.admin)
        await self.kube.start()
        stack.push_async_callback(self.kube.stop)
        stack.push_async_callback(await define(self.kube))
        for place in (self.namespace, *self._places):
            await create_namespace(self.kube, place)
            stack.push_async_callback(remove_namespace, self.kube, place)
        await self._let_in()
        if not await _led(self.kube, "kube-scheduler"):
            await stack.enter_async_context(Scheduler.running(self.kube))
        if not await _led(self.kube, "kube-controller-manager"):
            await stack.enter_async_context(Deployments.running(self.kube))
        network = Network() if QUEUE else None
        if network is not None:
            await network.start()
        self.kubelet = await stack.enter_async_context(
            Kubelet.running(
                self.kube,
                directory=self._directory / "node",
                name=self.namespace,
                namespace="" if self._places else self.namespace,
                address=ADDRESS,
                labels={NODE_LABEL: self.namespace},
                capacity={"cpu": "64", "memory": "256Gi", "pods": "500"},  # nothing waits for room that no test asked to
                taints=[{"key": NODE_LABEL, "value": self.namespace, "effect": "NoSchedule"}],
                warm=self._warm,
                images=Images(Path(sys.executable), programs={"*/queue": (QUEUE,)}),
                network=network,
            )
        )
        for place in (self.namespace, *self._places):
            stack.push_async_callback(let_go, self.kube, place)

    def _all_allowed(self) -> None:
        """The server under test never asked for what its roles don't give it."""
        assert self.server.access.refused == [], self.server.access.refused[:3]

    async def grant(self, objects: Iterable[Object]) -> None:
        """Accounts and roles."""
        for obj in objects:
            await self.kube.create(_KINDS[obj["kind"]], obj)

    async def _let_in(self) -> None:
        """The server under test gets an account with its roles, and a token of it."""
        await self.grant(access_everywhere(self.namespace) if self._places else access(self.namespace))
        for place in self._places:
            await self.grant(project_access(place))
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": self.namespace},
            "spec": {"expirationSeconds": _TOKEN_SECONDS},
        }
        granted = await self.kube.create(_Token("", "v1", "TokenRequest", ACCOUNT), asked)
        config = yaml.safe_load(self.admin.read_text())
        current = next(one["context"] for one in config["contexts"] if one["name"] == config["current-context"])
        config["users"] = [{"name": ACCOUNT, "user": {"token": granted["status"]["token"]}}]
        config["contexts"] = [{"name": "server", "context": {"cluster": current["cluster"], "user": ACCOUNT}}]
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(yaml.safe_dump({**config, "current-context": "server"}))


async def define(kube: Kube) -> Callable[[], Awaitable[None]]:
    """TaskActions are served. What is answered undoes it: what was there before is there again."""
    definition = task_actions()
    name = definition["metadata"]["name"]
    try:
        before = await kube.get(CRDS, name)
    except Missing:
        await kube.create(CRDS, definition)
        await _served(kube, name)
        return lambda: kube.delete(CRDS, name)
    await kube.replace(CRDS, {**before, "spec": definition["spec"]})
    await _served(kube, name)

    async def restore() -> None:
        now = await kube.get(CRDS, name)
        await kube.replace(CRDS, {**now, "spec": before["spec"]})

    return restore


async def _served(kube: Kube, name: str) -> None:
    served = asyncio.Event()

    def on_event(change: str, obj: Object) -> None:
        conditions = (obj.get("status") or {}).get("conditions") or []
        if any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions):
            served.set()

    informer = Informer(kube, CRDS, fields=f"metadata.name={name}", on_event=on_event)
    await informer.start()
    try:
        await asyncio.wait_for(served.wait(), _START_SECONDS)
    finally:
        await informer.stop()


async def create_namespace(kube: Kube, name: str) -> None:
    """With a default account whose pods get no token: without one, tasks start from a fork server."""
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    try:
        await kube.create(_ACCOUNTS, {**account, "automountServiceAccountToken": False})
    except Exists:
        await kube.patch(_ACCOUNTS, "default", {"automountServiceAccountToken": False}, namespace=name)


async def remove_namespace(kube: Kube, name: str) -> None:
    """A server without controllers keeps the empty shell."""
    await kube.delete(NAMESPACES, name)


async def let_go(kube: Kube, namespace: str) -> None:
    """Nothing holds the namespace: whoever would release its objects has ended."""
    for kind in (TASK_ACTIONS, PODS):
        with contextlib.suppress(Missing):  # the kind, where nobody defined it
            async for items, _ in kube.pages(kind, namespace=namespace):
                for obj in items:
                    await _drop(kube, kind, obj["metadata"]["name"], namespace)


async def _drop(kube: Kube, kind: Kind, name: str, namespace: str) -> None:
    with contextlib.suppress(Missing):
        await kube.patch(kind, name, {"metadata": {"finalizers": None}}, namespace=namespace)
        await kube.delete(kind, name, namespace=namespace, grace=0 if kind is PODS else None)


async def _led(kube: Kube, part: str) -> bool:
    """Whether the cluster has that part of a control plane, by the lease that it renews."""
    try:
        lease = await kube.get(LEASES, part, namespace="kube-system")
    except Missing:
        return False
    spec = lease.get("spec") or {}
    renewed = datetime.fromisoformat(spec.get("renewTime") or "1970-01-01T00:00:00Z")
    return bool(spec.get("holderIdentity")) and datetime.now(UTC) - renewed < _RENEWED
