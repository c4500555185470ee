"""The composition root: from settings to a running server, one room after the other. Read it top to bottom.

Laptop, cluster and fixture differ by a ``Settings`` value and by nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from flyteidl2.core import execution_pb2
from google.protobuf.message import DecodeError

from flyte_unified.actions.handlers import ActionsHandlers, QueueHandlers, StateHandlers
from flyte_unified.actions.service import Actions
from flyte_unified.cache.service import Cache
from flyte_unified.console.pages import Pages
from flyte_unified.core.clock import SystemClock
from flyte_unified.core.errors import NotFound
from flyte_unified.core.http import Request, Response, Route
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.dataproxy.downloads import Downloads
from flyte_unified.dataproxy.handlers import ClusterHandlers, DataProxyHandlers, RunLogsHandlers
from flyte_unified.dataproxy.logs import LogTail
from flyte_unified.dataproxy.process_logs import ProcessLines
from flyte_unified.dataproxy.translator.handlers import TranslatorHandlers
from flyte_unified.dataproxy.uploads import Uploads
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.executor.caching import Caching
from flyte_unified.executor.controller import Controller, Options
from flyte_unified.executor.machine import capacity
from flyte_unified.executor.policy import Backoff
from flyte_unified.executor.slots import Slots
from flyte_unified.identity.handlers import AuthMetadataHandlers, IdentityHandlers
from flyte_unified.identity.service import Identities
from flyte_unified.images.handlers import ImageHandlers
from flyte_unified.launchers.processes.attempts import ProcessAttempts
from flyte_unified.launchers.processes.interpreters import choose
from flyte_unified.launchers.processes.launcher import ProcessLauncher
from flyte_unified.ledger.api import Ledger
from flyte_unified.projects.handlers import ProjectsHandlers
from flyte_unified.projects.service import Projects
from flyte_unified.rpc.edge import Edge
from flyte_unified.rpc.metrics import Metrics
from flyte_unified.rpc.registry import Registry
from flyte_unified.rpc.tokens import RunTokens
from flyte_unified.runs.create import Creator
from flyte_unified.runs.details import Reader
from flyte_unified.runs.handlers import RunsHandlers
from flyte_unified.settings import LOOPBACK, Settings
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.routes import data_routes
from flyte_unified.storage.signing import Signer, load_key
from flyte_unified.tasks.service import Tasks


class Manager:
    """One server. ``sockets`` are bound to the one port and belong to it from now on."""

    def __init__(self, settings: Settings, *, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._grace = settings.server.shutdown_grace
        self._ready = False
        self._port = sockets[0].getsockname()[1]
        self.address = settings.base_url(self._port)
        directory = settings.data.dir
        clock = SystemClock()

        # The truth, and where bytes are.
        self._database = SQLiteDatabase(directory / "flyte.db", queue_limit=settings.database.queue_limit)
        self._ledger = Ledger(database=self._database, clock=clock)
        key = load_key(directory / "key")
        self._store = LocalStore(
            {"data": Path(settings.storage.root), "bundles": Path(settings.storage.bundles)},
            signer=Signer(key),
            clock=clock,
            min_free_bytes=settings.storage.min_free_bytes,
        )
        data, bundles = self._store.base("data"), self._store.base("bundles")

        # Who calls.
        tokens = RunTokens(key)
        identities = Identities(name=settings.identity.name, email=settings.identity.email)
        open_to_all = settings.server.host in LOOPBACK

        # Where tasks run.
        self.interpreter, self.interpreter_reason = choose(
            settings.execution.python, env=os.environ, directory=Path.cwd()
        )
        attempts = ProcessAttempts(
            launcher=lambda told: ProcessLauncher(
                directory=directory / "keeper",
                ephemeral=settings.data.ephemeral,
                on_event=told,
                logger=logging.getLogger("flyte_unified.launchers"),
            ),
            interpreter=self.interpreter,
            work=directory / "work",
            logs=directory / "logs",
            warm=settings.execution.warm,
            log_limit=settings.execution.log_max_bytes,
            environment=os.environ,
        )
        logs = LogTail(ledger=self._ledger, lines=ProcessLines(attempts))
        pages = Pages(ledger=self._ledger, store=self._store, logs=logs)

        # What carries actions to their end.
        self._projects = Projects(
            database=self._database, clock=clock, domains=settings.projects.domains, seed=settings.projects.seed
        )
        tasks = Tasks(database=self._database, ledger=self._ledger, clock=clock, projects=self._projects)
        cache = Cache(database=self._database, clock=clock)
        task_base = settings.server.task_url.rstrip("/") or self.address
        self.controller = Controller(
            ledger=self._ledger,
            store=self._store,
            launcher=attempts,
            slots=Slots(
                capacity(
                    slots=settings.execution.slots,
                    memory_fraction=settings.execution.memory_fraction,
                    watermark=settings.execution.process_watermark,
                    limit=settings.execution.process_limit,
                )
            ),
            caching=Caching(catalog=cache, ledger=self._ledger, store=self._store),
            clock=clock,
            options=Options(
                endpoint=lambda run: f"{task_base}/t/{tokens.token(run)}",
                raw_root=f"{data}/_raw",
                log_link=lambda action, attempt: self.address + pages.log_link(action, attempt),
                interpreter=str(self.interpreter),
                system_retries=settings.execution.system_retries,
                system_backoff=Backoff(
                    base=settings.execution.retry_backoff,
                    factor=settings.execution.retry_backoff_factor,
                    cap=settings.execution.retry_backoff_max,
                ),
                kill_grace=settings.execution.kill_grace,
            ),
        )

        # What clients call.
        registry = Registry()
        actions = Actions(ledger=self._ledger, clock=clock, read_error=self._read_error, token_required=not open_to_all)
        registry.add("flyteidl2.actions.ActionsService", ActionsHandlers(actions=actions, ledger=self._ledger))
        registry.add("flyteidl2.workflow.QueueService", QueueHandlers(actions=actions))
        registry.add("flyteidl2.workflow.StateService", StateHandlers(actions=actions, ledger=self._ledger))
        creator = Creator(
            ledger=self._ledger, data=self._store, specs=tasks, clock=clock, require_project=self._projects.check, base=data
        )
        reader = Reader(ledger=self._ledger, data=self._store)
        registry.add(
            "flyteidl2.workflow.RunService", RunsHandlers(ledger=self._ledger, creator=creator, reader=reader)
        )
        uploads = Uploads(
            store=self._store,
            specs=tasks,
            require_project=self._projects.check,
            base=data,
            bundles=bundles,
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
        registry.add(
            "flyteidl2.dataproxy.DataProxyService",
            DataProxyHandlers(uploads=uploads, downloads=downloads, logs=logs, public_url=settings.server.public_url),
        )
        registry.add("flyteidl2.workflow.RunLogsService", RunLogsHandlers(logs=logs))
        registry.add(
            "flyteidl2.workflow.TranslatorService",
            TranslatorHandlers(
                action_uris=lambda m: [], trigger_inputs=lambda m: None, read_object=self._store.get
            ),
        )
        registry.add("flyteidl2.cluster.ClusterService", ClusterHandlers())
        registry.add("flyteidl2.project.ProjectService", ProjectsHandlers(projects=self._projects))
        registry.add("flyteidl2.imagebuilder.ImageService", ImageHandlers())
        registry.add("flyteidl2.auth.IdentityService", IdentityHandlers(identities=identities))
        registry.add("flyteidl2.auth.AuthMetadataService", AuthMetadataHandlers())
        self.registry = registry

        # The one port.
        metrics = Metrics()
        metrics.gauge("live_actions", "Actions that have not ended", lambda: self.controller.live)
        metrics.gauge("active_slots", "Actions that compute", lambda: self.controller.slots.active)
        metrics.gauge("waiting_actions", "Actions that wait for a slot", lambda: self.controller.slots.waiting)
        self._edge = Edge(
            registry=registry,
            identify=tokens.identify,
            routes=[Route("GET", "/readyz", self._readyz), metrics.route, *data_routes(self._store), *pages.routes],
            allowed_hosts=settings.server.allowed_hosts,
            cors_origins=settings.server.cors_origins,
            observe=metrics.observe,
            in_flight=metrics.in_flight,
            max_message_bytes=settings.server.max_message_bytes,
        )

    async def start(self) -> None:
        """Ready when it returns. Raises what keeps it from starting; then call ``kill``."""
        await self._database.start()
        await self._projects.start()
        await self._edge.start(self._sockets)
        await self.controller.start()
        self._ready = True

    async def stop(self) -> None:
        """In order: tasks end as interruptions, streams are told, what was accepted is stored."""
        self._ready = False
        await self.controller.stop(grace=self._grace)
        self._ledger.changes.close()
        await self._edge.stop(0.5)
        await self._database.stop()

    async def kill(self) -> None:
        """At once; tasks that outlive the server are found by the next one."""
        self._ready = False
        await self.controller.close()
        self._ledger.changes.close()
        await self._edge.stop(0.0)
        await self._database.stop()

    async def _readyz(self, _: Request) -> Response:
        return Response(body=b"ok") if self._ready else Response(status=503, body=b"starting or stopping")

    async def _read_error(self, uri: str) -> execution_pb2.ErrorDocument | None:
        try:
            return execution_pb2.ErrorDocument.FromString(await self._store.get(uri))
        except (NotFound, DecodeError):
            return None
