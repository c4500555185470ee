"""The program that builds an image as a virtual environment: an attempt of ``build-image`` (see ``plugins.images``).

What it and uv say is the run's log. Its end is told as the SDK's runtime does it: outputs.pb or error.pb.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.imagebuilder import definition_pb2
from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument
from flyte_unified.core.images import INPUTS, OUTPUT, default
from flyte_unified.images.environments import Environment, Environments
from flyte_unified.images.layers import Places, plan
from flyte_unified.images.programs import Programs, busy, say
from flyte_unified.storage.transfer import Transfer

_FORMAT = "1"
"""Part of every key: another one where an environment of an older server would not do."""

_ARCHIVE = Path("context.tar.gz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line."""

    images: Path
    python: Path
    """What tasks without an image run in."""
    inputs: str
    outputs: str
    run: str
    """``project/domain/run``"""
    count: int
    size: int
    allow_commands: bool
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be built. ``context`` is the directory of what the client sent along."""

    spec: definition_pb2.ImageSpec
    context: Path
    name: str

    @property
    def key(self) -> str:
        """Of the content: the same layers with the same files."""
        digest = hashlib.sha256(_FORMAT.encode() + self.spec.SerializeToString(deterministic=True))
        for path in sorted(self.context.rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            mode = path.lstat().st_mode
            digest.update(repr((str(path.relative_to(self.context)), mode, len(content))).encode() + content)
        return digest.hexdigest()[:32]


def main(argv: Sequence[str] | None = None) -> int:
    """Works in the current directory, which is the attempt's own."""
    parser = argparse.ArgumentParser(prog="flyte_unified.images.build")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    for name in ("--inputs", "--outputs", "--run"):
        parser.add_argument(name, required=True)
    for name in ("--count", "--size"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--allow-commands", "--force"):
        parser.add_argument(name, action="store_true")
    options = Options(**vars(parser.parse_args(argv)))
    transfer = Transfer(os.environ)
    try:
        order = _order(*asyncio.run(_fetched(transfer, options.inputs)))
        literal = literals_pb2.Literal()
        literal.scalar.primitive.string_value = _image(order, options)
    except FlyteUnifiedError as error:
        say(f"failed: {error.message}")
        asyncio.run(transfer.put(f"{options.outputs}/error.pb", _document(error).SerializeToString()))
        return 1
    outputs = common_pb2.Outputs(literals=[common_pb2.NamedLiteral(name=OUTPUT, value=literal)])
    asyncio.run(transfer.put(f"{options.outputs}/outputs.pb", outputs.SerializeToString()))
    return 0


async def _fetched(transfer: Transfer, inputs: str) -> tuple[bytes, str]:
    """The spec and the name; what the client sent along is a file then. Raises NotFound."""
    found = {entry.name: entry.value for entry in common_pb2.Inputs.FromString(await transfer.get(inputs)).literals}
    spec, context, name = (found[name].scalar.primitive.string_value for name in INPUTS)
    if context:
        await transfer.download(context, _ARCHIVE)
    return await transfer.get(spec), name


def _order(spec: bytes, name: str) -> Order:
    """Raises InvalidArgument."""
    context = Path.cwd() / "context"
    context.mkdir(exist_ok=True)
    try:
        if _ARCHIVE.exists():
            with tarfile.open(_ARCHIVE) as tar:
                tar.extractall(context, filter="data")
        return Order(spec=definition_pb2.ImageSpec.FromString(spec), context=context, name=name)
    except (DecodeError, tarfile.TarError) as error:
        raise InvalidArgument(f"spec and context: {error}") from error


def _image(order: Order, options: Options) -> str:
    """The address of the image, after all that has to be done for it."""
    environments, key = Environments(options.images), order.key
    with environments.alone(key, waiting=partial(say, "another build of the same image is under way: waiting for it")):
        found = None if options.force else environments.of(key)
        if found is not None:
            say(f"there is an environment of the same content, built by the run {found.run}")
        else:
            found = _environment(order, key, options, environments)
        address = environments.name(order.name, found)
    for path in environments.prune(count=options.count, size=options.size, busy=busy(options.images)):
        say(f"removed {path}: not used for the longest time, and there is room for {options.count}")
    say(f"{address} is {found.path}")
    return address


def _environment(order: Order, key: str, options: Options, environments: Environments) -> Environment:
    with environments.new(key) as path:
        programs = Programs(path, default=options.python, environ=os.environ)
        places = Places(uv=programs.uv, environment=str(path), context=str(order.context))
        todo = plan(order.spec, places, allow_commands=options.allow_commands)
        for note in todo.notes:
            say(note)
        image = default(order.spec.base_image)
        programs.create(order.spec.python_version or (image.python if image else ""))
        if image is not None and image.flyte:
            programs.install_sdk(image.flyte)
        for number, (kind, step) in enumerate(todo.steps, 1):
            say(f"step {number} of {len(todo.steps)}: {kind}")
            programs.carry_out(step, todo.variables)
        programs.check()
        return environments.add(path, key=key, variables=todo.variables, run=options.run)


def _document(error: FlyteUnifiedError) -> execution_pb2.ErrorDocument:
    """The user's, which another attempt would only meet again."""
    told = execution_pb2.ContainerError(
        code="ImageBuildFailed",
        message=error.message,
        kind=execution_pb2.ContainerError.NON_RECOVERABLE,
        origin=execution_pb2.ExecutionError.USER,
    )
    return execution_pb2.ErrorDocument(error=told)


if __name__ == "__main__":
    sys.exit(main())
