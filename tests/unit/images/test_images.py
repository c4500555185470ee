"""Images and clusters: the answers that keep the SDK from building one and from looking for the other."""

from __future__ import annotations

import pytest
from flyteidl2.cluster import payload_pb2 as cluster
from flyteidl2.imagebuilder import payload_pb2 as images

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.dataproxy.handlers import ClusterHandlers
from flyte_unified.images.handlers import ImageHandlers

_CONTEXT = CallContext("/test")


async def test_every_image_exists() -> None:
    """Any image is answered with a name; a request that names none is refused."""
    request = images.GetImageRequest()
    request.id.name = "env:0f0f"
    image = (await ImageHandlers().get_image(request, _CONTEXT)).image
    assert (image.fqin, image.id.name) == ("local/env:0f0f", "env:0f0f")
    with pytest.raises(InvalidArgument, match=r"id\.name"):
        await ImageHandlers().get_image(images.GetImageRequest(), _CONTEXT)


@pytest.mark.parametrize("operation", cluster.SelectClusterRequest.Operation.values())
async def test_the_client_is_where_it_should_be(operation: int) -> None:
    """No operation is sent elsewhere: an empty endpoint means the one that was asked."""
    request = cluster.SelectClusterRequest(operation=operation)  # type: ignore[arg-type]  # an enum's number
    reply = await ClusterHandlers().select_cluster(request, _CONTEXT)
    assert reply == cluster.SelectClusterResponse()
