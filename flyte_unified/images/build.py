"""The program that builds an image as a virtual environment: an attempt of ``build-image`` (see ``plugins.images``).

What it and uv say is the run's log. Its end is told as the SDK's runtime does it: outputs.pb or error.pb.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.task import common_pb2

from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.core.images import OUTPUT, default
from flyte_unified.images.environments import Environment, Environments
from flyte_unified.images.layers import Places, plan
from flyte_unified.images.orders import Order, fetched, order
from flyte_unified.images.programs import Programs, busy, say
from flyte_unified.storage.transfer import Transfer


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
    age: float
    """Seconds after which an environment goes that nothing uses."""
    size: int
    """Bytes that all of them may have."""
    allow_commands: bool
    force: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Works in the current directory, which is the attempt's own."""
    parser = argparse.ArgumentParser(prog="flyte_unified.images.build")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    for name in ("--inputs", "--outputs", "--run"):
        parser.add_argument(name, required=True)
    parser.add_argument("--age", type=float, required=True)
    parser.add_argument("--size", type=int, required=True)
    for name in ("--allow-commands", "--force"):
        parser.add_argument(name, action="store_true")
    options = Options(**vars(parser.parse_args(argv)))
    transfer = Transfer(os.environ)
    try:
        archive = Path("context.tar.gz")
        spec, name = asyncio.run(fetched(transfer, options.inputs, archive))
        literal = literals_pb2.Literal()
        literal.scalar.primitive.string_value = _image(order(spec, name, archive, Path.cwd() / "context"), options)
    except FlyteUnifiedError as error:
        say(f"failed: {error.message}")
        asyncio.run(transfer.put(f"{options.outputs}/error.pb", _document(error).SerializeToString()))
        return 1
    outputs = common_pb2.Outputs(literals=[common_pb2.NamedLiteral(name=OUTPUT, value=literal)])
    asyncio.run(transfer.put(f"{options.outputs}/outputs.pb", outputs.SerializeToString()))
    return 0


def _image(wanted: Order, options: Options) -> str:
    """The address of the image, after all that has to be done for it."""
    environments, key = Environments(options.images), wanted.key
    with environments.alone(key, waiting=partial(say, "another build of the same image is under way: waiting for it")):
        found = None if options.force else environments.of(key)
        if found is not None:
            say(f"there is an environment of the same content, built by the run {found.run}")
        else:
            found = _environment(wanted, key, options, environments)
        address = environments.name(wanted.name, found)
    for path in environments.prune(age=options.age, size=options.size, busy=busy(options.images)):
        say(f"removed {path}, which was unused for long")
    say(f"{address} is {found.path}")
    return address


def _environment(wanted: Order, key: str, options: Options, environments: Environments) -> Environment:
    with environments.new(key) as path:
        programs = Programs(path, default=options.python, environ=os.environ)
        places = Places(uv=programs.uv, environment=str(path), context=str(wanted.context))
        planned = plan(wanted.spec, places, allow_commands=options.allow_commands)
        for note in planned.notes:
            say(note)
        image = default(wanted.spec.base_image)
        programs.create(wanted.spec.python_version or (image.python if image else ""))
        if image is not None and image.flyte:
            programs.install_sdk(image.flyte)
        for number, (kind, step) in enumerate(planned.steps, 1):
            say(f"step {number} of {len(planned.steps)}: {kind}")
            programs.carry_out(step, planned.variables)
        programs.check()
        return environments.add(path, key=key, variables=planned.variables, run=options.run)


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
