"""A cluster for tests: the API server with a handle on its inside."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from aiohttp import web

from flyte_unified.testing.fake_kube.access import ADMIN, Access
from flyte_unified.testing.fake_kube.admission import Admission
from flyte_unified.testing.fake_kube.api import Api, Call, Deletion
from flyte_unified.testing.fake_kube.collector import Collector
from flyte_unified.testing.fake_kube.errors import no_resource
from flyte_unified.testing.fake_kube.faults import Faults
from flyte_unified.testing.fake_kube.logs import Logs
from flyte_unified.testing.fake_kube.nodes import Nodes
from flyte_unified.testing.fake_kube.resources import Object, Registry, Resource
from flyte_unified.testing.fake_kube.server import Server
from flyte_unified.testing.fake_kube.store import Store
from flyte_unified.testing.fake_kube.subresources import Subresources

_SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_SHUTDOWN_SECONDS = 1.0


class FakeKube:
    """A Kubernetes API server in this event loop. ``async with FakeKube.running() as cluster``."""

    def __init__(self, *, service_accounts: bool = False) -> None:
        self.registry = Registry()
        self.store = Store()
        admission = Admission(self.store, service_accounts=service_accounts)
        self.api = Api(self.store, self.registry, admission=admission)
        self._collector = Collector(self.api, self.store, self.registry, admission=admission)
        self.access = Access(api=self.api, store=self.store)
        """Users, and the switch ``enforced`` that makes their roles count."""
        self._logs = Logs(api=self.api, registry=self.registry)
        self._nodes = Nodes(api=self.api, store=self.store, registry=self.registry)
        below = Subresources(api=self.api, store=self.store, registry=self.registry)
        self._server = Server(
            api=self.api, store=self.store, registry=self.registry, subresources=below, logs=self._logs, access=self.access
        )
        self.url = ""
        self.access.add("admin", ADMIN)
        for name in _SYSTEM_NAMESPACES:
            self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    @classmethod
    @asynccontextmanager
    async def running(
        cls, *, host: str = "127.0.0.1", port: int = 0, service_accounts: bool = False
    ) -> AsyncGenerator[FakeKube]:
        """The server on ``host``; port 0 takes a free one. With ``service_accounts``, pods get their account's token."""
        cluster = cls(service_accounts=service_accounts)
        runner = web.AppRunner(
            cluster._server.application(), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            address = runner.addresses[0]
            cluster.url = f"http://{address[0]}:{address[1]}"
            yield cluster
        finally:
            cluster._server.close_watches()
            await asyncio.sleep(0)
            await runner.cleanup()
            await cluster._logs.stop()

    @property
    def faults(self) -> Faults:
        return self._server.faults

    @property
    def requests(self) -> Counter[tuple[str, str, str]]:
        """Requests by verb, resource and subresource, the refused ones too."""
        return self._server.requests

    @property
    def writes(self) -> Counter[tuple[str, str, str]]:
        """Requests that changed something, by verb, resource and subresource."""
        return self._server.writes

    def kubeconfig(self, path: Path, *, token: str = "admin") -> Path:
        """Write a configuration for clients to ``path``; ``token`` says who they are."""
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "admin", "namespace": "default"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(config))
        return path

    def apply(self, content: Object, *, subresource: str = "") -> Object:
        """Create or replace, under the same rules as a request; ``subresource`` may be status. Raises ApiError."""
        resource = self._of_kind(content)
        meta = content.get("metadata", {})
        key = (meta.get("namespace") or "default" if resource.namespaced else "", meta.get("name", ""))
        content = {**content, "metadata": {**meta}}
        if self.store.get(resource.shelf, key) is None:
            return self.api.create(resource, key[0], content, Call()).object()
        content["metadata"].setdefault("resourceVersion", str(self.api.get(resource, key).version))
        return self.api.update(resource, key, content, Call(), subresource=subresource).object()

    def delete(
        self,
        plural: str,
        name: str,
        *,
        namespace: str = "default",
        group: str = "",
        grace: int | None = None,
        propagation: str = "",
    ) -> None:
        """Delete one object; ``grace`` in seconds, ``propagation`` as in DeleteOptions. Raises ApiError 404."""
        resource = self._named(plural, group)
        key = (namespace if resource.namespaced else "", name)
        self.api.delete(resource, key, Deletion(grace=grace, propagation=propagation), Call())

    def get(self, plural: str, name: str, *, namespace: str = "default", group: str = "") -> Object:
        """One object. Raises ApiError 404."""
        resource = self._named(plural, group)
        return self.api.get(resource, (namespace if resource.namespaced else "", name)).object()

    def objects(self, plural: str, *, group: str = "", namespace: str = "") -> list[Object]:
        """Every object of a resource, in the order of their names."""
        shelf = self.store.shelf(self._named(plural, group).shelf)
        return [shelf.records[key].object() for key in shelf.sorted_keys() if not namespace or key[0] == namespace]

    def send_bookmarks(self) -> None:
        """Let watches that take bookmarks have one now; otherwise they come when nothing else came for a minute."""
        self._server.bookmark()

    def set_log(self, pod: str, text: str, *, container: str, namespace: str = "default") -> None:
        """What a container wrote, for pods that no kubelet runs."""
        self._logs.texts[namespace, pod, container] = text

    def lose_node(self, name: str) -> None:
        """The node falls silent. Its pods are deleted and stay, terminating, until it is back or removed."""
        self._nodes.lose(name)

    def remove_node(self, name: str) -> None:
        """The node is gone, and its pods with it."""
        self._nodes.remove(name)

    def _named(self, plural: str, group: str) -> Resource:
        found = self.registry.named(plural, group)
        if found is None:
            raise no_resource()
        return found

    def _of_kind(self, content: Object) -> Resource:
        found = self.registry.of_kind(content.get("apiVersion", ""), content.get("kind", ""))
        if found is None:
            raise no_resource()
        return found
