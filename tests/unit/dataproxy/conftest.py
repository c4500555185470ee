"""A data proxy on a real ledger and a real directory; what other rooms would do is a dictionary here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flyteidl2.core import interface_pb2, tasks_pb2, types_pb2
from flyteidl2.task import task_definition_pb2

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.dataproxy.downloads import Downloads
from flyte_unified.dataproxy.uploads import Uploads
from flyte_unified.ledger.api import Action, EncodedSpec, Ledger, NewRun, Run, TaskId, task_action
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import Signer
from tests.databases import sqlite

CONTEXT = CallContext("/test", base_url="http://localhost:30080")
ROOT = RunKey("p", "development", "r1").action("a0")


def task_spec(name: str = "env.task", **inputs: int) -> task_definition_pb2.TaskSpec:
    """A task whose inputs have the given simple types."""
    entries = [
        interface_pb2.VariableEntry(key=key, value=interface_pb2.Variable(type=types_pb2.LiteralType(simple=simple)))
        for key, simple in inputs.items()
    ]
    interface = interface_pb2.TypedInterface(inputs=interface_pb2.VariableMap(variables=entries))
    template = tasks_pb2.TaskTemplate(type="python", interface=interface)
    template.id.name = name
    return task_definition_pb2.TaskSpec(task_template=template)


@dataclass
class FakeSpecs:
    tasks: dict[TaskId, task_definition_pb2.TaskSpec] = field(default_factory=dict)
    triggers: dict[tuple[TaskId, str], task_definition_pb2.TaskSpec] = field(default_factory=dict)

    async def of_task(self, task: TaskId) -> task_definition_pb2.TaskSpec:
        if task not in self.tasks:
            raise NotFound(f"there is no task {task}")
        return self.tasks[task]

    async def of_trigger(self, task: TaskId, trigger: str) -> task_definition_pb2.TaskSpec:
        if (task, trigger) not in self.triggers:
            raise NotFound(f"there is no trigger {trigger}")
        return self.triggers[task, trigger]


@dataclass
class Proxy:
    store: LocalStore
    ledger: Ledger
    specs: FakeSpecs
    uploads: Uploads
    downloads: Downloads

    async def run(
        self, *, spec: task_definition_pb2.TaskSpec | None = None, input_uri: str = "", key: ActionKey = ROOT
    ) -> Action:
        """A run with its root action, queued."""
        encoded = EncodedSpec.of(spec or task_spec())
        now = SystemClock().now()
        base = f"{self.store.base('objects')}/{key.project}/{key.domain}/{key.run}"
        root = task_action(key, encoded, now=now, parent=None, input_uri=input_uri, output_base=base)
        run = Run(
            key=key.run_key,
            run_spec=b"",
            labels={},
            source=0,
            request_id=None,
            content="",
            output_base=base,
            start_time=now,
            created_by="",
            created_at=now,
        )
        return (await self.ledger.create_run(NewRun(run=run, root=root, spec=encoded.raw)))[1]


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    clock = SystemClock()
    roots = {"objects": tmp_path / "objects", "bundles": tmp_path / "bundles"}
    store = LocalStore(roots, signer=Signer(b"k" * 32), clock=clock)
    database = sqlite(tmp_path / "flyte.db")
    ledger = Ledger(database=database, clock=clock)
    specs = FakeSpecs()

    async def require_project(project: str, domain: str) -> None:
        if (project, domain) != ("p", "development"):
            raise NotFound(f"there is no project {project!r} with a domain {domain!r}")

    uploads = Uploads(
        store=store,
        specs=specs,
        require_project=require_project,
        base=store.base("objects"),
        bundles=store.base("bundles"),
        max_bytes=1 << 30,
        max_expiry=3600,
    )
    downloads = Downloads(store=store, ledger=ledger, specs=specs, max_bytes=1 << 20, max_expiry=3600)
    await database.start()
    yield Proxy(store, ledger, specs, uploads, downloads)
    ledger.changes.close()
    await database.stop()
