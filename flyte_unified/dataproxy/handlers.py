"""DataProxyService, RunLogsService and ClusterService: wire to domain and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from flyteidl2.cluster import payload_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy
from flyteidl2.workflow import run_logs_service_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.ids import action_key
from flyte_unified.dataproxy.downloads import Downloads
from flyte_unified.dataproxy.logs import LogTail, log_lines
from flyte_unified.dataproxy.uploads import Uploads


class DataProxyHandlers:
    """flyteidl2.dataproxy.DataProxyService. ``public_url`` begins signed URLs; empty: as the caller reached us."""

    def __init__(self, *, uploads: Uploads, downloads: Downloads, logs: LogTail, public_url: str = "") -> None:
        self._uploads = uploads
        self._downloads = downloads
        self._logs = logs
        self._public_url = public_url

    async def create_upload_location(
        self, message: dataproxy.CreateUploadLocationRequest, ctx: CallContext
    ) -> dataproxy.CreateUploadLocationResponse:
        return await self._uploads.location(message, base_url=self._public_url or ctx.base_url)

    async def upload_inputs(self, message: dataproxy.UploadInputsRequest, ctx: CallContext) -> dataproxy.UploadInputsResponse:
        return dataproxy.UploadInputsResponse(offloaded_input_data=await self._uploads.inputs(message))

    async def create_download_link(
        self, message: dataproxy.CreateDownloadLinkRequest, ctx: CallContext
    ) -> dataproxy.CreateDownloadLinkResponse:
        return await self._downloads.link(message, base_url=self._public_url or ctx.base_url)

    async def get_action_data(
        self, message: dataproxy.GetActionDataRequest, ctx: CallContext
    ) -> dataproxy.GetActionDataResponse:
        return await self._downloads.data(action_key(message.action_id))

    async def tail_logs(
        self, message: dataproxy.TailLogsRequest, ctx: CallContext
    ) -> AsyncGenerator[dataproxy.TailLogsResponse]:
        """A local process is its own only pod, so the selector of pods chooses nothing."""
        response = dataproxy.TailLogsResponse
        async with aclosing(self._logs.follow(action_key(message.action_id), message.attempt)) as batches:
            async for batch in batches:
                yield response(logs=[response.Logs(lines=log_lines(batch))] if batch else [])


class RunLogsHandlers:
    """flyteidl2.workflow.RunLogsService, the older name of DataProxyService.TailLogs."""

    def __init__(self, *, logs: LogTail) -> None:
        self._logs = logs

    async def tail_logs(
        self, message: run_logs_service_pb2.TailLogsRequest, ctx: CallContext
    ) -> AsyncGenerator[run_logs_service_pb2.TailLogsResponse]:
        response = run_logs_service_pb2.TailLogsResponse
        async with aclosing(self._logs.follow(action_key(message.action_id), message.attempt)) as batches:
            async for batch in batches:
                yield response(logs=[response.Logs(lines=log_lines(batch))] if batch else [])


class ClusterHandlers:
    """flyteidl2.cluster.ClusterService. There is one cluster: whatever is asked for, the client is already there."""

    async def select_cluster(
        self, message: payload_pb2.SelectClusterRequest, ctx: CallContext
    ) -> payload_pb2.SelectClusterResponse:
        return payload_pb2.SelectClusterResponse()
