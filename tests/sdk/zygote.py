"""``zygote.py <descriptor>``: a process that has the SDK imported, and becomes a client of it as often as it is asked to.

The imports are most of what a short program or a `flyte get` costs. It becomes one in the way of the fork server, whose
promise is that a program which starts there cannot tell; clients of servers that start tasks cold are started plainly.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from flyte_unified.launchers.processes import forkserver

_MODULES = (
    *("flyte", "flyte.app", "flyte.cli.main", "flyte.extend", "flyte.io", "flyte.remote", "flyte.report"),
    *(f"flyte.cli._{verb}" for verb in ("abort", "create", "delete", "deploy", "get", "run", "serve", "update")),
    *("rich.logging", "rich.markdown", "rich_click.rich_help_rendering"),
)


class Zygote(forkserver.Server):
    """One client at a time, in the words of ``forks``."""

    def __init__(self, orders: socket.socket) -> None:
        own = os.environ.keys() - {"LC_CTYPE"}  # which an interpreter adds when it starts (PEP 538)
        super().__init__(orders, {"env": own, "modules": _MODULES, "single": False})
        self._orders = orders

    def serve(self) -> None:
        self._preload()
        forkserver._prebuild()
        gc.collect()
        gc.freeze()
        self._orders.send(b"ready")
        while True:
            content, descriptors, _, _ = socket.recv_fds(self._orders, 1 << 20, 2)
            if not content:
                return
            pid = os.fork()
            if not pid:
                self._be(json.loads(content), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            self._orders.send(str(pid).encode())
            self._orders.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())

    def _be(self, asked: dict[str, Any], output: int, errors: int) -> NoReturn:
        status = 127
        try:
            os.dup2(output, 1)
            os.dup2(errors, 2)
            os.closerange(3, 64)
            os.chdir(asked["directory"])
            asked["env"] = {**self._added, **asked["env"]}
            forkserver._reset(asked)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._background.__init__(self._background.thread.name)
            status = forkserver._run(asked)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)


if __name__ == "__main__":
    del sys.path[0]
    Zygote(socket.socket(fileno=int(sys.argv[1]))).serve()
