"""What becomes of fires that nobody was there for: the server was down, the machine asleep, or its clock was set. Pure.

The IDL has no field for it, so a trigger says it in an annotation of its run spec, ``flyte.Trigger(annotations=...)`` in the
SDK; the settings say it for those that don't.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from flyteidl2.task import run_pb2

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.triggers.schedule import Schedule, latest

ANNOTATION = "flyte-unified/catch-up"
_LATE = 60 * SECOND
"""How late a fire may be and still be called on time: a restart of the server takes less."""


class Policy(enum.StrEnum):
    """Which of the missed fires become runs."""

    ALL = "all"
    """Each of them, the oldest first, but of many the latest only: see ``CatchUp.limit``."""
    LATEST = "latest"
    """The last one."""
    SKIP = "skip"
    """None."""


@dataclass(frozen=True, slots=True)
class CatchUp:
    """``policy`` of triggers that choose none; ``limit`` is how many missed fires of one trigger become runs at most."""

    policy: Policy = Policy.ALL
    limit: int = 100

    def choose(self, schedule: Schedule, run_spec: run_pb2.RunSpec, *, due: Micros, now: Micros) -> Micros | None:
        """Which fire is next to become a run, of those from ``due`` up to ``now``; what is before it is dropped."""
        policy = chosen(run_spec) or self.policy
        found = latest(schedule, due=due, now=now, limit=self.limit if policy is Policy.ALL else 1)
        if not found or (policy is Policy.SKIP and now - found[-1] > _LATE):
            return None
        return found[0]


def chosen(run_spec: run_pb2.RunSpec) -> Policy | None:
    """What the trigger itself says. Raises InvalidArgument."""
    told = run_spec.annotations.values.get(ANNOTATION)
    if told is None:
        return None
    try:
        return Policy(told)
    except ValueError:
        known = ", ".join(Policy)
        raise InvalidArgument(f"spec.run_spec.annotations: {ANNOTATION} is {told[:64]!r}; known are {known}") from None
