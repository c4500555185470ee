"""A server whose storage is a bucket: programs, unchanged, read and write it beside the server."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from minio import Minio

from flyte_unified.testing import Backend
from tests import s3_servers
from tests.s3_servers import BUCKET, KEY, REGION, SECRET, Server
from tests.sdk.conftest import SETTINGS, Client
from tests.sdk.forks import Forks

MISSING = s3_servers.missing()
CASES = ("nested", "map", "report", "checkpoint", "files")
ROOT = f"s3://{BUCKET}/a/prefix"


class BucketClient(Client):
    """A user with keys of the bucket: a file that a run gives back is fetched from there."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self.backend.manager.storage.environment}


@contextmanager
def _client(server: Server, home: Path, forks: Forks) -> Iterator[BucketClient]:
    settings = {
        **SETTINGS,
        "storage.root": ROOT,
        "storage.s3_endpoint": server.endpoint,
        "storage.s3_region": REGION,
        "storage.s3_access_key": KEY,
        "storage.s3_secret_key": SECRET,
    }
    with Backend(settings) as backend:
        backend.create_project("programs")
        yield BucketClient(backend, home, "programs", forks=forks)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[tuple[BucketClient, Minio]]:
    """On a store that does all that S3 does, but takes anybody; and that store as others see it."""
    if "moto" in MISSING:
        pytest.skip(MISSING["moto"])
    with s3_servers.moto() as server, _client(server, tmp_path_factory.mktemp("complete") / "home", forks) as client:
        address = server.endpoint.removeprefix("http://")
        yield client, Minio(address, access_key=KEY, secret_key=SECRET, region=REGION, secure=False)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[tuple[BucketClient, Path]]:
    """On a store that checks each signature and digest, and its directory.

    No task runs on it: it answers a part of an object with status 200, which the SDK does not take for S3.
    """
    if "rclone" in MISSING:
        pytest.skip(MISSING["rclone"])
    with (
        s3_servers.rclone(tmp_path_factory.mktemp("rclone") / "buckets") as server,
        _client(server, tmp_path_factory.mktemp("strict") / "home", forks) as client,
    ):
        assert server.directory is not None
        yield client, server.directory / BUCKET / "a" / "prefix"


def test_tasks_fan_out_over_a_bucket(complete: tuple[BucketClient, Minio]) -> None:
    """Code, inputs and outputs of tasks in tasks lie in the bucket, and so do reports and what attempts leave to the next."""
    client, bucket = complete
    said = client.say("shapes", *CASES)
    assert said["nested"]["outputs"] == [5]
    assert said["map"]["outputs"] == [[0, 2, 4]]
    assert "<h1>All is well</h1>" in said["report"]["html"]
    assert said["checkpoint"]["outputs"] == [["attempt0", "attempt1", "attempt2"]]
    names = _names(bucket, f"programs/development/{said['nested']['run']}/")
    actions = ["a0", *(child["name"] for child in said["nested children"]["actions"])]
    assert {f"{action}/1/outputs.pb" for action in actions} <= names
    (bundle,) = _names(bucket, "_bundles/")
    assert bundle.endswith(".tar.gz")


def test_files_are_copied_to_the_bucket(complete: tuple[BucketClient, Minio]) -> None:
    """A file that a task returns is in the bucket, not left where the task made it; a client reads it from there."""
    client, bucket = complete
    said = client.say("shapes", *CASES)["files"]
    assert (said["text"], said["names"]) == ("QUIET WORDS", ["one.txt", "two.txt"])
    raw = [name.rpartition("/")[2] for name in _names(bucket, "_raw/")]
    assert {"one.txt", "two.txt"} <= set(raw)
    assert len(raw) == 3


def test_the_server_keeps_no_files_of_its_own(complete: tuple[BucketClient, Minio]) -> None:
    """Clients are sent to the store itself: the server has no routes for objects."""
    client, _ = complete
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(f"{client.backend.address}/data/data/x")
    refused.value.close()


def test_code_is_uploaded_to_a_store_that_checks(strict: tuple[BucketClient, Path]) -> None:
    """The SDK sends its bundle with the headers that its URL was signed for."""
    client, bucket = strict
    client.flyte("deploy", "hello.py", "env")
    (bundle,) = (bucket / "_bundles").rglob("fast*.tar.gz")
    assert hashlib.md5(bundle.read_bytes()).hexdigest() == bundle.parent.name


def test_an_upload_is_bound_to_its_content(strict: tuple[BucketClient, Path]) -> None:
    """The store refuses another body than the one whose MD5 was told, whatever header comes with it."""
    client, bucket = strict
    content = b"what was agreed"
    location = _upload_location(client, content)
    assert location["nativeUrl"].startswith(f"{ROOT}/")
    for told in (content, b"something else!"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[03]") as refused:
            _put(location["signedUrl"], b"something else!", md5_of=told)
        refused.value.close()
    stored = bucket / location["nativeUrl"].removeprefix(f"{ROOT}/")
    assert not stored.exists()
    _put(location["signedUrl"], content, md5_of=content)
    assert stored.read_bytes() == content


def _names(bucket: Minio, prefix: str) -> set[str]:
    """What lies below the server's root and ``prefix``, relative to that."""
    start = f"a/prefix/{prefix}"
    found = bucket.list_objects(BUCKET, start, recursive=True)
    return {str(entry.object_name).removeprefix(start) for entry in found}


def _upload_location(client: Client, content: bytes) -> dict[str, str]:
    asked = {
        "project": client.project,
        "domain": "development",
        "filename": "agreed.bin",
        "contentMd5": base64.b64encode(hashlib.md5(content).digest()).decode(),
    }
    request = urllib.request.Request(
        f"{client.backend.address}/flyteidl2.dataproxy.DataProxyService/CreateUploadLocation",
        data=json.dumps(asked).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        found: dict[str, str] = json.load(response)
    return found


def _put(url: str, body: bytes, *, md5_of: bytes) -> None:
    md5 = base64.b64encode(hashlib.md5(md5_of).digest()).decode()
    urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT", headers={"Content-MD5": md5})).close()
