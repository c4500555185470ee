"""The ledger's values as rows, and rows as values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.tables import LABEL, actions, runs
from flyte_unified.ledger.model import Action, ActionType, Run, TaskId

COLUMNS = [column.name for column in actions.columns]
"""Of ``actions``, in the table's order."""


def of_action(action: Action) -> dict[str, Any]:
    """The row of an action."""
    row = {name: getattr(action, name) for name in _ACTION_FIELDS}
    row["project"], row["domain"], row["run"], row["name"] = action.key
    row["task_project"], row["task_domain"], row["task_name"], row["task_version"] = action.task
    return row


_TASK_AT = COLUMNS.index("task_project")
_ACTION_FIELDS = [name for name in COLUMNS[4:] if name not in {"task_project", "task_domain", "task_name", "task_version"}]


def action_from(row: Sequence[Any]) -> Action:
    """An action from the columns of ``actions``, in the table's order."""
    values = dict(zip(_ACTION_FIELDS, (*row[4:_TASK_AT], *row[_TASK_AT + 4 : len(COLUMNS)]), strict=True))
    del values["outcome"]
    values["phase"] = Phase(values["phase"])
    values["action_type"] = ActionType(values["action_type"])
    return Action(key=ActionKey._make(row[:4]), task=TaskId._make(row[_TASK_AT : _TASK_AT + 4]), **values)


def run_from(row: Sequence[Any]) -> Run:
    """A run from the columns of ``runs``, in the table's order."""
    return Run(key=RunKey._make(row[:3]), **dict(zip(_RUN_FIELDS, row[3:], strict=True)))


_RUN_FIELDS = [column.name for column in runs.columns][3:]


def of_run(run: Run) -> dict[str, Any]:
    return {"project": run.key.project, "domain": run.key.domain, "run": run.key.run} | {
        name: getattr(run, name) for name in _RUN_FIELDS
    }


def of_labels(run: Run) -> list[dict[str, Any]]:
    """A row for each label, by which lists find their runs in the order of time."""
    place = {"project": run.key.project, "domain": run.key.domain, "run": run.key.run, "created_at": run.created_at}
    return [{**place, "key": key, "value": value[:LABEL]} for key, value in run.labels.items() if len(key) <= LABEL]


def of_attempt(key: ActionKey, record: run_definition_pb2.ActionAttempt) -> dict[str, Any]:
    place = dict(zip(("project", "domain", "run", "name"), key, strict=True))
    return {**place, "attempt": record.attempt, "record": record.SerializeToString()}


def place(key: ActionKey) -> dict[str, Any]:
    return {"_project": key.project, "_domain": key.domain, "_run": key.run, "_name": key.name}


def run_place(key: RunKey) -> dict[str, Any]:
    return {"_project": key.project, "_domain": key.domain, "_run": key.run}
