"""ImageService: which images there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from flyteidl2.imagebuilder import payload_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.images.environments import Environment
from flyte_unified.images.handlers import ImageHandlers

_CONTEXT = CallContext("/test")
_BUILT = Environment(path=Path("/images/1"), key="0", variables=[], run="books/production/r7", size=1)


def _request(name: str) -> payload_pb2.GetImageRequest:
    request = payload_pb2.GetImageRequest(organization="acme")
    request.id.name = name
    return request


async def test_an_image_that_was_built_has_an_address_and_a_build() -> None:
    """A reply with an address is how the SDK learns that it need not build; it links the image to the run that did."""
    image = (await ImageHandlers(named={"env:0f": _BUILT}.get).get_image(_request("env:0f"), _CONTEXT)).image
    assert (image.fqin, image.id.name) == ("local/env:0f", "env:0f")
    build = image.build_run
    assert (build.org, build.project, build.domain, build.name) == ("acme", "books", "production", "r7")


async def test_any_other_is_not_found() -> None:
    """That is how the SDK learns that it has to build."""
    with pytest.raises(NotFound, match="env:1"):
        await ImageHandlers(named={"env:0f": _BUILT}.get).get_image(_request("env:1"), _CONTEXT)


async def test_where_nothing_is_built_every_image_exists() -> None:
    """images.build: false has tasks run in the chosen interpreter, whatever their images are."""
    image = (await ImageHandlers(named=None).get_image(_request("env:1"), _CONTEXT)).image
    assert image.fqin == "env:1"
    assert not image.HasField("build_run")


async def test_a_request_that_names_none_is_refused() -> None:
    """The message says which field is empty."""
    with pytest.raises(InvalidArgument, match=r"id\.name"):
        await ImageHandlers(named=None).get_image(payload_pb2.GetImageRequest(), _CONTEXT)
