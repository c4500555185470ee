"""The task that the SDK's remote builder looks for."""

from __future__ import annotations

from pathlib import Path

from flyteidl2.common import list_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.images.task import build_image
from flyte_unified.manager import Manager
from flyte_unified.runs.requests import inputs
from flyte_unified.testing.backend import running


async def found(manager: Manager, domain: str) -> list[str]:
    """The versions that a list of the SDK's finds."""
    named = list_pb2.Filter(function=list_pb2.Filter.EQUAL, field="name", values=["build-image"])
    request = list_pb2.ListRequest(limit=1, filters=[named], sort_by={"key": "created_at", "direction": "DESCENDING"})
    page = await manager._tasks.page(request, project="system", domain=domain)
    return [task.id.version for task, _ in page.tasks]


async def test_it_is_in_every_domain_from_the_start(tmp_path: Path) -> None:
    """In ``production`` too, where clients look unless they are told otherwise; another start adds nothing."""
    settings = {"projects.domains": ("mine",)}
    for _ in range(2):
        async with running(settings, directory=tmp_path) as manager:
            versions = [await found(manager, domain) for domain in ("mine", "production")]
            assert [len(each) for each in versions] == [1, 1]


async def test_there_is_none_where_nothing_is_built(tmp_path: Path) -> None:
    """The SDK says then that there is no remote builder."""
    async with running({"images.build": False}, directory=tmp_path) as manager:
        assert await found(manager, "production") == []


def test_its_version_is_its_contents() -> None:
    """What a laptop and a cluster offer differs in one point: whether a result is for the cache."""
    laptop, cluster = (build_image("system", "production", cached=cached) for cached in (False, True))
    assert laptop == build_image("system", "production", cached=False)
    assert laptop[0].version != cluster[0].version
    assert (laptop[1].task_template.metadata.discoverable, cluster[1].task_template.metadata.discoverable) == (False, True)


def test_an_image_is_known_by_its_name() -> None:
    """For the cache: the same layers may be other bytes each time that a client writes them down."""
    _, task = build_image("system", "production", cached=True)

    def key(**given: str) -> str:
        message = run_service_pb2.CreateRunRequest()
        for name, value in given.items():
            message.inputs.literals.add(name=name).value.scalar.primitive.string_value = value
        return inputs(message, task).hashed

    first = key(spec="s3://a", context="", target_image="snow:1")
    assert key(spec="s3://b", context="s3://c", target_image="snow:1") == first
    assert key(spec="s3://a", context="", target_image="snow:2") != first
