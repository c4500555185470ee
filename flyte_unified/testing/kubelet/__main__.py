"""A node of processes on this machine, for a cluster that a kubeconfig names: ``python -m flyte_unified.testing.kubelet``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from flyte_unified.kube.client import Kube
from flyte_unified.testing.kubelet.kubelet import Kubelet
from flyte_unified.testing.kubelet.scheduler import Scheduler


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flyte_unified.testing.kubelet", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="default: as kubectl finds it")
    parser.add_argument("--context", default="", help="a context of the kubeconfig")
    parser.add_argument("--name", default="process-node", help="the node's name")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the Python that images stand for")
    parser.add_argument("--directory", type=Path, help="keep containers here, over restarts; default: a temporary directory")
    parser.add_argument("--warm", action="store_true", help="start the SDK's tasks from a fork server")
    parser.add_argument("--scheduler", action="store_true", help="bind pods too, for a cluster without a scheduler")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    kube = Kube(kubeconfig=options.kubeconfig, context=options.context)
    await kube.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(kube.stop)
        directory = options.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fk-")))
        kubelet = Kubelet(
            kube,
            directory=directory,
            name=options.name,
            python=options.python.absolute(),
            warm=options.warm,
            ephemeral=options.directory is None,
        )
        if options.scheduler:
            await stack.enter_async_context(Scheduler.running(kube))
        await kubelet.start()
        stack.push_async_callback(kubelet.leave if options.directory else kubelet.stop)
        print(f"node {options.name} is ready", flush=True)  # noqa: T201
        await over.wait()


if __name__ == "__main__":
    main()
