"""Deployed tasks: each version is stored once and never changes.

So a version means the same to everyone who names it, whenever. The SDK skips a version that exists without a look at its
content; the error says when that differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.task import task_definition_pb2

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import AlreadyExists, InvalidArgument, NotFound
from flyte_unified.core.ids import printable, scope_part
from flyte_unified.core.paging import Order, listing
from flyte_unified.db.api import Database, Work
from flyte_unified.ledger.api import EncodedSpec, Ledger, TaskId
from flyte_unified.projects.api import Projects
from flyte_unified.tasks import store
from flyte_unified.tasks.store import Page, Task
from flyte_unified.triggers.api import TriggerKey, Triggers

_MAX_LIMIT = 1000
"""The SDK asks for as many as its user wants, up to this."""
_NEWEST_FIRST = [Order("created_at", descending=True)]


class Tasks:
    """One for a server."""

    def __init__(self, *, database: Database, ledger: Ledger, projects: Projects, triggers: Triggers, clock: Clock) -> None:
        self._database = database
        self._ledger = ledger
        self._projects = projects
        self._triggers = triggers
        self._clock = clock

    async def of_task(self, task: TaskId) -> task_definition_pb2.TaskSpec:
        """The spec of a version, shared by its readers, so never to be changed. Raises NotFound."""
        _, spec = await self._details(task)
        return spec

    async def of_trigger(self, task: TaskId, trigger: str) -> task_definition_pb2.TaskSpec:
        """The spec that a trigger of ``task`` starts. Raises NotFound, InvalidArgument."""
        name = identifier_pb2.TriggerName(project=task.project, domain=task.domain, task_name=task.name, name=trigger)
        return await self.of_task((await self._triggers.get(name)).trigger.task)

    async def details(self, message: task_definition_pb2.TaskIdentifier) -> tuple[Task, task_definition_pb2.TaskSpec]:
        """A version and its spec. Raises NotFound, InvalidArgument naming the field."""
        return await self._details(_task_id(message))

    async def deploy(
        self,
        message: task_definition_pb2.TaskIdentifier,
        spec: task_definition_pb2.TaskSpec,
        *,
        deployed_by: str,
        triggers: Iterable[task_definition_pb2.TaskTrigger] = (),
    ) -> None:
        """Stores a version, and ``triggers`` as all that the task has; together or not at all.

        A version that is there may come again with other triggers, so one can go back to it. Raises AlreadyExists where nothing
        is new, which the SDK takes for success, or the version is another; InvalidArgument naming the field; NotFound and
        FailedPrecondition as ``Projects.check``.
        """
        wanted = _task_id(message)
        _check(spec)
        await self._projects.check(wanted.project, wanted.domain)
        encoded = EncodedSpec.of(spec)
        task = self._row(wanted, encoded, deployed_by)
        attach = self._triggers.attach(wanted, spec, triggers, by=deployed_by)

        def work() -> Work[tuple[Task | None, list[TriggerKey]]]:
            known = yield from store.add(task, encoded)
            same = known is None or known.spec_digest == encoded.digest
            return known, (yield from attach()) if same else []

        known, changed = await self._database.write(
            work,
            then=lambda done: self._triggers.committed(done[1]),
            changed=lambda done: self._triggers.notices(done[1]),
        )
        if known is not None and not changed:
            other = "" if known.spec_digest == encoded.digest else ", with another spec: deploy this one as another version"
            raise AlreadyExists(f"task_id.version: there is a task {_told(wanted)} already{other}")

    async def seed(self, task: TaskId, spec: task_definition_pb2.TaskSpec, *, deployed_by: str) -> None:
        """A task of the system's own, unless it is there: in any domain, as its clients look where they look."""
        if await self._database.read(lambda: store.get(task)) is None:
            encoded = EncodedSpec.of(spec)
            row = self._row(task, encoded, deployed_by)
            await self._database.write(lambda: store.add(row, encoded))

    async def page(
        self, request: list_pb2.ListRequest, *, project: str, domain: str, known: Sequence[list_pb2.Filter] = ()
    ) -> Page:
        """One task a name, of one project and domain, or of all where both are empty. ``known`` are filters more.

        Raises InvalidArgument naming the field.
        """
        wanted = list_pb2.ListRequest()
        wanted.CopyFrom(request)
        wanted.filters.extend(known)
        asked = listing(
            wanted,
            store.KIND,
            default=_NEWEST_FIRST,
            key=["name", "project", "domain"],
            scope=[project, domain],
            max_limit=_MAX_LIMIT,
        )
        where = store.in_project(project, domain) if project else ()
        return await self._database.read(lambda: store.page(where, asked))

    async def versions(self, message: task_definition_pb2.TaskName, request: list_pb2.ListRequest) -> Page:
        """One page of a task's versions, the newest first if nothing else is asked. Raises InvalidArgument."""
        named = TaskId(
            scope_part(message.project, field="task_name.project"),
            scope_part(message.domain, field="task_name.domain"),
            printable(message.name, field="task_name.name"),
        )
        asked = listing(
            request,
            store.KIND,
            default=_NEWEST_FIRST,
            key=["version"],
            scope=["versions", *named],
            max_limit=_MAX_LIMIT,
        )
        return await self._database.read(lambda: store.versions(named, asked))

    def _row(self, task: TaskId, encoded: EncodedSpec, deployed_by: str) -> Task:
        spec = encoded.message
        return Task(
            id=task,
            spec_digest=encoded.digest,
            short_name=spec.short_name or task.name.rpartition(".")[2],
            environment_name=spec.environment.name,
            short_description=spec.documentation.short_description,
            entrypoint=spec.task_template.metadata.is_entrypoint,
            deployed_by=deployed_by,
            created_at=self._clock.now(),
        )

    async def _details(self, wanted: TaskId) -> tuple[Task, task_definition_pb2.TaskSpec]:
        task = await self._database.read(lambda: store.get(wanted))
        if task is None:
            raise NotFound(f"task_id: there is no task {_told(wanted)}")
        return task, await self._ledger.spec(task.spec_digest)


def _task_id(message: task_definition_pb2.TaskIdentifier) -> TaskId:
    return TaskId(
        scope_part(message.project, field="task_id.project"),
        scope_part(message.domain, field="task_id.domain"),
        printable(message.name, field="task_id.name"),
        printable(message.version, field="task_id.version"),
    )


def _check(spec: task_definition_pb2.TaskSpec) -> None:
    """What no task runs without."""
    if not spec.HasField("task_template"):
        raise InvalidArgument("spec.task_template is missing")
    if not spec.task_template.type:
        raise InvalidArgument("spec.task_template.type is empty")
    if not spec.task_template.HasField("interface"):
        raise InvalidArgument("spec.task_template.interface is missing")


def _told(task: TaskId) -> str:
    return f"{task.project}/{task.domain}/{task.name} of version {task.version}"
