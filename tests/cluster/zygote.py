"""``zygote.py <descriptor>``: a process that has everything imported, and becomes a server as often as it is asked to.

A test that kills servers has no two seconds for each of them. It asks over a socket, with where output and errors go.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from flyte_unified.cli import main

_NEEDED = (
    *("flyte_unified.apps.cluster.launcher", "flyte_unified.db.feed", "flyte_unified.db.postgres", "flyte_unified.logs"),
    *("flyte_unified.manager", "flyte_unified.planes.cluster", "flyte_unified.storage.s3"),
    *("kubernetes.aio.config", "kubernetes.aio.client.api_client", "sqlalchemy.dialects.postgresql.asyncpg"),
)


def serve(asked: dict[str, Any], output: int, errors: int) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.closerange(3, 64)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    status = main(asked["arguments"])
    sys.stdout.flush()
    os._exit(status)


def wait() -> None:
    orders = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in _NEEDED:
        importlib.import_module(name)
    orders.send(b"ready")
    while True:
        content, descriptors, _, _ = socket.recv_fds(orders, 1 << 20, 2)
        if not content:
            os.killpg(0, signal.SIGKILL)  # whoever asked is gone: nothing of this is to be left
        pid = os.fork()
        if not pid:
            serve(json.loads(content), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(str(pid).encode())


if __name__ == "__main__":
    wait()
