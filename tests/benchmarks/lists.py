"""Every list of runs that the SDK's command line and its screens ask for, and a few that only others do."""

from __future__ import annotations

from typing import Any

from flyteidl2.common import list_pb2
from flyteidl2.workflow import run_service_pb2

from tests.benchmarks.filled import DOMAIN, PROJECT

_F = list_pb2.Filter


def asked(
    *filters: tuple[Any, str, list[str]], descending: bool = False, paused: bool = False, scope: str = "project"
) -> run_service_pb2.ListRunsRequest:
    """As the SDK writes it: the oldest first, a hundred a page."""
    request = run_service_pb2.ListRunsRequest(paused_actions_only=paused)
    place = {"name": PROJECT, "domain": DOMAIN}
    if scope == "project":
        request.project_id.MergeFrom(type(request.project_id)(**place))
    elif scope == "task":
        request.task_name.project, request.task_name.domain, request.task_name.name = PROJECT, DOMAIN, "env.task_1"
    elif scope == "version":
        task = request.task_id
        task.project, task.domain, task.name, task.version = PROJECT, DOMAIN, "env.task_1", "v0"
    elif scope == "trigger":
        trigger = request.trigger_name
        trigger.project, trigger.domain, trigger.task_name, trigger.name = PROJECT, DOMAIN, "nap", "nightly"
    request.request.limit = 100
    for function, field, values in filters:
        request.request.filters.add(function=function, field=field, values=values)
    direction = list_pb2.Sort.DESCENDING if descending else list_pb2.Sort.ASCENDING
    request.request.sort_by.CopyFrom(list_pb2.Sort(key="created_at", direction=direction))
    return request


LISTS = {
    "all": asked(),
    "all, newest first": asked(descending=True),
    "running": asked((_F.EQUAL, "phase", ["4"])),
    "failed, newest first": asked((_F.EQUAL, "phase", ["6"]), descending=True),
    "timed out": asked((_F.EQUAL, "phase", ["8"])),
    "succeeded": asked((_F.EQUAL, "phase", ["5"]), descending=True),
    "queued or running": asked((_F.VALUE_IN, "phase", ["1", "2", "3", "4"]), descending=True),
    "failed or running": asked((_F.VALUE_IN, "phase", ["4", "6"]), descending=True),
    "of a task": asked((_F.EQUAL, "task_name", ["env.rare"])),
    "of a version": asked((_F.EQUAL, "task_name", ["env.task_1"]), (_F.EQUAL, "task_version", ["v0"])),
    "of a task that succeeded": asked((_F.EQUAL, "phase", ["5"]), (_F.EQUAL, "task_name", ["env.task_1"]), descending=True),
    "mine": asked((_F.EQUAL, "created_by", ["eve"])),
    "nobody's": asked((_F.EQUAL, "created_by", ["nobody"])),
    "of an hour": asked(
        (_F.GREATER_THAN_OR_EQUAL, "created_at", ["2023-11-16T02:00:00Z"]),
        (_F.LESS_THAN, "created_at", ["2023-11-16T03:00:00Z"]),
    ),
    "not changed since": asked((_F.LESS_THAN, "updated_at", ["2023-11-15T00:00:00Z"]), descending=True),
    "with a label": asked((_F.EQUAL, "labels.team", ["red"])),
    "with two labels": asked((_F.EQUAL, "labels.rare", ["yes"]), (_F.EQUAL, "labels.team", ["blue"])),
    "with a key": asked((_F.EXISTS, "labels.rare", [])),
    "paused": asked(paused=True),
    "of a task, by scope": asked(scope="task", descending=True),
    "of a version, by scope": asked(scope="version", descending=True),
    "of a trigger": asked(scope="trigger", descending=True),
    "of all projects": asked(scope="", descending=True),
}
