"""EventsProxyService on the wire."""

from __future__ import annotations

from collections.abc import Callable

from flyteidl2.workflow import events_proxy_service_pb2

from flyte_unified.core.context import CallContext, Identity
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import RunKey, action_key
from flyte_unified.events.service import record
from flyte_unified.ledger.api import Ledger, Productions


class EventsHandlers:
    """flyteidl2.workflow.EventsProxyService

    ``admit`` raises PermissionDenied when the caller may not speak of a run.
    """

    def __init__(self, *, ledger: Ledger, productions: Productions, admit: Callable[[Identity, RunKey], None]) -> None:
        self._ledger = ledger
        self._productions = productions
        self._admit = admit

    async def record(
        self, message: events_proxy_service_pb2.RecordRequest, ctx: CallContext
    ) -> events_proxy_service_pb2.RecordResponse:
        if not message.events:
            raise InvalidArgument("events is empty")
        for index, event in enumerate(message.events):
            self._admit(ctx.identity, action_key(event.id, field=f"events[{index}].id").run_key)
        await record(self._ledger, self._productions, message.events)
        return events_proxy_service_pb2.RecordResponse()
