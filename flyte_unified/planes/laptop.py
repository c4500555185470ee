"""The plane of one machine: tasks are its processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flyte_unified.actions.queue import Rows
from flyte_unified.dataproxy.process_logs import ProcessLines
from flyte_unified.executor.machine import capacity
from flyte_unified.executor.slots import Capacity, Slots
from flyte_unified.images.environments import Environments
from flyte_unified.launchers.api import INTERPRETER
from flyte_unified.launchers.dispatch import Launchers
from flyte_unified.launchers.processes.attempts import ProcessAttempts
from flyte_unified.planes import processes
from flyte_unified.planes.api import Parts
from flyte_unified.planes.connectors import ConnectorParts
from flyte_unified.plugins import registry
from flyte_unified.plugins.api import Container, Job, Process
from flyte_unified.plugins.images import ImageBuilds
from flyte_unified.settings import Settings


class Laptop:
    """``interpreter`` runs the tasks that choose none."""

    def __init__(self, settings: Settings, parts: Parts, *, interpreter: Path) -> None:
        attempts = _attempts(settings, parts, interpreter)
        self.vault = parts.secrets
        self.leader = ""
        self.scheduler = parts.scheduler
        self._postman = parts.postman
        self._connectors = ConnectorParts(settings, parts, reveal=parts.secrets.reveal)
        self.lines = self._connectors.lines(ProcessLines(attempts))
        self.controller = parts.controller(
            queue=Rows(ledger=parts.ledger),
            describe=partial(
                registry.describe,
                connectors=self._connectors.describe,
                images=_builds(settings, interpreter).describe if settings.images.build else registry.no_images,
            ),
            launcher=Launchers({Process: attempts, Container: attempts, Job: self._connectors.launcher()}),
            slots=Slots(_capacity(settings), parts.queues.bounds),
        )

    async def start(self) -> None:
        await self.controller.start()
        await self.scheduler.start()
        await self._postman.start()

    async def drain(self, on: bool) -> None:
        """Runs wait to begin until there is a server again that lets them."""
        self.controller.hold_runs(on)

    async def stop(self, *, grace: float) -> None:
        await self.scheduler.close()
        await self._postman.close()
        await self.controller.stop(grace=grace)
        self._connectors.close()

    async def close(self) -> None:
        await self.scheduler.close()
        await self._postman.close()
        await self.controller.close()
        self._connectors.close()


def _attempts(settings: Settings, parts: Parts, interpreter: Path) -> ProcessAttempts:
    directory = settings.data.dir
    return ProcessAttempts(
        launcher=processes.launcher(settings, directory),
        interpreter=interpreter,
        work=directory / "work",
        logs=directory / "logs",
        warm=settings.execution.warm,
        log_limit=settings.execution.log_max_bytes,
        engine=settings.execution.container_engine,
        environment={**processes.inherited(), **parts.environment},
        reveal=parts.secrets.reveal,
        images=Environments(settings.images_dir).named if settings.images.build else None,
    )


def _builds(settings: Settings, interpreter: Path) -> ImageBuilds:
    images = settings.images
    arguments = [f"--images={settings.images_dir}", f"--python={interpreter}"]
    arguments += [f"--age={images.max_age}", f"--size={images.max_bytes}"]
    if images.allow_commands:
        arguments.append("--allow-commands")
    return ImageBuilds(arguments=tuple(arguments), interpreter=INTERPRETER)


def _capacity(settings: Settings) -> Capacity:
    execution = settings.execution
    return capacity(
        slots=execution.slots,
        memory_fraction=execution.memory_fraction,
        watermark=execution.process_watermark,
        limit=execution.process_limit,
    )
