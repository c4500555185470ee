"""Apps, and where they run: as processes of a laptop, or as Deployments of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flyte_unified.apps import store
from flyte_unified.apps.addresses import Addresses
from flyte_unified.apps.api import AppLauncher
from flyte_unified.apps.local.launcher import LocalApps
from flyte_unified.apps.local.supervisor import Rules
from flyte_unified.apps.service import Admit, Apps, RequireProject
from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.db.api import Database
from flyte_unified.images.environments import Environments
from flyte_unified.planes import processes
from flyte_unified.secrets.table import TableVault
from flyte_unified.settings import Settings

if TYPE_CHECKING:
    from flyte_unified.apps.cluster.launcher import ClusterApps


def apps_of(
    settings: Settings,
    *,
    address: str,
    interpreter: Path,
    environment: Mapping[str, str],
    raw_data: str,
    vault: TableVault,
    database: Database,
    require_project: RequireProject,
    admit: Admit,
    clock: Clock,
) -> tuple[Apps, ClusterApps | None]:
    """``address`` is the server's, ``environment`` how apps reach the store, ``raw_data`` where theirs is in it.

    With what the cluster's plane leads, in a cluster.
    """
    launcher: AppLauncher
    cluster = None
    inside = settings.server.task_url.rstrip("/") or address
    if settings.execution.launcher == "processes":
        addresses = Addresses(settings.apps.url or address, local=address, reserved=settings.hosts)
        directory = settings.data.dir / "apps"
        launcher = LocalApps(
            processes=processes.launcher(settings, directory),
            directory=directory,
            interpreter=interpreter,
            inherited={**processes.inherited(), **environment},
            reveal=vault.reveal,
            images=Environments(settings.images_dir).named if settings.images.build else None,
            endpoint=inside,
            pattern=addresses.pattern,
            raw_data=raw_data,
            log_limit=settings.execution.log_max_bytes,
            kill_grace=settings.execution.kill_grace,
            rules=_rules(settings),
            clock=clock,
        )
    else:
        addresses = Addresses(settings.apps.url or address, local=inside, reserved=settings.hosts)
        launcher = cluster = _in_cluster(
            settings, endpoint=inside, addresses=addresses, raw_data=raw_data, database=database, clock=clock
        )
    apps = Apps(
        database=database,
        clock=clock,
        launcher=launcher,
        addresses=addresses,
        require_project=require_project,
        admit=admit,
    )
    return apps, cluster


def _in_cluster(
    settings: Settings, *, endpoint: str, addresses: Addresses, raw_data: str, database: Database, clock: Clock
) -> ClusterApps:
    try:
        from flyte_unified.apps.cluster.launcher import ClusterApps, Rules  # a laptop has no need of them
        from flyte_unified.apps.cluster.manifests import Surroundings
        from flyte_unified.kube.client import Kube
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"execution.launcher = pods needs {error.name}: pip install 'flyte-unified[cluster]'"
        ) from error
    kubernetes, apps = settings.kubernetes, settings.apps
    return ClusterApps(
        kube=Kube(kubeconfig=Path(kubernetes.kubeconfig) if kubernetes.kubeconfig else None, context=kubernetes.context),
        scope=kubernetes.scope,
        namespace=kubernetes.namespace_of,
        surroundings=Surroundings(endpoint=endpoint, pattern=addresses.pattern, raw_data=raw_data, start=apps.start_timeout),
        find=lambda key: database.read(lambda: store.get(key)),
        rules=Rules(idle=apps.idle, wake=apps.wake_timeout, request=apps.request_timeout),
        clock=clock,
        use_knative=apps.knative == "auto",
    )


def _rules(settings: Settings) -> Rules:
    apps = settings.apps
    return Rules(
        idle=apps.idle,
        start=apps.start_timeout,
        wake=apps.wake_timeout,
        request=apps.request_timeout,
        backoff=apps.backoff,
        backoff_max=apps.backoff_max,
    )
