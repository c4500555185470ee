"""Apps, and where they run: on a laptop, as its processes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from flyte_unified.apps.addresses import Addresses
from flyte_unified.apps.local.launcher import LocalApps
from flyte_unified.apps.local.supervisor import Rules
from flyte_unified.apps.service import Apps, RequireProject
from flyte_unified.core.clock import Clock
from flyte_unified.db.api import Database
from flyte_unified.images.environments import Environments
from flyte_unified.launchers.processes.launcher import ProcessLauncher
from flyte_unified.planes.laptop import inherited
from flyte_unified.secrets.table import TableVault
from flyte_unified.settings import Settings


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
    clock: Clock,
) -> Apps:
    """``address`` is the server's, ``environment`` how apps reach the store, ``raw_data`` where theirs is in it."""
    addresses = Addresses(settings.apps.url or address, local=address, reserved=settings.hosts)
    launcher = None
    if settings.execution.launcher == "processes":
        directory = settings.data.dir / "apps"
        launcher = LocalApps(
            processes=lambda told: ProcessLauncher(
                directory=directory / "keeper",
                ephemeral=settings.data.ephemeral,
                on_event=told,
                logger=logging.getLogger("flyte_unified.launchers"),
            ),
            directory=directory,
            interpreter=interpreter,
            inherited={**inherited(), **environment},
            reveal=vault.reveal,
            images=Environments(settings.images_dir).named if settings.images.build else None,
            endpoint=settings.server.task_url.rstrip("/") or address,
            pattern=addresses.pattern,
            raw_data=raw_data,
            log_limit=settings.execution.log_max_bytes,
            kill_grace=settings.execution.kill_grace,
            rules=_rules(settings),
            clock=clock,
        )
    return Apps(database=database, clock=clock, launcher=launcher, addresses=addresses, require_project=require_project)


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
