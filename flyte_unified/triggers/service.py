"""Triggers: what starts runs of a task on its own, or is a name for how to start one.

Each change makes a revision, and none is lost. A revision that fires by a clock has the time of its next fire beside it, so
that a server that comes back knows what it missed. Whoever plans fires subscribes; what another replica changed is told too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import orjson
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.trigger import trigger_definition_pb2, trigger_service_pb2

from flyte_unified.core.clock import Clock, Micros
from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.core.ids import printable, scope_part
from flyte_unified.core.paging import Order, listing
from flyte_unified.db.api import Database, Notice, Work
from flyte_unified.ledger.api import TaskId
from flyte_unified.triggers import model, requests, store
from flyte_unified.triggers.model import Appeared, Offer, Trigger, TriggerKey
from flyte_unified.triggers.store import Listed

Told = Callable[[TriggerKey | None], None]
"""Is called with a trigger that changed; with None when any may have."""

_TOPIC = "trigger"
_MAX_LIMIT = 1000
_ACTIVE_FIRST = (Order("active", descending=True), Order("updated_at", descending=True))
_NEWEST_FIRST = (Order("revision", descending=True),)


class Triggers:
    """One for a server. ``checks`` raise what would keep a run of this spec from being made."""

    def __init__(self, *, database: Database, clock: Clock, checks: Sequence[Callable[[run_pb2.RunSpec], None]] = ()) -> None:
        self._database = database
        self._clock = clock
        self._checks = checks
        self._subscribers: list[Told] = []

    # What clients ask for

    async def deploy(
        self,
        message: trigger_service_pb2.DeployTriggerRequest,
        task: task_definition_pb2.TaskSpec,
        *,
        by: str,
    ) -> Listed:
        """Stores the next revision of a trigger of ``task``.

        Raises InvalidArgument naming the field; Aborted when ``message.revision`` is not the latest.
        """
        now = self._clock.now()
        wanted = requests.wanted(key_of(message.name), message.spec, message.automation_spec, task, by=by, now=now)
        self._check(message.spec)
        expected = int(message.revision)
        await self._write(lambda: _changed(wanted.key, lambda known: model.deployed(known, wanted, now=now, expected=expected)))
        return await self.get(message.name)

    def attach(
        self,
        task: TaskId,
        spec: task_definition_pb2.TaskSpec,
        triggers: Iterable[task_definition_pb2.TaskTrigger],
        *,
        by: str,
    ) -> Callable[[], Work[list[TriggerKey]]]:
        """The work that makes ``triggers`` all that a task has; its result is for ``committed`` and ``notices``.

        Where none are given, those that it has stay as they are, as with Flyte's own backend: the SDK has no way to say that
        it means none. Raises InvalidArgument naming the field.
        """
        now = self._clock.now()
        wanted = {}
        for index, each in enumerate(triggers):
            key = TriggerKey(*task[:3], printable(each.name, field=f"triggers[{index}].name"))
            if key in wanted:
                raise InvalidArgument(f"triggers[{index}].name: {each.name!r} is there twice")
            trigger_spec = requests.of_task(each, version=task.version)
            wanted[key] = requests.wanted(key, trigger_spec, each.automation_spec, spec, by=by, now=now)
            self._check(trigger_spec)
        return lambda: _attached(task, wanted, by=by, now=now)

    async def update(self, names: Iterable[identifier_pb2.TriggerName], *, active: bool, by: str) -> None:
        """Activates or pauses. Raises NotFound, and then has changed none."""
        now = self._clock.now()

        def to(known: Trigger | None) -> Trigger | None:
            return model.switched(known, active=active, by=by, now=now) if known is not None else None

        keys = _keys(names)
        await self._write(lambda: _all_changed(keys, to, deleted=False))

    async def delete(self, names: Iterable[identifier_pb2.TriggerName], *, by: str) -> None:
        """Deletes; the history stays. Raises NotFound for one that never was, and then has deleted none."""
        now = self._clock.now()

        def to(known: Trigger | None) -> Trigger | None:
            return model.deleted(known, by=by, now=now) if known is not None else None

        keys = _keys(names)
        await self._write(lambda: _all_changed(keys, to, deleted=True))

    async def get(self, name: identifier_pb2.TriggerName) -> Listed:
        """The latest revision. The task may be left out where one task alone has such a trigger.

        Raises NotFound; InvalidArgument naming the field.
        """
        key = key_of(name) if name.task_name else await self._by_name(name)
        found = await self._database.read(lambda: store.get(key))
        if found is None or found.trigger.deleted_at is not None:
            raise _unknown(key)
        return found

    async def revision(self, identifier: identifier_pb2.TriggerIdentifier) -> Trigger:
        """One revision, of a deleted trigger too. Raises NotFound."""
        key = key_of(identifier.name, field="id.name")
        number = min(int(identifier.revision), 2**63 - 1)
        found = await self._database.read(lambda: store.revision(key, number))
        if found is None:
            raise NotFound(f"id: trigger {key} has no revision {identifier.revision}")
        return found

    async def page(self, message: trigger_service_pb2.ListTriggersRequest) -> tuple[list[Listed], str]:
        """One page, active ones first if nothing else is asked, and the token of the next. Raises InvalidArgument."""
        scope = _scope(message)
        asked = listing(
            message.request,
            store.KIND,
            default=_ACTIVE_FIRST,
            key=("project", "domain", "task_name", "name"),
            scope=sorted(scope.items()),
            max_limit=_MAX_LIMIT,
        )
        return await self._database.read(lambda: store.page(store.in_scope(**scope), asked))

    async def history(self, name: identifier_pb2.TriggerName, request: list_pb2.ListRequest) -> tuple[list[Trigger], str]:
        """One page of a trigger's revisions, the newest first if nothing else is asked. Raises NotFound, InvalidArgument."""
        key = key_of(name)
        asked = listing(request, store.HISTORY_KIND, default=_NEWEST_FIRST, key=("revision",), scope=key, max_limit=_MAX_LIMIT)
        found, token = await self._database.read(lambda: store.history(key, asked))
        if not found and not request.token and await self._database.read(lambda: store.get(key)) is None:
            raise _unknown(key)
        return found, token

    async def attached(self, tasks: Collection[TaskId]) -> dict[tuple[str, str, str], list[Trigger]]:
        """What each task has, by its project, domain and name."""
        names = {(task.project, task.domain, task.name) for task in tasks}
        found: dict[tuple[str, str, str], list[Trigger]] = {}
        for trigger in await self._database.read(lambda: store.attached(names)) if names else ():
            found.setdefault(trigger.key[:3], []).append(trigger)
        return found

    # What artifacts tell

    def appeared(self, new: Appeared) -> Work[list[TriggerKey]]:
        """The work that lets ``new`` fire what waits for it, once each; its result is for ``committed`` and ``notices``."""
        return store.appear(new)

    def _check(self, spec: trigger_definition_pb2.TriggerSpec) -> None:
        for check in self._checks:
            check(spec.run_spec)

    # What the scheduler asks for

    def subscribe(self, told: Told) -> Callable[[], None]:
        """``told`` hears of every change until the answer is called."""
        self._subscribers.append(told)
        return lambda: self._subscribers.remove(told)

    async def scheduled(self) -> list[tuple[TriggerKey, Micros]]:
        """All that are to fire, and when."""
        return await self._database.read(lambda: store.scheduled(self._clock.now()))

    async def latest(self, key: TriggerKey) -> Trigger | None:
        """The latest revision, a deleted one too."""
        found = await self._database.read(lambda: store.get(key))
        return found.trigger if found is not None else None

    async def advance(self, trigger: Trigger, to: Micros | None) -> None:
        """What was due is over; the next comes at ``to``. Changes nothing where something else is due by now."""
        done = trigger.next_fire
        if done is not None:
            await self._database.write(lambda: store.advance(trigger.key, done, to))

    async def offer(self, key: TriggerKey) -> Offer | None:
        """The oldest version of an artifact that a trigger is still to fire for."""
        return await self._database.read(lambda: store.offer(key))

    async def offered(self, key: TriggerKey, done: Offer | None) -> None:
        """The trigger is done with ``done``."""
        await self._database.write(lambda: store.offered(key, done))

    # Who hears of what

    def noticed(self, notice: Notice | None) -> None:
        """What another replica changed; None: anything may have been."""
        if notice is None:
            self._tell(None)
        elif notice.topic == _TOPIC:
            self._tell(TriggerKey(*orjson.loads(notice.key)))

    def committed(self, changed: Sequence[TriggerKey]) -> None:
        """After the commit of what ``attach`` gave."""
        for key in changed:
            self._tell(key)

    @staticmethod
    def notices(changed: Sequence[TriggerKey]) -> list[Notice]:
        """What other replicas are to be told of it."""
        return [Notice(_TOPIC, orjson.dumps([*key]).decode()) for key in changed]

    async def _write(self, work: Callable[[], Work[list[TriggerKey]]]) -> None:
        await self._database.write(work, then=self.committed, changed=self.notices)

    def _tell(self, key: TriggerKey | None) -> None:
        for told in tuple(self._subscribers):
            told(key)

    async def _by_name(self, name: identifier_pb2.TriggerName) -> TriggerKey:
        project = scope_part(name.project, field="name.project")
        domain = scope_part(name.domain, field="name.domain")
        trigger = printable(name.name, field="name.name")
        tasks = await self._database.read(lambda: store.tasks_with(project, domain, trigger))
        if len(tasks) > 1:
            raise InvalidArgument(f"name.task_name is empty, and more than one task has a trigger {trigger!r}: {tasks[0]}, ...")
        if not tasks:
            raise NotFound(f"name: no task of {project}/{domain} has a trigger {trigger!r}")
        return TriggerKey(project, domain, tasks[0], trigger)


