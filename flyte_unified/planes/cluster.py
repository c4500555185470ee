"""The plane of a cluster: tasks are its pods and its operators' resources, and whoever holds the lease carries them out.

All replicas serve calls and logs. One leads: it takes the lead in the ledger too, so that a leader who was and does not know
yet writes nothing more, and then goes on where the last one ended, from the ledger and from what stands in the cluster.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from flyte_unified.actions.mirror import Mirror
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.tasks import to_its_end
from flyte_unified.dataproxy.pod_logs import PodLines
from flyte_unified.executor.controller import Controller
from flyte_unified.executor.slots import Capacity, Slots
from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import POD_TEMPLATES, Object
from flyte_unified.kube.lease import Elector
from flyte_unified.launchers.dispatch import Launchers
from flyte_unified.launchers.objects.logs import LogKeeper
from flyte_unified.launchers.pods.launcher import PodLauncher
from flyte_unified.launchers.resources.launcher import ResourceLauncher
from flyte_unified.ledger.api import EXECUTOR
from flyte_unified.planes.api import Parts
from flyte_unified.planes.campaign import Campaign
from flyte_unified.planes.connectors import ConnectorParts
from flyte_unified.planes.pods import image_config, operator_config, patience, pod_config
from flyte_unified.plugins.api import Job, Pod, Resource
from flyte_unified.plugins.cluster import ClusterPlugins, no_images
from flyte_unified.plugins.operators.operators import Operators
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.images import ImagePods
from flyte_unified.secrets.objects import ObjectVault
from flyte_unified.settings import Settings

_EVERYTHING = Capacity(cpu=float("inf"), memory=1 << 62)
"""What there is room for is the cluster's scheduler's to say."""


class Cluster:
    """``controller`` is there while this server leads."""

    def __init__(self, settings: Settings, parts: Parts) -> None:
        cluster = settings.kubernetes
        self._settings = settings
        self._kube = Kube(kubeconfig=Path(cluster.kubeconfig) if cluster.kubeconfig else None, context=cluster.context)
        self._parts = replace(parts, options=replace(parts.options, namespace=self._namespace))
        self._identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{secrets.token_hex(4)}"
        self._elector = Elector(
            self._kube,
            name=cluster.lease,
            namespace=cluster.lease_namespace or cluster.scope or "default",
            identity=self._identity,
            duration=cluster.lease_duration,
            renew=cluster.lease_duration * 2 / 3,
            retry=cluster.lease_duration / 7.5,
            clock=parts.clock,
            last_epoch=lambda: parts.ledger.last_epoch(EXECUTOR),
        )
        places = {cluster.scope, settings.pods.template_namespace or cluster.scope} if cluster.scope else {""}
        self._templates = [Informer(self._kube, POD_TEMPLATES, namespace=place, on_event=_nothing) for place in places]
        self.vault = ObjectVault(self._kube, template=cluster.namespace)
        self._config = config = pod_config(
            settings.pods, store=parts.environment, templates=self._template, secrets=self.vault.lookup
        )
        pods = Pods(config)
        self._operators = Operators(pods, operator_config(settings.operators))
        self._connectors = ConnectorParts(settings, parts, reveal=self.vault.reveal)
        images = ImagePods(pods, image_config(settings.images), config.data).describe if settings.images.build else no_images
        self._plugins = ClusterPlugins(
            pods=pods, operators=self._operators, images=images, connectors=self._connectors.describe
        )
        self._campaign = Campaign(lambda: self._elector.run(self._lead))
        self._standing: asyncio.Task[None] | None = None
        self.lines = self._connectors.lines(PodLines(kube=self._kube, ledger=parts.ledger, store=parts.store, base=parts.logs))
        self.controller: Controller | None = None
        self.scheduler = parts.scheduler

    @property
    def leader(self) -> str:
        return self._elector.holder

    async def start(self) -> None:
        await self._kube.start()
        self.vault.start()
        self._stand()

    async def drain(self, on: bool) -> None:
        """Leaves the lead to another, or stands for it again."""
        if on:
            await self._withdraw()
        elif self._standing is None or self._standing.done():
            self._stand()

    async def stop(self, *, grace: float) -> None:
        """Whatever runs in the cluster goes on."""
        await self.close()

    async def close(self) -> None:
        await self._withdraw()
        self._connectors.close()
        await self.vault.stop()
        await self._kube.stop()

    async def _withdraw(self) -> None:
        if self._standing is not None:
            self._standing.cancel()
            await asyncio.wait((self._standing,))

    def _stand(self) -> None:
        self._standing = asyncio.create_task(self._campaign.last(), name="election")

    async def _lead(self, epoch: int) -> None:
        """One term."""
        await self._parts.ledger.take_lead(EXECUTOR, epoch, self._identity)
        controller = self._one_term(epoch)
        try:
            await asyncio.gather(self.vault.followed(), *(templates.start() for templates in self._templates))
            await controller.start()
            self.controller = controller
            await self._parts.scheduler.start()
            await self._parts.postman.start()
            if self._parts.apps is not None:
                self._parts.apps.lead(self._kube.guarded(partial(self._elector.check, epoch)), self._config)
            self._campaign.under_way()
            await controller.deposed()
        finally:
            self.controller = None
            # A lease that is lost meanwhile cancels us once more.
            await to_its_end(self._end_term(controller), name=f"end of term {epoch}")

    async def _end_term(self, controller: Controller) -> None:
        """Nothing of it goes on beside the next one: the last first, and all of them though one fails."""
        async with AsyncExitStack() as term:
            for templates in self._templates:
                term.push_async_callback(templates.stop)
            term.push_async_callback(controller.close)
            term.push_async_callback(self._parts.scheduler.close)
            term.push_async_callback(self._parts.postman.close)
            if self._parts.apps is not None:
                term.push_async_callback(self._parts.apps.depose)

    def _one_term(self, epoch: int) -> Controller:
        parts, settings, cluster = self._parts, self._settings, self._settings.kubernetes
        kube = self._kube.guarded(partial(self._elector.check, epoch))
        mirror = Mirror(
            ledger=parts.ledger,
            productions=parts.productions,
            kube=kube,
            store=parts.store,
            clock=parts.clock,
            namespace=self._namespace,
            watched=cluster.scope,
            epoch=epoch,
            ttl=cluster.order_ttl,
        )
        logs = LogKeeper(
            kube=kube, store=parts.store, base=parts.logs, limit=settings.execution.log_max_bytes, clock=parts.clock
        )
        pods = PodLauncher(
            kube=kube,
            namespace=self._namespace,
            scope=cluster.scope,
            owner=mirror.owner,
            logs=logs,
            clock=parts.clock,
            patience=patience(settings.pods),
        )
        resources = ResourceLauncher(
            kube=kube,
            namespace=self._namespace,
            scope=cluster.scope,
            owner=mirror.owner,
            logs=logs,
            clock=parts.clock,
            readers=self._operators.readers,
            patience=patience(settings.pods),
        )
        return parts.controller(
            queue=mirror,
            describe=self._plugins.describe,
            launcher=Launchers({Pod: pods, Resource: resources, Job: self._connectors.launcher()}),
            slots=Slots(_EVERYTHING, parts.queues.bounds),
            epoch=epoch,
        )

    def _namespace(self, action: ActionKey) -> str:
        return self._settings.kubernetes.namespace_of(action.project, action.domain)

    def _template(self, namespace: str, name: str) -> Object | None:
        """A PodTemplate as the cluster has it."""
        found = (templates.get(name, namespace) for templates in self._templates)
        return next((template for template in found if template is not None), None)


def _nothing(change: str, obj: Object) -> None:
    """Templates are looked at when a pod is built."""
