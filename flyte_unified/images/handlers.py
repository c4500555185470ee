"""flyteidl2.imagebuilder.ImageService: which images there are, as the SDK's remote builder asks before it builds one."""

from __future__ import annotations

from collections.abc import Callable

from flyteidl2.common import identifier_pb2
from flyteidl2.imagebuilder import definition_pb2, payload_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.core.ids import scope_part
from flyte_unified.core.images import OURS
from flyte_unified.images.environments import Environment

Named = Callable[[str], Environment | None]


class ImageHandlers:
    """``named`` knows the environments of images. None: nothing is built, and every image is said to exist at ``unbuilt``."""

    def __init__(self, *, named: Named | None, unbuilt: str = "") -> None:
        self._named = named
        self._unbuilt = unbuilt

    async def get_image(self, message: payload_pb2.GetImageRequest, ctx: CallContext) -> payload_pb2.GetImageResponse:
        if not (name := message.id.name):
            raise InvalidArgument("id.name is empty")
        if message.HasField("project_id"):  # all projects share what is on a machine
            scope_part(message.project_id.name, field="project_id.name")
            scope_part(message.project_id.domain, field="project_id.domain")
        image = definition_pb2.Image(id=message.id, fqin=self._unbuilt + name)
        if self._named is not None:
            image.fqin = OURS + name
            if (found := self._named(name)) is None:
                raise NotFound(f"there is no image {name!r}")
            project, domain, run = found.run.split("/")
            image.build_run.CopyFrom(
                identifier_pb2.RunIdentifier(org=message.organization, project=project, domain=domain, name=run)
            )
        return payload_pb2.GetImageResponse(image=image)
