"""The execution plane: what carries accepted actions to their end, wired for one kind of place.

A laptop's runs tasks as local processes and always leads. A cluster's runs them as pods and other resources, and carries out
only while it holds the lease; its replicas serve all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flyte_unified.actions.queue import WorkQueue
from flyte_unified.core.clock import Clock
from flyte_unified.core.queues import Queues
from flyte_unified.dataproxy.logs import Lines
from flyte_unified.db.api import Database
from flyte_unified.executor.caching import Caching, Catalog
from flyte_unified.executor.controller import Controller
from flyte_unified.executor.judge import Options, Produced
from flyte_unified.executor.slots import Slots
from flyte_unified.launchers.api import Launcher
from flyte_unified.ledger.api import Ledger, Productions
from flyte_unified.notifications.postman import Postman
from flyte_unified.plugins.api import TaskContext, Work
from flyte_unified.secrets.model import Vault
from flyte_unified.secrets.table import TableVault
from flyte_unified.storage.api import DataStore
from flyte_unified.triggers.scheduler import Scheduler

if TYPE_CHECKING:
    from flyte_unified.apps.cluster.launcher import ClusterApps


class Plane(Protocol):
    """One for a server."""

    @property
    def lines(self) -> Lines:
        """The output of attempts."""

    @property
    def vault(self) -> Vault:
        """Where secrets are kept, so that tasks here can have them."""

    @property
    def controller(self) -> Controller | None:
        """None while another server leads."""

    @property
    def leader(self) -> str:
        """Who carries out runs, as last seen; empty for nobody, or where there is no choice."""

    @property
    def scheduler(self) -> Scheduler:
        """At work while this server leads."""

    async def start(self) -> None:
        """Goes on where the last one ended. Does not wait for its turn to lead."""

    async def drain(self, on: bool) -> None:
        """Takes up no runs, or takes them up again; what runs goes on."""

    async def stop(self, *, grace: float) -> None:
        """Ends what can't outlive the server, within ``grace`` seconds."""

    async def close(self) -> None:
        """At once; what runs is found by the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every plane is made of."""

    database: Database
    ledger: Ledger
    store: DataStore
    catalog: Catalog
    produced: Produced
    productions: Productions
    clock: Clock
    options: Options
    queues: Queues
    logs: str
    """Where the output of what ran elsewhere is kept: an address of the store."""
    environment: Mapping[str, str]
    """What tasks need to reach the store."""
    secrets: TableVault
    """The database's, for a plane that has no place of its own for them."""
    connectors: Callable[[str, str], Sequence[str]]
    """The addresses of those that are apps of a project's domain."""
    apps: ClusterApps | None
    """There in a cluster."""
    scheduler: Scheduler
    postman: Postman
    """Run while this server leads, as ``apps`` do."""

    def controller(
        self,
        *,
        queue: WorkQueue,
        describe: Callable[[TaskContext], Work],
        launcher: Launcher,
        slots: Slots,
        epoch: int | None = None,
    ) -> Controller:
        return Controller(
            ledger=self.ledger,
            queue=queue,
            store=self.store,
            describe=describe,
            launcher=launcher,
            slots=slots,
            caching=Caching(catalog=self.catalog, ledger=self.ledger, store=self.store),
            produced=self.produced,
            clock=self.clock,
            options=self.options,
            epoch=epoch,
        )
