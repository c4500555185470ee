"""A server whose storage is Google's or Azure's: programs, unchanged, read and write it beside the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from flyte_unified.testing import Backend
from tests import cloud_servers
from tests.cloud_servers import Server
from tests.s3_servers import BUCKET
from tests.sdk.conftest import SETTINGS, Client
from tests.sdk.forks import Forks

MISSING = cloud_servers.missing()
CASES = ("nested", "report", "files")


@dataclass
class CloudClient(Client):
    """A user who may read and write the bucket."""

    server: Server | None = None

    @property
    def environment(self) -> dict[str, str]:
        assert self.server is not None
        return {**super().environment, **self.server.environment}


@pytest.fixture(scope="module", params=["google", "azurite"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[CloudClient]:
    if request.param in MISSING:
        pytest.skip(MISSING[request.param])
    directory = tmp_path_factory.mktemp(request.param)
    with getattr(cloud_servers, request.param)(directory) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        with Backend({**SETTINGS, "storage.root": f"{server.scheme}://{BUCKET}/a/prefix"}) as backend:
            backend.create_project("programs")
            yield CloudClient(backend, Path(directory) / "home", "programs", forks=forks, server=server)


def test_tasks_fan_out_over_a_cloud(cloud: CloudClient) -> None:
    """Code goes up by signed URL; inputs, outputs, reports and files of tasks in tasks lie in the bucket and come back."""
    said = cloud.say("shapes", *CASES)
    assert said["nested"]["outputs"] == [5]
    assert "<h1>All is well</h1>" in said["report"]["html"]
    assert (said["files"]["text"], said["files"]["names"]) == ("QUIET WORDS", ["one.txt", "two.txt"])
    names = _names(cloud)
    for action in ("a0", *(child["name"] for child in said["nested children"]["actions"])):
        assert f"a/prefix/programs/development/{said['nested']['run']}/{action}/1/outputs.pb" in names
    assert [name for name in names if name.startswith("a/prefix/_bundles/") and name.endswith(".tar.gz")]


def _names(cloud: CloudClient) -> set[str]:
    assert cloud.server is not None
    bucket = from_url(f"{cloud.server.scheme}://{BUCKET}", client_options={"allow_http": True})
    return {str(entry["path"]) for page in obstore.list(bucket) for entry in page}
