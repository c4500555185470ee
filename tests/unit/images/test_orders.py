"""What a client orders, read from what it sent."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.images.orders import Order, order


def packed(archive: Path, files: dict[str, bytes | str]) -> Path:
    """An archive; a file whose content is text is a link to it."""
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return archive


def ordered(tmp_path: Path, files: dict[str, bytes | str]) -> Order:
    archive = packed(tmp_path / "context.tar.gz", files)
    return order(b"", "env:1", archive, tmp_path / f"context-{os.urandom(4).hex()}")


def test_a_link_to_another_place_is_other_content(tmp_path: Path) -> None:
    """What it leads to may be a directory, whose files are the same in both."""
    files: dict[str, bytes | str] = {"a/x": b"1", "b/x": b"2"}
    first = ordered(tmp_path, {**files, "used": "a"})
    assert first.key == ordered(tmp_path, {**files, "used": "a"}).key
    assert first.key != ordered(tmp_path, {**files, "used": "b"}).key


@pytest.mark.parametrize(
    "files",
    [{"../x": b"out"}, {"x": "/etc/passwd"}, {"x": "../../x"}, {"a": b"file", "a/b": b"below a file"}],
)
def test_an_archive_that_cannot_be_laid_out_is_refused(tmp_path: Path, files: dict[str, bytes | str]) -> None:
    """What leads out of it, whether by name or by link, and what contradicts itself."""
    with pytest.raises(InvalidArgument, match="spec and context"):
        ordered(tmp_path, files)


def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """In words for the build's log, as everything that is wrong with an order."""
    archive = packed(tmp_path / "context.tar.gz", {"x": os.urandom(100_000)})
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(InvalidArgument, match="spec and context"):
        order(b"", "env:1", archive, tmp_path / "context")