def key_of(name: identifier_pb2.TriggerName, *, field: str = "name") -> TriggerKey:
    """Raises InvalidArgument naming the part of ``field`` that is wrong."""
    return TriggerKey(
        scope_part(name.project, field=f"{field}.project"),
        scope_part(name.domain, field=f"{field}.domain"),
        printable(name.task_name, field=f"{field}.task_name"),
        printable(name.name, field=f"{field}.name"),
    )


def _keys(names: Iterable[identifier_pb2.TriggerName]) -> list[TriggerKey]:
    keys = [key_of(name, field=f"names[{index}]") for index, name in enumerate(names)]
    if not keys:
        raise InvalidArgument("names is empty")
    return keys


def _changed(key: TriggerKey, to: Callable[[Trigger | None], Trigger | None]) -> Work[list[TriggerKey]]:
    _, changed = yield from store.change(key, to)
    return [key] if changed else []


def _all_changed(
    keys: Sequence[TriggerKey], to: Callable[[Trigger | None], Trigger | None], *, deleted: bool
) -> Work[list[TriggerKey]]:
    """``deleted``: a deleted trigger is known too."""
    for key in keys:
        found = yield from store.get(key)
        if found is None or (found.trigger.deleted_at is not None and not deleted):
            raise _unknown(key)
    changed: list[TriggerKey] = []
    for key in keys:
        changed += yield from _changed(key, to)
    return changed


