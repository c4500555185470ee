"""From a pod to what it tells of its attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyte_unified.core.clock import Micros
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Fault, State
from flyte_unified.plugins.pods.config import Patience


def state(pod: Mapping[str, Any], *, now: Micros, config: Patience) -> State:
    """What ``pod`` (a core v1 Pod as JSON) tells at ``now``. Never raises, whatever the pod."""
    return State(phase=Phase.QUEUED)


def gone(*, now: Micros) -> State:
    """What is to be said of an attempt whose pod is not there any more, and whose end nobody saw."""
    fault = Fault(code="PodDeleted", message="the task's pod is gone, and nobody saw it end", failure=Failure.SYSTEM)
    return State(phase=Phase.RUNNING, since=now, exit=Exit(fault=fault))
