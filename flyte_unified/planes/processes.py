"""What a laptop's tasks and apps have in common: both are processes that a keeper owns."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from flyte_unified.launchers.processes.launcher import ProcessLauncher
from flyte_unified.launchers.processes.work import WorkEvent
from flyte_unified.settings import ENV_PREFIX, Settings


def launcher(settings: Settings, directory: Path) -> Callable[[Callable[[WorkEvent], None]], ProcessLauncher]:
    """Makes one for who hears of its processes, with a keeper of its own in ``directory``."""
    return lambda told: ProcessLauncher(
        directory=directory / "keeper",
        ephemeral=settings.data.ephemeral,
        on_event=told,
        logger=logging.getLogger("flyte_unified.launchers"),
    )


def inherited() -> dict[str, str]:
    """What they have of the server's own environment: not its settings, where passwords may be."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
