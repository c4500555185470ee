"""What other rooms may use of the ledger."""

from flyte_unified.ledger.births import EncodedSpec, task_action
from flyte_unified.ledger.changes import Changes, Children, Conditions, Everything, OneAction, Roots, Subscription, WholeRun
from flyte_unified.ledger.model import (
    NO_TASK,
    Action,
    ActionType,
    Details,
    Failure,
    Move,
    NewRun,
    Report,
    Reported,
    Retry,
    Run,
    TaskId,
)
from flyte_unified.ledger.moves import apply, error_info, first_record, record_of
from flyte_unified.ledger.records import merge
from flyte_unified.ledger.rows import action_from, run_from
from flyte_unified.ledger.service import Beside, Ledger, Productions
from flyte_unified.ledger.signals import check_signal, signal
from flyte_unified.ledger.store import EXECUTOR

__all__ = [
    "EXECUTOR",
    "NO_TASK",
    "Action",
    "ActionType",
    "Beside",
    "Changes",
    "Children",
    "Conditions",
    "Details",
    "EncodedSpec",
    "Everything",
    "Failure",
    "Ledger",
    "Move",
    "NewRun",
    "OneAction",
    "Productions",
    "Report",
    "Reported",
    "Retry",
    "Roots",
    "Run",
    "Subscription",
    "TaskId",
    "WholeRun",
    "action_from",
    "apply",
    "check_signal",
    "error_info",
    "first_record",
    "merge",
    "record_of",
    "run_from",
    "signal",
    "task_action",
]