def _attached(task: TaskId, wanted: dict[TriggerKey, Trigger], *, by: str, now: Micros) -> Work[list[TriggerKey]]:
    changed: list[TriggerKey] = []
    if wanted:
        for key in (yield from store.of_task(task.project, task.domain, task.name)):
            if key not in wanted:
                changed += yield from _changed(key, lambda known: known and model.deleted(known, by=by, now=now))
    for key, trigger in wanted.items():
        changed += yield from _changed(key, lambda known, to=trigger: _redeployed(known, to, now=now))  # type: ignore[misc]  # mypy can't type a lambda's default
    return changed


def _redeployed(known: Trigger | None, wanted: Trigger, *, now: Micros) -> Trigger | None:
    """A deployment that is repeated as it was makes no revision."""
    return None if known is not None and model.same(known, wanted) else model.deployed(known, wanted, now=now)


def _scope(message: trigger_service_pb2.ListTriggersRequest) -> dict[str, str]:
    match message.WhichOneof("scope_by"):
        case "project_id":
            project = scope_part(message.project_id.name, field="project_id.name")
            domain = message.project_id.domain
            return {"project": project, "domain": scope_part(domain, field="project_id.domain") if domain else ""}
        case "task_name":
            return _of_task(message.task_name, field="task_name")
        case "task_id":
            version = printable(message.task_id.version, field="task_id.version")
            return {**_of_task(message.task_id, field="task_id"), "task_version": version}
    return {}


def _of_task(task: task_definition_pb2.TaskName | task_definition_pb2.TaskIdentifier, *, field: str) -> dict[str, str]:
    return {
        "project": scope_part(task.project, field=f"{field}.project"),
        "domain": scope_part(task.domain, field=f"{field}.domain"),
        "task": printable(task.name, field=f"{field}.name"),
    }


def _unknown(key: TriggerKey) -> NotFound:
    return NotFound(f"name: there is no trigger {key}")
