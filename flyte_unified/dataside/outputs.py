"""What a container left as files, as outputs: read by the types of the task's interface, stored, and told in outputs.pb.

An output ``y`` is the file or directory ``y``, or the one file ``y.<ext>``. A file ``_ERROR`` is the container's own word
that it failed. What can't be read is the task's error: it is told in an error.pb, where the manager looks first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from flyteidl2.core import execution_pb2, interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.literals import parse
from flyte_unified.dataside import UNREADABLE
from flyte_unified.storage.transfer import Transfer

ERROR_FILE = "_ERROR"

_LARGEST_VALUE = 1 << 20
_LARGEST_ERROR = 1 << 20
_NONE = literals_pb2.Literal(scalar=literals_pb2.Scalar(none_type=literals_pb2.Void()))


async def upload(
    transfer: Transfer, directory: Path, *, to: str, raw: str, outputs: Sequence[interface_pb2.VariableEntry]
) -> str:
    """Leaves an outputs.pb or an error.pb in ``to``, files of the outputs in ``raw``. Answers with the error, if there is one.

    An outputs.pb or error.pb that is there is the task's own, and is left alone. Raises FlyteUnifiedError when the store fails.
    """
    for name in ("error.pb", "outputs.pb"):
        if await transfer.exists(f"{to}/{name}"):
            return ""
    if (said := await asyncio.to_thread(_own_error, directory)) is not None:
        await tell(transfer, to, "ContainerError", said)
        return said
    reading = _Reading(transfer)
    try:
        found = [await reading.output(entry, directory, raw) for entry in outputs]
    except InvalidArgument as error:
        await tell(transfer, to, UNREADABLE, error.message)
        return error.message
    await transfer.put(f"{to}/outputs.pb", common_pb2.Outputs(literals=found).SerializeToString())
    return ""


async def tell(transfer: Transfer, prefix: str, code: str, message: str) -> None:
    """An error.pb of the task's making, which another attempt may not make."""
    error = execution_pb2.ContainerError(
        code=code,
        message=message,
        kind=execution_pb2.ContainerError.RECOVERABLE,
        origin=execution_pb2.ExecutionError.USER,
    )
    await transfer.put(f"{prefix}/error.pb", execution_pb2.ErrorDocument(error=error).SerializeToString())


class _Reading:
    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer

    async def output(self, entry: interface_pb2.VariableEntry, directory: Path, raw: str) -> common_pb2.NamedLiteral:
        place = await asyncio.to_thread(_found, directory / entry.key)
        value = await self._literal(place, entry.value.type, f"{raw}/{entry.key}", f"output {entry.key}")
        return common_pb2.NamedLiteral(name=entry.key, value=value)

    async def _literal(self, path: Path, kind: types_pb2.LiteralType, raw: str, field: str) -> literals_pb2.Literal:
        match kind.WhichOneof("type"):
            case "union_type":
                return await self._union(path, kind.union_type, raw, field)
            case "blob":
                return await self._blob(path, kind.blob, raw, field)
            case "collection_type":
                items = [
                    await self._literal(item, kind.collection_type, f"{raw}/{item.name}", f"{field}/{item.name}")
                    for item in await asyncio.to_thread(_entries, path, field)
                ]
                return literals_pb2.Literal(collection=literals_pb2.LiteralCollection(literals=items))
            case "map_value_type":
                values = {
                    item.name: await self._literal(item, kind.map_value_type, f"{raw}/{item.name}", f"{field}/{item.name}")
                    for item in await asyncio.to_thread(_entries, path, field)
                }
                return literals_pb2.Literal(map=literals_pb2.LiteralMap(literals=values))
        return parse(await asyncio.to_thread(_content, path, field), kind, field=field)

    async def _union(self, path: Path, kind: types_pb2.UnionType, raw: str, field: str) -> literals_pb2.Literal:
        """The first variant that fits; none at all for an output that isn't there, where that is allowed."""
        empty = [variant for variant in kind.variants if variant.simple == types_pb2.NONE]
        errors = []
        if not path.exists() and empty:  # noqa: ASYNC240  # a look at a local disk
            return _of(empty[0], _NONE)
        for variant in (variant for variant in kind.variants if variant not in empty):
            try:
                return _of(variant, await self._literal(path, variant, raw, field))
            except InvalidArgument as error:
                errors.append(error.message)
        raise InvalidArgument("; ".join(errors) or f"{field}: its type has no variants")

    async def _blob(self, path: Path, kind: types_pb2.BlobType, raw: str, field: str) -> literals_pb2.Literal:
        several = kind.dimensionality == types_pb2.BlobType.MULTIPART
        if not path.exists():  # noqa: ASYNC240  # the same
            raise _missing(path, field)
        if path.is_dir() != several:  # noqa: ASYNC240  # the same
            raise InvalidArgument(f"{field}: {path} is a {'directory' if not several else 'file'}, which its type is not")
        await (self._transfer.upload_all(path, raw) if several else self._transfer.upload(path, raw))
        blob = literals_pb2.Blob(uri=raw, metadata=literals_pb2.BlobMetadata(type=kind))
        return literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=blob))


def _of(variant: types_pb2.LiteralType, value: literals_pb2.Literal) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(union=literals_pb2.Union(value=value, type=variant)))


def _found(path: Path) -> Path:
    """``y``, else the only ``y.*``; where neither is, ``y``."""
    if path.exists():
        return path
    others = list(path.parent.glob(f"{path.name}.*")) if path.parent.is_dir() else []
    return others[0] if len(others) == 1 else path


def _entries(path: Path, field: str) -> list[Path]:
    """What is in a directory: by number where names are numbers, else by name."""
    if not path.is_dir():
        raise _missing(path, field)
    return sorted(path.iterdir(), key=_order)


def _order(path: Path) -> tuple[bool, int, str]:
    number = path.stem.isdecimal()
    return not number, int(path.stem) if number else 0, path.name


def _content(path: Path, field: str) -> str:
    if not path.is_file():
        raise _missing(path, field)
    if (size := path.stat().st_size) > _LARGEST_VALUE:
        raise InvalidArgument(f"{field}: {path} has {size} bytes, a value at most {_LARGEST_VALUE}; make it a file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{field}: {path} is no text in UTF-8") from error


def _missing(path: Path, field: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: the container left no {path}")


def _own_error(directory: Path) -> str | None:
    path = directory / ERROR_FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_LARGEST_ERROR).decode("utf-8", "replace").strip() or "the container says that it failed"
