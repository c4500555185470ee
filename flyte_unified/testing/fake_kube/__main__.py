"""``python -m flyte_unified.testing.fake_kube --port 8001 --kubeconfig ./config``: the server for a terminal, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path

from flyte_unified.testing.fake_kube.cluster import FakeKube


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m flyte_unified.testing.fake_kube", description="A Kubernetes API server for tests."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--kubeconfig", type=Path, help="file to write a client's configuration to")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    async with FakeKube.running(host=arguments.host, port=arguments.port) as cluster:
        sys.stdout.write(f"{cluster.url}\n")
        if arguments.kubeconfig is not None:
            sys.stdout.write(f"export KUBECONFIG={cluster.kubeconfig(arguments.kubeconfig.absolute())}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(_arguments()))
