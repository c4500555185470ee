"""DataProxyService and ClusterService: wire to domain and back."""

from __future__ import annotations

from flyteidl2.cluster import payload_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy

from flyte_unified.core.context import CallContext
from flyte_unified.core.ids import action_key
from flyte_unified.dataproxy.downloads import Downloads
from flyte_unified.dataproxy.uploads import Uploads


class DataProxyHandlers:
    """flyteidl2.dataproxy.DataProxyService. ``public_url`` begins signed URLs; empty: as the caller reached us."""

    def __init__(self, *, uploads: Uploads, downloads: Downloads, public_url: str = "") -> None:
        self._uploads = uploads
        self._downloads = downloads
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


class ClusterHandlers:
    """flyteidl2.cluster.ClusterService. There is one cluster: whatever is asked for, the client is already there."""

    async def select_cluster(
        self, message: payload_pb2.SelectClusterRequest, ctx: CallContext
    ) -> payload_pb2.SelectClusterResponse:
        return payload_pb2.SelectClusterResponse()
