"""Taking reports to the ledger."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ActionKey, action_key
from flyte_unified.events import reports
from flyte_unified.ledger.api import Action, Ledger, Move, Productions, Retry


async def record(
    ledger: Ledger, productions: Productions, events: Iterable[run_definition_pb2.ActionEvent], *, field: str = "events"
) -> None:
    """Applies events in their order, those of different actions beside each other; what is known already changes nothing.

    Raises NotFound for an action that is not there and InvalidArgument naming the field, and has then applied nothing.
    """
    by_action: defaultdict[ActionKey, list[run_definition_pb2.ActionEvent]] = defaultdict(list)
    for index, event in enumerate(events):
        if event.attempt == 0:
            raise InvalidArgument(f"{field}[{index}].attempt is 0: attempts are counted from 1")
        by_action[action_key(event.id, field=f"{field}[{index}].id")].append(event)
    actions = [await ledger.action(key) for key in by_action]
    meant = [
        (action, reports.of_events(action, by_action[action.key], retries=await _retries(ledger, action))) for action in actions
    ]
    moves = (_move(ledger, productions, action, steps) for action, steps in meant if steps)
    for outcome in await asyncio.gather(*moves, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _move(ledger: Ledger, productions: Productions, action: Action, meant: Sequence[Move | Retry]) -> None:
    steps, beside = await productions.of(action, meant)
    await ledger.move(action.key, *steps, beside=beside)


async def _retries(ledger: Ledger, action: Action) -> int:
    """How many attempts after the first the task asks for."""
    if action.spec_digest is None:
        return 0
    retries: int = (await ledger.spec(action.spec_digest)).task_template.metadata.retries.retries
    return retries
