"""What a build is told, fetched from where the client left it."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from flyteidl2.imagebuilder import definition_pb2
from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.images import INPUTS
from flyte_unified.storage.transfer import Transfer

_FORMAT = "1"
"""Part of every key: another one where what an older server built would not do."""
_NOT_READ = (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""What reading an archive ends with that is cut off or damaged, or whose members are in each other's way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An image to be built. ``context`` is the directory of what the client sent along."""

    spec: definition_pb2.ImageSpec
    context: Path
    name: str

    @property
    def key(self) -> str:
        """Of the content: the same layers with the same files."""
        digest = hashlib.sha256(_FORMAT.encode() + self.spec.SerializeToString(deterministic=True))
        for path in sorted(self.context.rglob("*")):
            content = _content(path)
            mode = path.lstat().st_mode
            digest.update(repr((str(path.relative_to(self.context)), mode, len(content))).encode() + content)
        return digest.hexdigest()[:32]


async def fetched(transfer: Transfer, inputs: str, archive: Path) -> tuple[bytes, str]:
    """The spec and the name that the inputs at an address say; what the client sent along is ``archive`` then, if it did.

    Raises NotFound.
    """
    found = {entry.name: entry.value for entry in common_pb2.Inputs.FromString(await transfer.get(inputs)).literals}
    spec, context, name = (found[name].scalar.primitive.string_value for name in INPUTS)
    if context:
        await transfer.download(context, archive)
    return await transfer.get(spec), name


def order(spec: bytes, name: str, archive: Path, context: Path) -> Order:
    """Raises InvalidArgument for what can't be read."""
    context.mkdir(exist_ok=True)
    try:
        if archive.exists():
            with tarfile.open(archive) as tar:
                tar.extractall(context, filter="data")
        return Order(spec=definition_pb2.ImageSpec.FromString(spec), context=context, name=name)
    except (DecodeError, *_NOT_READ) as error:
        raise InvalidArgument(f"spec and context: {error}") from error


def _content(path: Path) -> bytes:
    """A link's is where it leads: that may be a directory."""
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""
