"""How a condition gets its value: one rule for RunService.SignalEvent and ActionsService.Signal."""

from __future__ import annotations

from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.errors import FailedPrecondition, InvalidArgument
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.model import Action, ActionType, Move
from flyte_unified.ledger.service import Ledger

_PRIMITIVES = {
    types_pb2.BOOLEAN: ("boolean", "a bool"),
    types_pb2.INTEGER: ("integer", "an int"),
    types_pb2.FLOAT: ("float_value", "a float"),
    types_pb2.STRING: ("string_value", "a string"),
}


async def signal(ledger: Ledger, key: ActionKey, value: literals_pb2.Literal, *, principal: str) -> None:
    """Ends a condition with ``value``; one that has ended with the same value stays as it is.

    Raises NotFound, InvalidArgument for a value of another type, FailedPrecondition when the action is no condition or
    has ended otherwise.
    """
    action = await ledger.action(key)
    if action.action_type is not ActionType.CONDITION or action.spec is None:
        raise FailedPrecondition(f"action {key} is no condition")
    condition = run_definition_pb2.ConditionAction.FromString(action.spec)
    raw = check_signal(condition, value).SerializeToString(deterministic=True)
    if not await ledger.move(key, Move(to=Phase.SUCCEEDED, value=raw, principal=principal)):
        _check_ended(await ledger.action(key), raw)


def check_signal(condition: run_definition_pb2.ConditionAction, value: literals_pb2.Literal) -> literals_pb2.Literal:
    """``value`` reduced to what counts. Raises InvalidArgument when it is not of the type that the condition declares."""
    field, wanted = _PRIMITIVES.get(condition.type.simple, ("", "a value of a type that can't be signalled"))
    primitive = value.scalar.primitive
    if not field or primitive.WhichOneof("value") != field:
        raise InvalidArgument(f"value: condition {condition.name!r} waits for {wanted}")
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=primitive))


def _check_ended(action: Action, raw: bytes) -> None:
    if action.phase is not Phase.SUCCEEDED:
        raise FailedPrecondition(f"condition {action.key} has ended ({action.phase.name})")
    if action.value != raw:
        raise FailedPrecondition(f"condition {action.key} was signalled with another value before")
