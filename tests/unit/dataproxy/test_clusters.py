"""ClusterService: the answer that keeps the SDK from looking for another server."""

from __future__ import annotations

import pytest
from flyteidl2.cluster import payload_pb2 as cluster

from flyte_unified.core.context import CallContext
from flyte_unified.dataproxy.handlers import ClusterHandlers


@pytest.mark.parametrize("operation", cluster.SelectClusterRequest.Operation.values())
async def test_the_client_is_where_it_should_be(operation: int) -> None:
    """No operation is sent elsewhere: an empty endpoint means the one that was asked."""
    request = cluster.SelectClusterRequest(operation=operation)  # type: ignore[arg-type]  # an enum's number
    reply = await ClusterHandlers().select_cluster(request, CallContext("/test"))
    assert reply == cluster.SelectClusterResponse()
