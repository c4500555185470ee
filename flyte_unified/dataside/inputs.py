"""Inputs as files: one for each, and a summary of all.

In ``to``: a file ``x`` with the value of ``x`` as text, or with the content of the file that it is; a directory for a
directory, a table, a list, a map. ``inputs.json`` or ``inputs.yaml`` has all values, ``inputs.pb`` is a core.LiteralMap; in
both an address is where the file is now. Source: DataLoadingConfig in flyteidl2/core/tasks.proto.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
from pathlib import Path

import yaml
from flyteidl2.core import literals_pb2, tasks_pb2, types_pb2
from flyteidl2.task import common_pb2

from flyte_unified.core.literals import plain, text
from flyte_unified.storage.api import checked_path
from flyte_unified.storage.transfer import Transfer

FORMATS = tuple(tasks_pb2.DataLoadingConfig.LiteralMapFormat.keys())
LAYOUTS = tuple(tasks_pb2.DataLoadingConfig.FileInputLayout.keys())

_NAMED = "NAMED_DIR"


async def download(transfer: Transfer, uri: str, to: Path, *, form: str, layout: str) -> None:
    """The inputs at ``uri`` (flyteidl2.task.Inputs), laid out in ``to``. Raises FlyteUnifiedError naming the input."""
    literals = common_pb2.Inputs.FromString(await transfer.get(uri)).literals
    placing = _Placing(transfer, named=layout == _NAMED)
    places = [to / checked_path(entry.name, field="input") for entry in literals]
    values = await asyncio.gather(*(placing.put(e.value, place) for e, place in zip(literals, places, strict=True)))
    local = literals_pb2.LiteralMap(literals={entry.name: value for entry, value in zip(literals, values, strict=True)})
    await asyncio.to_thread(_summarise, local, to, form)


class _Placing:
    """Literals into files, and what they are called then."""

    def __init__(self, transfer: Transfer, *, named: bool) -> None:
        self._transfer = transfer
        self._named = named

    async def put(self, literal: literals_pb2.Literal, place: Path, *, listed: bool = False) -> literals_pb2.Literal:
        """``listed`` places are given as they are to be called; others are made a directory for a named file."""
        if literal.HasField("offloaded_metadata"):
            literal = literals_pb2.Literal.FromString(await self._transfer.get(literal.offloaded_metadata.uri))
        local = literals_pb2.Literal()
        local.CopyFrom(literal)
        match literal.WhichOneof("value"):
            case "collection":
                items = literal.collection.literals
                found = await self._all(items, place, self._names(items))
                del local.collection.literals[:]
                local.collection.literals.extend(found)
            case "map":
                keys = list(literal.map.literals)
                names = [checked_path(key, field=f"a key in {place.name}") for key in keys]
                found = await self._all([literal.map.literals[key] for key in keys], place, names)
                for key, value in zip(keys, found, strict=True):
                    local.map.literals[key].CopyFrom(value)
            case "scalar":
                await self._scalar(literal.scalar, local.scalar, place, listed=listed)
        return local

    async def _all(self, literals: list[literals_pb2.Literal], place: Path, names: list[str]) -> list[literals_pb2.Literal]:
        await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
        pairs = zip(literals, names, strict=True)
        return list(await asyncio.gather(*(self.put(literal, place / name, listed=True) for literal, name in pairs)))

    def _names(self, literals: list[literals_pb2.Literal]) -> list[str]:
        """The files of a list by number, or by their own names; of two with one name the later has its number before it."""
        names: list[str] = []
        for index, literal in enumerate(literals):
            own = posixpath.basename(literal.scalar.blob.uri) if self._named and _is_file(literal.scalar) else ""
            name = own or str(index)
            names.append(f"{index}_{name}" if name in names else name)
        return names

    async def _scalar(self, scalar: literals_pb2.Scalar, local: literals_pb2.Scalar, place: Path, *, listed: bool) -> None:
        kind = scalar.WhichOneof("value")
        if kind == "union":
            local.union.value.CopyFrom(await self.put(scalar.union.value, place, listed=listed))
        elif _is_file(scalar):
            if self._named and not listed:
                place /= posixpath.basename(scalar.blob.uri) or place.name
            await self._transfer.download(scalar.blob.uri, place)
            local.blob.uri = str(place)
        elif kind in ("blob", "schema", "structured_dataset"):
            await self._transfer.download_all(getattr(scalar, kind).uri, place)
            getattr(local, kind).uri = str(place)
        else:
            await asyncio.to_thread(_write, place, text(literals_pb2.Literal(scalar=scalar)))


def _is_file(scalar: literals_pb2.Scalar) -> bool:
    return bool(scalar.HasField("blob") and scalar.blob.metadata.type.dimensionality == types_pb2.BlobType.SINGLE)


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def _summarise(inputs: literals_pb2.LiteralMap, to: Path, form: str) -> None:
    values = {name: plain(value) for name, value in inputs.literals.items()}
    to.mkdir(parents=True, exist_ok=True)
    (to / "inputs.pb").write_bytes(inputs.SerializeToString())
    if form == "JSON":
        _write(to / "inputs.json", json.dumps(values, ensure_ascii=False))
    elif form == "YAML":
        _write(to / "inputs.yaml", yaml.safe_dump(values, allow_unicode=True))
