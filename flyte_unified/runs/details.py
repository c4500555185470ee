"""Everything about one run or one action: once, or as it changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, RunKey
from flyte_unified.core.phases import SUCCESS
from flyte_unified.dataproxy.api import INPUTS, OUTPUTS, file_in
from flyte_unified.ledger.api import Action, Details, Ledger
from flyte_unified.runs import views
from flyte_unified.storage.api import DataStore

_EVENTS = 500
"""Cluster events in one message."""


class Reader:
    """``max_bytes`` is the largest inputs.pb or outputs.pb that is read."""

    def __init__(self, *, ledger: Ledger, data: DataStore, max_bytes: int = 64 << 20) -> None:
        self._ledger = ledger
        self._data = data
        self._max_bytes = max_bytes

    async def action(self, key: ActionKey, *, org: str) -> run_definition_pb2.ActionDetails:
        """Raises NotFound."""
        return await self._describe(await self._ledger.action(key), org=org)

    async def watch_action(self, key: ActionKey, *, org: str) -> AsyncGenerator[run_definition_pb2.ActionDetails]:
        """The action as it is, then as it changes; the last message is of its end. Raises NotFound."""
        async with aclosing(self._ledger.watch_action(key)) as updates:
            async for action in updates:
                yield await self._describe(action, org=org)

    async def run(self, key: RunKey, *, org: str) -> run_definition_pb2.RunDetails:
        """Raises NotFound."""
        _, spec = await self._ledger.run(key)
        return run_definition_pb2.RunDetails(run_spec=spec, action=await self.action(key.action(ROOT_ACTION), org=org))

    async def watch_run(self, key: RunKey, *, org: str) -> AsyncGenerator[run_definition_pb2.RunDetails]:
        """The run as it is, then as its root action changes, until that has ended. Raises NotFound."""
        _, spec = await self._ledger.run(key)
        async with aclosing(self.watch_action(key.action(ROOT_ACTION), org=org)) as updates:
            async for details in updates:
                yield run_definition_pb2.RunDetails(run_spec=spec, action=details)

    async def data_uris(self, key: ActionKey) -> tuple[str, str]:
        """Where inputs and outputs are; outputs are empty before a success, and where there are none. Raises NotFound."""
        return _uris(await self._ledger.action(key))

    async def data(self, key: ActionKey) -> run_service_pb2.GetActionDataResponse:
        """Inputs and outputs themselves; what is not there is empty. Raises NotFound for the action only."""
        action = await self._ledger.action(key)
        inputs, outputs = _uris(action)
        response = run_service_pb2.GetActionDataResponse(inputs=common_pb2.Inputs(), outputs=common_pb2.Outputs())
        response.inputs.MergeFromString(await self._file(inputs))
        if action.value is not None:
            output = response.outputs.literals.add(name="o0")
            output.value.MergeFromString(action.value)
        else:
            response.outputs.MergeFromString(await self._file(outputs))
        return response

    async def log_context(self, key: ActionKey, attempt: int) -> run_service_pb2.GetActionLogContextResponse:
        """Where an attempt's logs are; attempt 0 is the latest. Raises NotFound where nothing is known of them."""
        record = _attempt(await self._ledger.details(key), attempt)
        if not record.HasField("log_context"):
            raise NotFound(f"action {key} has no logs of attempt {record.attempt}")
        return run_service_pb2.GetActionLogContextResponse(
            log_context=record.log_context,
            cluster=record.cluster,
            start_time=record.start_time,
            end_time=record.end_time if record.HasField("end_time") else None,
        )

    async def watch_cluster_events(self, key: ActionKey, attempt: int) -> AsyncGenerator[list[run_definition_pb2.ClusterEvent]]:
        """An attempt's events, then new ones, until the attempt has ended; attempt 0 is the latest there is now."""
        told = 0
        async with aclosing(self._ledger.watch_action(key)) as updates:
            async for action in updates:
                attempt = attempt or action.attempt
                record = _attempt(await self._ledger.of(action), attempt)
                for batch in _batches(list(record.cluster_events)[told:]):
                    yield batch
                told = len(record.cluster_events)
                if attempt < action.attempt:
                    return

    async def _describe(self, action: Action, *, org: str) -> run_definition_pb2.ActionDetails:
        run, run_spec = await self._ledger.run(action.key.run_key)
        task = await self._ledger.spec(action.spec_digest) if action.spec_digest is not None else None
        return views.details(await self._ledger.of(action), run, run_spec, task, org=org)

    async def _file(self, uri: str) -> bytes:
        if not uri:
            return b""
        try:
            return await self._data.get(uri, limit=self._max_bytes)
        except NotFound:
            return b""


def _uris(action: Action) -> tuple[str, str]:
    inputs = file_in(action.input_uri, INPUTS) if action.input_uri else ""
    outputs = file_in(action.output_uri, OUTPUTS) if action.output_uri and action.phase in SUCCESS else ""
    return inputs, outputs


def _attempt(details: Details, attempt: int) -> run_definition_pb2.ActionAttempt:
    number = attempt or details.action.attempt
    for record in details.attempts:
        if record.attempt == number:
            return record
    raise NotFound(f"action {details.action.key} has no attempt {number}")


def _batches(
    events: list[run_definition_pb2.ClusterEvent],
) -> Iterator[list[run_definition_pb2.ClusterEvent]]:
    for start in range(0, len(events), _EVENTS):
        yield events[start : start + _EVENTS]
