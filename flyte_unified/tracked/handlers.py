"""TrackedRunService on the wire."""

from __future__ import annotations

from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_service_pb2
from flyteidl2.workflow import tracked_run_service_pb2 as idl
from google.rpc import status_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument
from flyte_unified.ledger.api import Ledger
from flyte_unified.runs.api import Reader, ReadHandlers, run_view
from flyte_unified.tracked.service import TrackedRuns


class TrackedRunsHandlers(ReadHandlers):
    """flyteidl2.workflow.TrackedRunService"""

    def __init__(self, *, ledger: Ledger, reader: Reader, tracked: TrackedRuns) -> None:
        super().__init__(ledger=ledger, reader=reader, tracked=True)
        self._runs = tracked

    async def create_run(self, message: idl.CreateTrackedRunRequest, ctx: CallContext) -> run_service_pb2.CreateRunResponse:
        run, root = await self._runs.create(message, ctx)
        org = message.run_id.org or message.project_id.organization
        spec = run_pb2.RunSpec.FromString(run.run_spec)
        return run_service_pb2.CreateRunResponse(run=run_view(root, run, spec, org=org))

    async def report_actions(
        self, message: idl.ReportTrackedActionsRequest, ctx: CallContext
    ) -> idl.ReportTrackedActionsResponse:
        """What is wrong with one report is told in its own status."""
        if not message.updates:
            raise InvalidArgument("updates is empty")
        run = await self._run(message.run_id)
        return idl.ReportTrackedActionsResponse(statuses=map(_status, await self._runs.report(message, run, ctx)))

    async def abort_run(self, message: run_service_pb2.AbortRunRequest, ctx: CallContext) -> run_service_pb2.AbortRunResponse:
        run = await self._run(message.run_id)
        await self._runs.abort(run, reason=message.reason, principal=ctx.identity.subject)
        return run_service_pb2.AbortRunResponse()


def _status(error: FlyteUnifiedError | None) -> status_pb2.Status:
    return status_pb2.Status(code=int(error.code), message=error.message) if error is not None else status_pb2.Status()
