"""Files to and from a bucket, as the containers beside a task move them."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from flyte_unified.core.errors import NotFound
from flyte_unified.storage.transfer import Transfer
from tests.s3_servers import KEY, REGION, SECRET, Server

LARGE = 9 << 20
"""More than is sent at once."""


@pytest.fixture
def transfer(servers: dict[str, Server]) -> Transfer:
    return Transfer(
        {
            "FLYTE_AWS_ENDPOINT": servers["moto"].endpoint if "moto" in servers else "",
            "FLYTE_AWS_ACCESS_KEY_ID": KEY,
            "FLYTE_AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
        }
    )


@pytest.fixture
def prefix(bucket: str) -> str:
    return f"{bucket}/{uuid.uuid4().hex}"


async def test_what_was_sent_comes_back(transfer: Transfer, prefix: str, tmp_path: Path):
    """Small and large, one and many, with names that a URL would write otherwise."""
    tree = tmp_path / "tree"
    (tree / "sub dir").mkdir(parents=True)
    (tree / "sub dir" / "a+b%20 ü.txt").write_text("named")
    (tree / "large").write_bytes(b"x" * LARGE)
    await transfer.upload_all(tree, f"{prefix}/tree")
    await transfer.put(f"{prefix}/treehouse", b"not below it")
    await transfer.download_all(f"{prefix}/tree", tmp_path / "back")
    found = {path.relative_to(tmp_path / "back").as_posix(): path for path in (tmp_path / "back").rglob("*") if path.is_file()}
    assert set(found) == {"sub dir/a+b%20 ü.txt", "large"}
    assert found["sub dir/a+b%20 ü.txt"].read_text() == "named"
    assert found["large"].stat().st_size == LARGE
    assert await transfer.get(f"{prefix}/treehouse") == b"not below it"
    await transfer.download(f"{prefix}/tree/large", tmp_path / "one" / "file")
    assert (tmp_path / "one" / "file").read_bytes() == b"x" * LARGE


async def test_what_is_not_there(transfer: Transfer, prefix: str, tmp_path: Path):
    """Told apart from a store that is away; nothing below an address is an empty directory."""
    assert not await transfer.exists(f"{prefix}/none")
    with pytest.raises(NotFound, match="none does not exist"):
        await transfer.get(f"{prefix}/none")
    with pytest.raises(NotFound):
        await transfer.download(f"{prefix}/none", tmp_path / "none")
    await transfer.download_all(f"{prefix}/none", tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
