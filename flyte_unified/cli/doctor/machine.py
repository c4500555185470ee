"""The machine: Python, port, names, limits, and what the kernel gives to tasks."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from flyte_unified import __version__
from flyte_unified.cli.datadir import server_port
from flyte_unified.cli.doctor.finding import Check, Finding, error, ok, warning
from flyte_unified.launchers.processes import cgroups
from flyte_unified.launchers.processes.interpreters import Interpreters, choose
from flyte_unified.rpc.sockets import listen
from flyte_unified.settings import LOOPBACK, Settings

_OLDEST_PYTHON, _NEWEST_PYTHON = (3, 10), (3, 14)
"""Of tasks."""
_OLDEST_SDK = (2, 0)
_TESTED_SDK = "2.12.1"
_FEW_FILES, _ENOUGH_FILES = 256, 4096
_UNSHARE = "from flyte_unified.launchers.processes.mounts import unshare; unshare(as_root=False)"


async def _python(_: Settings) -> AsyncIterator[Finding]:
    yield ok("flyte-unified", f"{__version__} on Python {platform.python_version()} ({sys.executable})")


async def _interpreter(settings: Settings) -> AsyncIterator[Finding]:
    if settings.execution.launcher == "pods":
        return
    path, reason = choose(settings.execution.python, env=os.environ, directory=Path.cwd())
    found, _ = await Interpreters().inspect(path)
    subject, python = "tasks' Python", f"{'.'.join(map(str, found.version))} ({path}: {reason})"
    if not _OLDEST_PYTHON <= found.version[:2] <= _NEWEST_PYTHON:
        yield error(subject, f"{python} is none that the SDK runs on", "choose Python 3.10 to 3.14 with --python")
    else:
        yield ok(subject, python)
    if found.flyte is None:
        mend = f"{path} -m pip install flyte, or choose another with --python"
        yield error("SDK", f"{path} has no flyte, which every task needs", mend)
    elif tuple(map(int, found.flyte.split(".")[:2])) < _OLDEST_SDK:
        yield error("SDK", f"flyte {found.flyte} is Flyte 1's", f"{path} -m pip install 'flyte>={_TESTED_SDK}'")
    else:
        yield ok("SDK", f"flyte {found.flyte} (tested with {_TESTED_SDK})")


async def _port(settings: Settings) -> AsyncIterator[Finding]:
    port = settings.server.port
    if port and port == server_port(settings.data.dir):
        yield ok("port", f"{port} is held by the server on {settings.data.dir}")
        return
    for sock in listen(settings.server.host, port):  # raises saying who has it
        sock.close()
    yield ok("port", f"{port} on {settings.server.host} is free" if port else "any that is free")


async def _localhost(settings: Settings) -> AsyncIterator[Finding]:
    if settings.server.host not in LOOPBACK:
        return
    mend = "have both `127.0.0.1 localhost` and `::1 localhost` in /etc/hosts"
    try:
        found = {str(address[4][0]) for address in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}
    except OSError as raised:
        yield error("localhost", f"the name leads nowhere: {raised.strerror}", mend)
        return
    if strangers := found - {"127.0.0.1", "::1"}:
        yield error("localhost", f"the name leads to {', '.join(sorted(strangers))}, where the server does not listen", mend)
    elif len(found) == 1 and socket.has_ipv6:
        yield warning("localhost", f"the name leads to {found.pop()} only", mend)
    else:
        yield ok("localhost", "leads to " + " and ".join(sorted(found)))


async def _files(_: Settings) -> AsyncIterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    mend = f"ulimit -n {_ENOUGH_FILES}, in the shell that starts the server"
    if soft != resource.RLIM_INFINITY and soft < _ENOUGH_FILES:
        found = error if soft < _FEW_FILES else warning
        yield found("open files", f"at most {soft} (could be {hard}); each task and each client takes some", mend)
    else:
        yield ok("open files", "without limit" if soft == resource.RLIM_INFINITY else f"at most {soft}")


async def _kernel(settings: Settings) -> AsyncIterator[Finding]:
    if sys.platform != "linux" or settings.execution.launcher == "pods":
        return
    if cgroups.delegated():
        yield ok("control groups", "the kernel keeps tasks within their memory")
    else:
        mend = "systemd-run --user --scope -p Delegate=yes flyte-unified start, if tasks may be over their memory for no moment"
        yield warning("control groups", "none to divide: the memory of tasks is watched, not bounded", mend)
    trial = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _UNSHARE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await trial.wait() == 0:
        yield ok("user namespaces", "secrets can be given as files")
    else:
        mend = (
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu) or user.max_user_namespaces=1000, "
            "or have tasks ask for their secrets as variables"
        )
        yield warning("user namespaces", "not for this user: a task that wants a secret as a file will fail", mend)


CHECKS = [
    Check("flyte-unified", _python, "install it again"),
    Check("tasks' Python", _interpreter, "choose another with --python"),
    Check("port", _port, "choose another with --port"),
    Check("localhost", _localhost, "mend /etc/hosts"),
    Check("open files", _files, "raise the limit with ulimit"),
    Check("kernel", _kernel, "run the server as a user of its own"),
]
