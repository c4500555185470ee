"""``flyte-unified data``: what runs beside, or around, images that know nothing of Flyte. Not for people."""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import signal
import sys
from pathlib import Path
from typing import Any

from flyte_unified.core.errors import FailedPrecondition, InvalidArgument, NotFound


def add_to(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser("data", help="move a container's inputs and outputs (runs in pods)")
    kinds = parser.add_subparsers(metavar="DIRECTION", required=True)
    download = kinds.add_parser("download", help="inputs into files, before the container starts")
    download.add_argument("--from", dest="source", required=True, metavar="URI", help="an inputs.pb")
    download.add_argument("--to", required=True, type=Path, metavar="DIR")
    download.add_argument("--format", default="JSON", help="of the summary: JSON, YAML or PROTO")
    download.add_argument("--layout", default="DIRECT", help="of files: DIRECT or NAMED_DIR")
    download.add_argument("--errors", required=True, metavar="URI", help="where an error.pb goes")
    download.set_defaults(run=_download)
    upload = kinds.add_parser("upload", help="files into outputs, when SIGTERM says that the container has ended")
    upload.add_argument("--from", dest="source", required=True, type=Path, metavar="DIR")
    upload.add_argument("--to", required=True, metavar="URI", help="where outputs.pb goes, or error.pb")
    upload.add_argument("--raw", required=True, metavar="URI", help="where files go that are outputs")
    upload.add_argument("--outputs", default="", help="a core.VariableMap, base64")
    upload.add_argument("--ready", type=Path, metavar="FILE", help="made when SIGTERM may come")
    upload.set_defaults(run=_upload)
    dockerfile = kinds.add_parser("dockerfile", help="an image's layers into what BuildKit builds from")
    dockerfile.add_argument("--from", dest="source", required=True, metavar="URI", help="an inputs.pb")
    dockerfile.add_argument("--to", required=True, type=Path, metavar="DIR")
    dockerfile.add_argument("--registry", required=True, help="of images that name none")
    dockerfile.add_argument("--uv", required=True, metavar="IMAGE", help="an image that has it")
    dockerfile.add_argument("--errors", required=True, metavar="URI", help="where an error.pb goes")
    dockerfile.set_defaults(run=_dockerfile)
    around = kinds.add_parser("run", help="a container by podman or docker, between both (runs on laptops)")
    around.add_argument("--directory", required=True, type=Path, metavar="DIR", help="of the attempt")
    around.add_argument("--from", dest="source", default="", metavar="URI", help="an inputs.pb")
    around.add_argument("--format", default="JSON")
    around.add_argument("--layout", default="DIRECT")
    around.add_argument("--to", required=True, metavar="URI")
    around.add_argument("--raw", required=True, metavar="URI")
    around.add_argument("--outputs", default="")
    around.add_argument("words", nargs="*", metavar="WORD", help="of `podman create`")
    around.set_defaults(run=_run)


def _download(args: argparse.Namespace) -> int:
    asyncio.run(_inputs(args))
    return 0


def _upload(args: argparse.Namespace) -> int:
    return asyncio.run(_outputs(args))


def _run(args: argparse.Namespace) -> int:
    from flyte_unified.dataside import container

    plan = container.Plan(
        directory=args.directory,
        source=args.source,
        form=args.format,
        layout=args.layout,
        to=args.to,
        raw=args.raw,
        outputs=_variables(args.outputs),
        words=args.words,
    )
    try:
        return asyncio.run(container.run(_transfer(), plan, container.handed(os.environ)))
    except Exception as error:  # a fault of ours, which no exit code may take for the container's
        sys.stderr.write(f"flyte-unified: {type(error).__name__}: {error}\n")
        signal.raise_signal(signal.SIGABRT)
        raise


def _variables(encoded: str) -> Any:
    from flyteidl2.core import interface_pb2

    return interface_pb2.VariableMap.FromString(base64.b64decode(encoded)).variables


def _dockerfile(args: argparse.Namespace) -> int:
    asyncio.run(_prepared(args))
    return 0


def _transfer() -> Any:
    try:
        from flyte_unified.storage.transfer import Transfer  # obstore is in no laptop's installation
    except ModuleNotFoundError as error:
        raise FailedPrecondition(f"this needs {error.name}: pip install 'flyte-unified[cluster]'") from error
    return Transfer(os.environ)


async def _inputs(args: argparse.Namespace) -> None:
    from flyte_unified.dataside import inputs, outputs

    transfer = _transfer()
    try:
        await inputs.download(transfer, args.source, args.to, form=args.format, layout=args.layout)
    except (NotFound, InvalidArgument) as error:  # what the task was given; a store that is away is not its error
        await outputs.tell(transfer, args.errors, "InputUnreadable", error.message)
        raise


async def _outputs(args: argparse.Namespace) -> int:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    from flyte_unified.dataside import outputs

    variables = _variables(args.outputs)
    transfer = _transfer()
    if args.ready is not None:
        args.ready.touch()
    await ended.wait()
    error = await outputs.upload(transfer, args.source, to=args.to, raw=args.raw, outputs=variables)
    if error:
        sys.stderr.write(f"flyte-unified: {error}\n")
    return 0


async def _prepared(args: argparse.Namespace) -> None:
    from flyte_unified.dataside import outputs
    from flyte_unified.images.prepare import prepare

    transfer = _transfer()
    try:
        await prepare(transfer, args.source, args.to, registry=args.registry, uv=args.uv)
    except (NotFound, InvalidArgument) as error:
        await outputs.tell(transfer, args.errors, "ImageBuildFailed", error.message)
        raise
