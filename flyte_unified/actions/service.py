"""Rules of ActionsService and of the older QueueService and StateService, which take the same messages.

A call that came with a run's token may touch that run only. Repeating a call is safe: what exists is answered as it is.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

from flyteidl2.actions import actions_service_pb2
from flyteidl2.core import execution_pb2, types_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import queue_service_pb2, state_service_pb2

from flyte_unified.actions.recovery import Recovery
from flyte_unified.core.clock import Clock, Micros, micros
from flyte_unified.core.context import Identity
from flyte_unified.core.errors import InvalidArgument, NotFound, PermissionDenied
from flyte_unified.core.ids import ActionKey, RunKey, action_key
from flyte_unified.core.phases import Phase, phase_of
from flyte_unified.core.queues import Queues
from flyte_unified.db.api import Work
from flyte_unified.ledger.api import (
    Action,
    ActionType,
    EncodedSpec,
    Ledger,
    Move,
    TaskId,
    error_info,
    first_record,
    record_of,
    task_action,
)

Enqueued: TypeAlias = actions_service_pb2.Action | queue_service_pb2.EnqueueActionRequest
"""Both carry the same fields under the same names."""

Announce: TypeAlias = Callable[[Action, run_pb2.RunSpec], Callable[[], Work[None]] | None]
"""From a condition that begins, and its run, to who is to be told, as a part of the transaction that stores it."""

_SIGNAL_TYPES = frozenset({types_pb2.BOOLEAN, types_pb2.INTEGER, types_pb2.FLOAT, types_pb2.STRING})


class Actions:
    """``read_error`` reads an error.pb, or None where there is none. ``owns``: whether an address is of the server's storage.

    ``announce`` says who is to be told of a condition. ``token_required``: refuse calls without a run's token.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        recovery: Recovery,
        read_error: Callable[[str], Awaitable[execution_pb2.ErrorDocument | None]],
        owns: Callable[[str], bool],
        queues: Queues,
        announce: Announce,
        token_required: bool = False,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._recovery = recovery
        self._read_error = read_error
        self._owns = owns
        self._queues = queues
        self._announce = announce
        self._token_required = token_required

    def admit(self, identity: Identity, run: RunKey) -> None:
        """Raises PermissionDenied when the caller is not of this run."""
        if identity.run is None and self._token_required:
            raise PermissionDenied("only a task of the run may call this, and this call came without the run's token")
        if identity.run is not None and identity.run != run:
            raise PermissionDenied(f"the token is of run {identity.run}, not of {run}")

    async def enqueue(self, message: Enqueued, identity: Identity) -> Action:
        """Stores a child action. Raises InvalidArgument naming the field, NotFound, Aborted, AlreadyExists."""
        key = action_key(message.action_id, field="action.action_id")
        self.admit(identity, key.run_key)
        if not message.parent_action_name:
            raise InvalidArgument("action.parent_action_name is empty: a root action comes into being with its run")
        kind = message.WhichOneof("spec")
        if kind == "task":
            return await self._enqueue_task(key, message)
        if kind == "trace":
            return (await self._ledger.enqueue(await self._trace(key, message)))[0]
        if kind == "condition":
            new = self._condition(key, message)
            _, run_spec = await self._ledger.run(key.run_key)
            return (await self._ledger.enqueue(new, beside=self._announce(new, run_spec)))[0]
        raise InvalidArgument(
            "action.spec is empty; a condition needs the actions service (_U_USE_ACTIONS=1 in the task's environment)"
        )

    async def watch(self, parent: ActionKey, *, org: str) -> AsyncGenerator[state_service_pb2.ActionUpdate | None]:
        """The parent's own state and its children's, then None once, then their changes. Raises NotFound."""
        async with aclosing(self._ledger.watch_family(parent)) as updates:
            async for changed, snapshot in updates:
                if snapshot and not changed:
                    raise NotFound(f"there is no action {parent}")
                for action in changed:
                    yield update_of(action, org=org)
                if snapshot:
                    yield None

    async def abort(self, key: ActionKey, *, reason: str, principal: str) -> None:
        """Aborts an action and all below it; one that has ended stays as it is. Raises NotFound."""
        move = Move(to=Phase.ABORTED, reason=reason or "aborted by its caller", principal=principal)
        await self._ledger.move(key, move)

    async def _enqueue_task(self, key: ActionKey, message: Enqueued) -> Action:
        self._check_owned(message.input_uri, field="action.input_uri")
        self._check_owned(message.run_output_base, below=key.name, field="action.run_output_base")
        if not message.task.spec.task_template.type:
            raise InvalidArgument("action.task.spec.task_template.type is empty")
        self._queues.check(message.task.queue, field="action.task.queue")
        _, run_spec = await self._ledger.run(key.run_key)
        spec = EncodedSpec.of(message.task.spec)
        new = task_action(
            key,
            spec,
            now=self._clock.now(),
            parent=message.parent_action_name,
            group=message.group,
            input_uri=message.input_uri,
            output_base=message.run_output_base,
            cache_key=message.task.cache_key.value,
            queue=message.task.queue or run_spec.queue,
        )
        return (await self._ledger.enqueue(await self._recovery.of(new), spec))[0]

    def _check_owned(self, uri: str, *, below: str = "", field: str) -> None:
        """``below`` it is what will be read or written."""
        if not uri:
            raise InvalidArgument(f"{field} is empty")
        if not self._owns(posixpath.join(uri, below) if below else uri):
            raise InvalidArgument(f"{field}: {uri[:256]!r} is not below the server's storage")

    async def _trace(self, key: ActionKey, message: Enqueued) -> Action:
        trace = message.trace
        phase = phase_of(trace.phase, field="action.trace.phase")
        if not phase.terminal:
            raise InvalidArgument(f"action.trace.phase is {phase.name}: a trace is recorded when it has ended")
        now = self._clock.now()
        start = micros(trace.start_time, field="action.trace.start_time") if trace.HasField("start_time") else now
        end = micros(trace.end_time, field="action.trace.end_time") if trace.HasField("end_time") else now
        end = Micros(max(start, end))
        error = None
        if phase is Phase.FAILED:
            error = await self._trace_error(posixpath.join(message.run_output_base, key.name, "error.pb"))
        record = record_of((Phase.RUNNING, start), (phase, end))
        record.outputs.output_uri = trace.outputs.output_uri
        if error is not None:
            record.error_info.CopyFrom(error_info(error))
        return Action(
            key=key,
            parent=message.parent_action_name,
            depth=0,
            action_type=ActionType.TRACE,
            group_name=message.group,
            phase=phase,
            created_at=start,
            updated_at=now,
            started_at=start,
            ended_at=end,
            task=TaskId(name=trace.name),
            short_name=trace.name,
            spec=trace.spec.SerializeToString(),
            input_uri=message.input_uri,
            output_base=message.run_output_base,
            output_uri=trace.outputs.output_uri,
            error=error.SerializeToString() if error is not None else None,
            record=record.SerializeToString(),
        )

    async def _trace_error(self, uri: str) -> execution_pb2.ExecutionError:
        document = await self._read_error(uri)
        if document is None:
            return execution_pb2.ExecutionError(
                code="TraceFailed", message="the trace failed and left no error.pb", kind=execution_pb2.ExecutionError.USER
            )
        return execution_error(document)

    def _condition(self, key: ActionKey, message: Enqueued) -> Action:
        condition = message.condition
        if not condition.name:
            raise InvalidArgument("action.condition.name is empty")
        if condition.type.WhichOneof("type") != "simple" or condition.type.simple not in _SIGNAL_TYPES:
            raise InvalidArgument("action.condition.type: a signal is a bool, an int, a float or a string")
        now = self._clock.now()
        return Action(
            key=key,
            parent=message.parent_action_name,
            depth=0,
            action_type=ActionType.CONDITION,
            group_name=message.group,
            phase=Phase.PAUSED,
            created_at=now,
            updated_at=now,
            task=TaskId(name=condition.name),
            short_name=condition.name,
            spec=condition.SerializeToString(),
            input_uri=message.input_uri,
            output_base=message.run_output_base,
            record=first_record(Phase.PAUSED, at=now).SerializeToString(),
        )


def update_of(action: Action, *, org: str) -> state_service_pb2.ActionUpdate:
    """What a watching parent is told of an action."""
    output_uri = action.output_uri
    if not output_uri and action.action_type is ActionType.TASK:  # where its outputs will be: the SDK warns without it
        output_uri = f"{action.output_base.rstrip('/')}/{action.key.name}/{action.attempt}"
    update = state_service_pb2.ActionUpdate(action_id=action.key.idl(org), phase=int(action.phase), output_uri=output_uri)
    if action.error is not None and action.phase in (Phase.FAILED, Phase.TIMED_OUT):
        update.error.ParseFromString(action.error)
    if action.value is not None:
        update.value.ParseFromString(action.value)
    return update


def execution_error(document: execution_pb2.ErrorDocument) -> execution_pb2.ExecutionError:
    """The error that a task wrote, as its caller is told of it."""
    error = document.error
    kind = error.origin or execution_pb2.ExecutionError.USER
    return execution_pb2.ExecutionError(code=error.code, message=error.message, kind=kind, recoverability=error.kind)
