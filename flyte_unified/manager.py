"""The composition root: from settings to a running server, one room after the other. Read it top to bottom.

Laptop, cluster and fixture differ by a ``Settings`` value and by nothing else.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyteidl2.core import execution_pb2
from google.protobuf.message import DecodeError

from flyte_unified.actions.handlers import ActionsHandlers, QueueHandlers, StateHandlers
from flyte_unified.actions.recovery import Recovery
from flyte_unified.actions.service import Actions
from flyte_unified.apps.handlers import AppLogsHandlers, AppsHandlers, links
from flyte_unified.apps.service import Apps
from flyte_unified.artifacts.elsewhere import ProducedElsewhere
from flyte_unified.artifacts.handlers import ArtifactsHandlers
from flyte_unified.artifacts.produced import Produced
from flyte_unified.artifacts.service import Artifacts
from flyte_unified.cache.handlers import CacheHandlers, ScopedCacheHandlers
from flyte_unified.cache.service import Cache
from flyte_unified.console import places
from flyte_unified.console.pages import Pages
from flyte_unified.core.clock import Clock, SystemClock
from flyte_unified.core.errors import FailedPrecondition, NotFound
from flyte_unified.core.http import Request, Response, Route
from flyte_unified.core.ids import action_key
from flyte_unified.core.queues import Queues
from flyte_unified.dataproxy.downloads import Downloads
from flyte_unified.dataproxy.handlers import ClusterHandlers, DataProxyHandlers, RunLogsHandlers
from flyte_unified.dataproxy.logs import LogTail
from flyte_unified.dataproxy.translator.handlers import TranslatorHandlers
from flyte_unified.dataproxy.uploads import Uploads
from flyte_unified.db import adapters as databases
from flyte_unified.db.api import Notice
from flyte_unified.events.handlers import EventsHandlers
from flyte_unified.executor.controller import Controller
from flyte_unified.executor.judge import Options
from flyte_unified.executor.policy import Backoff
from flyte_unified.identity.handlers import AuthMetadataHandlers, IdentityHandlers
from flyte_unified.identity.service import Identities
from flyte_unified.images import task as images
from flyte_unified.images.environments import Environments
from flyte_unified.images.handlers import ImageHandlers
from flyte_unified.launchers.processes.interpreters import choose
from flyte_unified.ledger.api import Ledger, action_from
from flyte_unified.notifications.parts import NotificationParts
from flyte_unified.operations.admission import Admission
from flyte_unified.operations.drain import Drain
from flyte_unified.planes.api import Parts, Plane
from flyte_unified.planes.apps import apps_of
from flyte_unified.planes.laptop import Laptop
from flyte_unified.projects.domain_handlers import DomainsHandlers
from flyte_unified.projects.handlers import ProjectsHandlers
from flyte_unified.projects.service import SYSTEM, Projects
from flyte_unified.rpc.edge import Edge
from flyte_unified.rpc.metrics import Metrics
from flyte_unified.rpc.registry import Method, Registry
from flyte_unified.rpc.tokens import RunTokens
from flyte_unified.runs.create import Creator
from flyte_unified.runs.details import Reader
from flyte_unified.runs.handlers import RunsHandlers
from flyte_unified.runs.internal import InternalRunsHandlers
from flyte_unified.secrets.handlers import SecretsHandlers
from flyte_unified.secrets.service import Secrets
from flyte_unified.secrets.table import TableVault
from flyte_unified.settings import LOOPBACK, Settings
from flyte_unified.settings_service.handlers import SettingsHandlers
from flyte_unified.settings_service.service import ScopedSettings
from flyte_unified.storage import adapters as storage
from flyte_unified.storage.signing import load_key, read_key
from flyte_unified.tasks.handlers import TasksHandlers
from flyte_unified.tasks.service import Tasks
from flyte_unified.tracked.handlers import TrackedRunsHandlers
from flyte_unified.tracked.service import TrackedRuns
from flyte_unified.tracked.silence import Silence
from flyte_unified.triggers.catchup import CatchUp, Policy
from flyte_unified.triggers.handlers import TriggersHandlers
from flyte_unified.triggers.inputs import stored_inputs
from flyte_unified.triggers.offers import Offers
from flyte_unified.triggers.scheduler import Scheduler
from flyte_unified.triggers.service import Triggers

if TYPE_CHECKING:
    from flyte_unified.apps.cluster.launcher import ClusterApps


class Manager:
    """One server. ``sockets`` are bound to the one port and belong to it from now on."""

    def __init__(self, settings: Settings, *, sockets: Sequence[socket.socket]) -> None:
        self._settings = settings
        self._sockets = sockets
        self._ready = False
        self.address = settings.base_url(sockets[0].getsockname()[1])
        self.interpreter, self.interpreter_reason = choose(settings.execution.python, env=os.environ, directory=Path.cwd())

        # The truth, and where bytes are.
        directory, clock = settings.data.dir, SystemClock()
        key = read_key(settings.server.key) if settings.server.key else load_key(directory / "key")
        self._database, self._feed = databases.choose(
            settings.database, file=settings.database_file, tell=self._changed, notice=self._noticed
        )
        self._ledger = Ledger(database=self._database, clock=clock)
        self.storage = storage.choose(settings.storage, key=key, clock=clock)
        self._store = self.storage.store

        # What runs refer to.
        self.projects = Projects(
            database=self._database, clock=clock, domains=settings.projects.domains, seed=settings.projects.seed
        )
        self._queues = Queues(settings.queues.max_concurrency)
        self._told = NotificationParts(
            settings.notifications, key=key, address=self.address, database=self._database, ledger=self._ledger, clock=clock
        )
        checks = (self._queues.check_run, self._told.notifications.check)
        self._triggers = Triggers(database=self._database, clock=clock, checks=checks)
        tasks = self._tasks = Tasks(
            database=self._database, ledger=self._ledger, projects=self.projects, triggers=self._triggers, clock=clock
        )
        self._artifacts = Artifacts(
            database=self._database, triggers=self._triggers, clock=clock, require_project=self.projects.check
        )
        self._produced = Produced(artifacts=self._artifacts, clock=clock)
        self._productions = ProducedElsewhere(produced=self._produced, ledger=self._ledger, store=self._store)
        self._cache = self._catalog(clock)
        self._secrets = TableVault(database=self._database, key=key)
        identities = Identities(name=settings.identity.name, email=settings.identity.email)
        tokens = RunTokens(key, subject=identities.owner.subject)

        # What carries actions to their end.
        self._scoped = ScopedSettings(
            database=self._database,
            clock=clock,
            require_domain=self.projects.domains.check,
            require_project=self.projects.check,
            queues=self._queues,
        )
        creator = self._creator(tasks, clock)
        self._apps, self._cluster_apps = self._apps_here(clock)
        self.plane = self._plane(tokens, creator, tasks, clock)
        logs = LogTail(ledger=self._ledger, lines=self.plane.lines)
        pages = Pages(ledger=self._ledger, store=self._store, logs=logs)

        # What clients call.
        self.registry = Registry()
        self._add_all(creator, tasks, identities, logs=logs, clock=clock)
        self._drain = Drain(self.plane)
        self._add_operations(Admission(settings, key=key), clock)
        self._edge = self._one_port(tokens, pages)

    async def start(self) -> None:
        """Ready when it returns. Raises what keeps it from starting; then call ``kill``."""
        await self._database.start()
        if self._feed is not None:
            await self._feed.start()
        await self._store.start()
        await self.projects.start()
        if self._settings.images.build:
            domains = [domain.id for domain in await self.projects.domains.all()]
            for domain in dict.fromkeys((*domains, images.DOMAIN)):
                task, spec = images.build_image(SYSTEM, domain, cached=self._settings.execution.launcher == "pods")
                await self._tasks.seed(task, spec, deployed_by=SYSTEM)
        await self._cache.start()
        await self._edge.start(self._sockets)
        await self.plane.start()
        await self._apps.start()
        self._silence.start()
        self._ready = True

    async def stop(self) -> None:
        """In order: tasks end as interruptions, streams are told, what was accepted is stored."""
        self._ready = False
        try:
            grace = self._settings.server.shutdown_grace
            await asyncio.gather(self.plane.stop(grace=grace), self._apps.stop(grace=grace))
        finally:
            await self._close(grace=0.5)

    async def kill(self) -> None:
        """At once; tasks that outlive the server are found by the next one."""
        self._ready = False
        await self.plane.close()
        await self._close(grace=0.0)

    async def _close(self, *, grace: float) -> None:
        self._ledger.changes.close()
        await self._apps.close()
        await self._silence.stop()
        await self._edge.stop(grace)
        await self._store.stop()
        if self._feed is not None:
            await self._feed.stop()
        await self._database.stop()

    # Rooms, in the order of the constructor

    def _changed(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """What another replica changed of actions."""
        self._ledger.changes.publish(map(action_from, rows))

    def _noticed(self, notice: Notice | None) -> None:
        """What another replica changed beside actions."""
        self.projects.noticed(notice)
        self._cache.noticed(notice)
        self._triggers.noticed(notice)
        self._scoped.noticed(notice)
        self._apps.noticed(notice)

    def _plane(self, tokens: RunTokens, creator: Creator, tasks: Tasks, clock: Clock) -> Plane:
        triggers = self._settings.triggers
        parts = Parts(
            database=self._database,
            ledger=self._ledger,
            store=self._store,
            catalog=self._cache,
            produced=self._produced,
            productions=self._productions,
            clock=clock,
            options=self._options(tokens),
            queues=self._queues,
            logs=f"{self._store.base(storage.DATA)}/_logs",
            environment=self.storage.environment,
            secrets=self._secrets,
            connectors=self._apps.sites.connectors,
            apps=self._cluster_apps,
            scheduler=Scheduler(
                triggers=self._triggers,
                offers=Offers(find=self._artifacts.find, specs=tasks),
                create=creator.create,
                clock=clock,
                catch_up=CatchUp(Policy(triggers.catch_up), triggers.catch_up_limit),
            ),
            postman=self._told.postman,
        )
        if self._settings.execution.launcher == "processes":
            return Laptop(self._settings, parts, interpreter=self.interpreter)
        try:
            from flyte_unified.planes.cluster import Cluster  # a laptop has no need of it
        except ModuleNotFoundError as error:
            raise FailedPrecondition(
                f"execution.launcher = pods needs {error.name}: pip install 'flyte-unified[cluster]'"
            ) from error
        return Cluster(self._settings, parts)

    def _options(self, tokens: RunTokens) -> Options:
        settings = self._settings
        base = settings.server.task_url.rstrip("/") or self.address
        execution = settings.execution
        return Options(
            endpoint=lambda run: f"{base}/t/{tokens.token(run)}",
            raw_root=f"{self._store.base(storage.DATA)}/_raw",
            log_link=lambda action, attempt: self.address + places.log(action, attempt),
            apps=self._apps.pattern,
            interpreter=str(self.interpreter),
            system_retries=execution.system_retries,
            system_backoff=Backoff(
                base=execution.retry_backoff, factor=execution.retry_backoff_factor, cap=execution.retry_backoff_max
            ),
            kill_grace=execution.kill_grace,
        )

    def _add_all(self, creator: Creator, tasks: Tasks, identities: Identities, *, logs: LogTail, clock: Clock) -> None:
        """Flyte's own services."""
        reader = Reader(ledger=self._ledger, data=self._store, max_bytes=self._settings.server.max_message_bytes)
        self._add_execution(clock)
        self._add_runs(creator, reader)
        self._add_tracked(tasks, reader, clock)
        self._add_data(tasks, reader, logs)
        self._add_catalogues(tasks, identities)
        self._add_scopes(clock)

    def _add_execution(self, clock: Clock) -> None:
        """What a running task calls."""
        actions = Actions(
            ledger=self._ledger,
            clock=clock,
            recovery=Recovery(ledger=self._ledger, exists=self._exists),
            read_error=self._read_error,
            owns=self._store.owns,
            queues=self._queues,
            announce=self._told.notifications.of_condition,
            token_required=self._settings.server.host not in LOOPBACK,
        )
        self.registry.add("flyteidl2.actions.ActionsService", ActionsHandlers(actions=actions, ledger=self._ledger))
        self.registry.add("flyteidl2.workflow.QueueService", QueueHandlers(actions=actions))
        self.registry.add("flyteidl2.workflow.StateService", StateHandlers(actions=actions, ledger=self._ledger))
        events = EventsHandlers(ledger=self._ledger, productions=self._productions, admit=actions.admit)
        self.registry.add("flyteidl2.workflow.EventsProxyService", events)
        internal = InternalRunsHandlers(ledger=self._ledger, productions=self._productions, actions=actions)
        self.registry.add("flyteidl2.workflow.InternalRunService", internal)

    def _catalog(self, clock: Clock) -> Cache:
        """Results that later runs may use."""
        cache = self._settings.cache
        return Cache(database=self._database, clock=clock, heartbeat=cache.reservation_heartbeat, grace=cache.reservation_grace)

    def _creator(self, tasks: Tasks, clock: Clock) -> Creator:
        return Creator(
            ledger=self._ledger,
            data=self._store,
            specs=tasks,
            triggers=self._triggers,
            clock=clock,
            require_project=self.projects.check,
            complete=self._scoped.complete,
            queues=self._queues,
            notifications=self._told.notifications,
            base=self._store.base(storage.DATA),
        )

    def _add_runs(self, creator: Creator, reader: Reader) -> None:
        runs = RunsHandlers(ledger=self._ledger, creator=creator, reader=reader)
        self.registry.add("flyteidl2.workflow.RunService", runs)

    def _add_tracked(self, tasks: Tasks, reader: Reader, clock: Clock) -> None:
        """Runs that their clients carry out."""
        tracked = TrackedRuns(
            ledger=self._ledger,
            specs=tasks,
            clock=clock,
            require_project=self.projects.check,
            owns=self._store.owns,
            base=self._store.base(storage.DATA),
        )
        self._silence = Silence(ledger=self._ledger, clock=clock, limit=self._settings.tracked.silence)
        handlers = TrackedRunsHandlers(ledger=self._ledger, reader=reader, tracked=tracked)
        self.registry.add("flyteidl2.workflow.TrackedRunService", handlers)

    def _add_data(self, tasks: Tasks, reader: Reader, logs: LogTail) -> None:
        """Bytes in and out."""
        settings = self._settings
        uploads = Uploads(
            store=self._store,
            specs=tasks,
            require_project=self.projects.check,
            base=self._store.base(storage.DATA),
            bundles=self._store.base(storage.BUNDLES),
            max_bytes=settings.storage.upload_max_bytes,
            max_expiry=settings.storage.url_expiry,
        )
        downloads = Downloads(
            store=self._store,
            ledger=self._ledger,
            specs=tasks,
            max_bytes=settings.server.max_message_bytes,
            max_expiry=settings.storage.url_expiry,
        )
        proxy = DataProxyHandlers(uploads=uploads, downloads=downloads, logs=logs, public_url=settings.server.public_url)
        self.registry.add("flyteidl2.dataproxy.DataProxyService", proxy)
        self.registry.add("flyteidl2.workflow.RunLogsService", RunLogsHandlers(logs=logs))
        translator = TranslatorHandlers(
            action_uris=lambda action: reader.data_uris(action_key(action)),
            trigger_inputs=partial(stored_inputs, self._triggers, self._store.get),
            read_object=self._store.get,
        )
        self.registry.add("flyteidl2.workflow.TranslatorService", translator)
        self.registry.add("flyteidl2.cluster.ClusterService", ClusterHandlers())
        self.registry.add("flyteidl2.imagebuilder.ImageService", self._images())

    def _images(self) -> ImageHandlers:
        """In a cluster nobody is asked what a registry has: to build an image again is to find its address in the cache."""
        settings = self._settings.images
        if self._settings.execution.launcher == "processes":
            return ImageHandlers(named=Environments(self._settings.images_dir).named if settings.build else None)
        registry = f"{settings.registry.rstrip('/')}/" if settings.registry else ""
        return ImageHandlers(named=(lambda _: None) if settings.build else None, unbuilt=registry)

    def _add_catalogues(self, tasks: Tasks, identities: Identities) -> None:
        self.registry.add("flyteidl2.project.ProjectService", ProjectsHandlers(projects=self.projects))
        self.registry.add(
            "flyteidl2.task.TaskService", TasksHandlers(tasks=tasks, triggers=self._triggers, identities=identities)
        )
        triggers = TriggersHandlers(triggers=self._triggers, tasks=tasks, projects=self.projects, identities=identities)
        self.registry.add("flyteidl2.trigger.TriggerService", triggers)
        artifacts = ArtifactsHandlers(artifacts=self._artifacts, identities=identities)
        self.registry.add("flyteidl2.artifact.ArtifactService", artifacts)
        self.registry.add("flyteidl2.cacheservice.CacheService", CacheHandlers(cache=self._cache))
        self.registry.add("flyteidl2.cacheservice.v2.CacheService", ScopedCacheHandlers(cache=self._cache))
        self.registry.add("flyteidl2.app.AppService", AppsHandlers(apps=self._apps, identities=identities))
        self.registry.add("flyteidl2.app.AppLogsService", AppLogsHandlers(apps=self._apps))
        self.registry.add("flyteidl2.auth.IdentityService", IdentityHandlers(identities=identities))
        self.registry.add("flyteidl2.auth.AuthMetadataService", AuthMetadataHandlers())

    def _add_scopes(self, clock: Clock) -> None:
        """What belongs to all, to a domain or to a project."""
        projects = self.projects
        secrets = Secrets(
            vault=self.plane.vault, clock=clock, require_domain=projects.domains.check, require_project=projects.check
        )
        self.registry.add("flyteidl2.secret.SecretService", SecretsHandlers(secrets=secrets))
        self.registry.add("flyteidl2.settings.SettingsService", SettingsHandlers(settings=self._scoped))
        domains = DomainsHandlers(domains=projects.domains, users=secrets.users)
        self.registry.add("flyteidl2.org.DomainService", domains)

    def _add_operations(self, admission: Admission, clock: Clock) -> None:
        began = clock.monotonic()

        def methods() -> Iterable[Method]:
            from flyte_unified.operations.handlers import ManagerHandlers, Server  # betterproto2 costs a start 50 ms
            from flyte_unified.operations.messages import ManagerServiceBase
            from flyte_unified.rpc import betterproto

            server = Server(
                settings=self._settings,
                address=self.address,
                interpreter=str(self.interpreter),
                database=self._database,
                store=self._store,
                plane=self.plane,
                drain=self._drain,
                apps=self._apps.tally,
                clock=clock,
                began=began,
                ready=lambda: self._ready,
            )
            return betterproto.methods(ManagerServiceBase().__mapping__(), ManagerHandlers(server, admission=admission))

        self.registry.add_foreign("flyte_unified.v1.ManagerService", methods)

    def _apps_here(self, clock: Clock) -> tuple[Apps, ClusterApps | None]:
        return apps_of(
            self._settings,
            address=self.address,
            interpreter=self.interpreter,
            environment=self.storage.environment,
            raw_data=f"{self._store.base(storage.DATA)}/_apps",
            vault=self._secrets,
            database=self._database,
            require_project=self.projects.check,
            admit=self._scoped.admit,
            clock=clock,
        )

    def _one_port(self, tokens: RunTokens, pages: Pages) -> Edge:
        server = self._settings.server
        metrics = Metrics()

        def gauge(name: str, text: str, of: Callable[[Controller], float]) -> None:
            metrics.gauge(name, text, lambda: of(leading) if (leading := self.plane.controller) is not None else 0)

        gauge("live_actions", "Actions that have not ended", lambda controller: controller.live)
        gauge("active_slots", "Actions that compute", lambda controller: controller.slots.active)
        gauge("waiting_actions", "Actions that wait for a slot", lambda controller: controller.slots.waiting)
        postman = self._told.postman
        metrics.gauge("notifications_delivered", "Notifications that were delivered", lambda: postman.delivered)
        metrics.gauge("notifications_given_up", "Notifications that were given up", lambda: postman.given_up)
        return Edge(
            registry=self.registry,
            identify=tokens.identify,
            routes=[
                Route("GET", "/readyz", self._readyz),
                metrics.route,
                *self.storage.routes,
                *self._told.routes,
                *links(self._apps),
                *pages.routes,
            ],
            allowed_hosts=self._settings.hosts,
            cors_origins=server.cors_origins,
            sites=self._apps.sites,
            observe=metrics.observe,
            in_flight=metrics.in_flight,
            max_message_bytes=server.max_message_bytes,
        )

    async def _readyz(self, _: Request) -> Response:
        if self._drain.on:
            return Response(status=503, body=b"drained")
        return Response(body=b"ok") if self._ready else Response(status=503, body=b"starting or stopping")

    async def _exists(self, uri: str) -> bool:
        return await self._store.head(uri) is not None

    async def _read_error(self, uri: str) -> execution_pb2.ErrorDocument | None:
        try:
            return execution_pb2.ErrorDocument.FromString(await self._store.get(uri))
        except (NotFound, DecodeError):
            return None
