"""WatchGroups: how the runs of each task of a project fare, pushed when one of them changes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from typing import TypeAlias

from flyteidl2.common import list_pb2
from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_unified.core.clock import micros, timestamp
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.filters import conditions
from flyte_unified.core.phases import Phase
from flyte_unified.db import lists
from flyte_unified.ledger.api import Action, Ledger, Run
from flyte_unified.runs import scopes, store, views

_RUNS = 10_000
"""Runs looked at, the newest of the time asked for."""
_RECENT = 10
_PEOPLE = 20
_MESSAGE = 100
"""Groups in one message."""

Rows: TypeAlias = Sequence[tuple[Run, Action]]


class Groups:
    """Tasks of a project with what became of their runs."""

    def __init__(self, *, ledger: Ledger) -> None:
        self._ledger = ledger

    async def watch(self, message: run_service_pb2.WatchGroupsRequest) -> AsyncGenerator[run_service_pb2.WatchGroupsResponse]:
        """Every group, then the sentinel, then groups that changed; nothing more when ``end_date`` is set.

        Raises InvalidArgument naming the field.
        """
        if message.WhichOneof("scope_by") != "project_id":
            raise InvalidArgument("project_id is missing")
        if not message.HasField("start_date"):
            raise InvalidArgument("start_date is missing")
        scope = scopes.of_project(message.project_id)
        filters = conditions(message.request.filters, lists.kinds(store.run_field))
        since = micros(message.start_date, field="start_date")
        until = micros(message.end_date, field="end_date") if message.HasField("end_date") else None

        async def read(tasks: Collection[str] | None) -> list[run_definition_pb2.TaskGroup]:
            rows = await self._ledger.read(
                lambda: store.roots(scope, filters, since=since, until=until, tasks=tasks, limit=_RUNS)
            )
            return _groups(rows, oldest_first=_oldest_first(message))

        with self._ledger.changes.subscribe(scope.changes) as subscription:
            found = await read(None)
            for start in range(0, len(found), _MESSAGE):
                yield run_service_pb2.WatchGroupsResponse(task_groups=found[start : start + _MESSAGE])
            yield run_service_pb2.WatchGroupsResponse(sentinel=True)
            known = {group.task_name for group in found}
            while until is None and (changed := await subscription.next()):
                names = {root.task.name for root in changed if scope.includes(root)}
                found = await read(names) if names else []
                gone = (names & known) - {group.task_name for group in found}
                found += [run_definition_pb2.TaskGroup(task_name=name, should_delete=True) for name in sorted(gone)]
                known = (known | names) - gone
                if found:
                    yield run_service_pb2.WatchGroupsResponse(task_groups=found)


def _oldest_first(message: run_service_pb2.WatchGroupsRequest) -> bool:
    return any(field.created_at == list_pb2.Sort.ASCENDING for field in message.known_sort_fields)


def _groups(rows: Rows, *, oldest_first: bool) -> list[run_definition_pb2.TaskGroup]:
    """``rows`` are newest first, and so are the groups by their newest run, unless it is asked otherwise."""
    by_task: defaultdict[str, list[tuple[Run, Action]]] = defaultdict(list)
    for run, root in rows:
        by_task[root.task.name].append((run, root))
    found = [_group(name, members) for name, members in by_task.items()]
    return found[::-1] if oldest_first else found


def _group(name: str, members: Rows) -> run_definition_pb2.TaskGroup:
    newest = members[0][1]
    roots = [root for _, root in members]
    phases = Counter(root.phase for root in roots)
    group = run_definition_pb2.TaskGroup(
        task_name=name,
        environment_name=newest.environment_name,
        short_name=views.short_name(newest),
        total_runs=len(roots),
        latest_run_time=timestamp(newest.created_at),
        average_failure_rate=phases[Phase.FAILED] / len(roots),
        average_duration=_average(root.ended_at - root.created_at for root in roots if root.ended_at is not None),
        average_time_to_running=_average(root.started_at - root.created_at for root in roots if root.started_at is not None),
        error_counts=_errors(roots),
    )
    ended = [root.ended_at for root in roots if root.ended_at is not None]
    if ended:
        group.latest_finished_time.CopyFrom(timestamp(max(ended)))
    for root in roots[:_RECENT]:
        group.recent_statuses.add(run_name=root.key.run, phase=int(root.phase))
    for phase, count in sorted(phases.items()):
        group.phase_counts.add(phase=int(phase), count=count)
    people = dict.fromkeys(run.created_by for run, _ in members if run.created_by)
    group.created_by.extend(views.identity(subject) for subject in list(people)[:_PEOPLE])
    return group


def _average(durations: Iterable[int]) -> Duration | None:
    told = list(durations)
    if not told:
        return None
    average = Duration()
    average.FromMicroseconds(sum(told) // len(told))
    return average


def _errors(roots: Iterable[Action]) -> run_definition_pb2.TaskGroup.ErrorCounts:
    counts = run_definition_pb2.TaskGroup.ErrorCounts()
    for root in roots:
        error = root.execution_error()
        if error is None or root.phase not in (Phase.FAILED, Phase.TIMED_OUT):
            continue
        if error.kind == execution_pb2.ExecutionError.USER:
            counts.user_error += 1
        elif error.kind == execution_pb2.ExecutionError.SYSTEM:
            counts.system_error += 1
        else:
            counts.unspecified_error += 1
    return counts
