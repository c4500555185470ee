"""ImageService: every image exists.

Tasks on a laptop run in an interpreter and not in a container, so no image is ever built; a reply with a name is how the SDK
learns that it need not build one.
"""

from __future__ import annotations

from flyteidl2.imagebuilder import definition_pb2, payload_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument


class ImageHandlers:
    """flyteidl2.imagebuilder.ImageService."""

    async def get_image(self, message: payload_pb2.GetImageRequest, ctx: CallContext) -> payload_pb2.GetImageResponse:
        if not message.id.name:
            raise InvalidArgument("id.name is empty")
        image = definition_pb2.Image(id=message.id, fqin=f"local/{message.id.name}")
        return payload_pb2.GetImageResponse(image=image)
