"""``zygote.py <descriptor> client|server``: a process with all imports behind it, which becomes a program when it is asked to.

They are most of what a short program of the SDK, a ``flyte get`` or a server that a test will kill costs. It becomes one in
the way of our fork server, whose promise is that a program cannot tell.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from flyte_unified.launchers.processes import forkserver

_CLIENT = (
    *("flyte", "flyte.app", "flyte.cli.main", "flyte.extend", "flyte.io", "flyte.remote", "flyte.report"),
    *(f"flyte.cli._{verb}" for verb in ("abort", "create", "delete", "deploy", "get", "run", "serve", "update")),
    *("rich.logging", "rich.markdown", "rich_click.rich_help_rendering"),
    *("flyte.remote._client.controlplane", "httpcore", "opentelemetry.metrics", "opentelemetry.propagate", "pyqwest"),
    *("sentry_sdk", "yaml"),
)
_SERVER = ("cli", "logs", "manager", "planes.laptop")
_LAST = 64
"""No descriptor of this process is above."""


class Zygote:
    """Serves orders until the socket that they come from is closed."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._added = {name: value for name, value in os.environ.items() if name == "LC_CTYPE"}  # by the interpreter (PEP 538)
        self._background: Any = None

    def prepare_client(self) -> None:
        sdk = forkserver.Server(self._orders, {"env": {}, "modules": _CLIENT, "single": False})
        sdk._preload()
        forkserver._prebuild()
        _know_installed()
        self._background = sdk._background

    def prepare_server(self) -> None:
        for name in _SERVER:
            importlib.import_module(f"flyte_unified.{name}")
        assert forkserver._threads() == 1

    def serve(self) -> None:
        gc.collect()
        gc.freeze()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self._orders.send(b"ready")
        while True:
            content, descriptors, _, _ = socket.recv_fds(self._orders, 1 << 20, 3)
            if not content:
                return
            if not os.fork():
                self._attend(json.loads(content), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def _attend(self, asked: dict[str, Any], output: int, errors: int, told: int) -> NoReturn:
        """Start the program, and tell its pid and how it ends."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        pid = os.fork()
        if not pid:
            self._be(asked, output, errors)
        os.close(output)
        os.close(errors)
        os.write(told, b"%d\n" % pid)
        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)

    def _be(self, asked: dict[str, Any], output: int, errors: int) -> NoReturn:
        status = 127
        try:
            os.dup2(output, 1)
            os.dup2(errors, 2)
            os.closerange(3, _LAST)
            os.chdir(asked["directory"])
            forkserver._reset({"env": {**self._added, **asked["env"]}})
            if self._background is not None:
                self._background.__init__(self._background.thread.name)
            status = forkserver._run(asked)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)


def _know_installed() -> None:
    """``flyte.run`` asks of every module whether it is the user's, each time: most of what it costs, for a thousand files.

    Of those that are here already, which are installed, it asks once.
    """
    bundle: Any = importlib.import_module("flyte._code_bundle._utils")
    asked = bundle._file_is_in_directory
    known: dict[tuple[str, str], bool] = {}
    bundle._file_is_in_directory = lambda *place: known.setdefault(place, asked(*place))
    bundle.list_imported_modules_as_files("/nonexistent", list(sys.modules.values()))
    bundle._file_is_in_directory = lambda *place: known[place] if place in known else asked(*place)


if __name__ == "__main__":
    del sys.path[0]
    zygote = Zygote(socket.socket(fileno=int(sys.argv[1])))
    zygote.prepare_client() if sys.argv[2] == "client" else zygote.prepare_server()
    zygote.serve()
