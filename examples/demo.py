"""``make demo``: start a server, run ``hello.py`` on it with the ``flyte`` command, show what came out, leave nothing.

Everything that is written, by the server and by the client, is below one temporary directory.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).parent
BIN = Path(sys.executable).parent
RUN = "demo"
PATIENCE = 15.0
"""Seconds within which a server that was told to stop has ended."""


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # the server is ended on the way out
    try:
        show()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `make demo | head`: the reader has seen enough, and nothing more can be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show() -> None:
    with tempfile.TemporaryDirectory(prefix="fu-demo-") as scratch:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("FLYTE", "_U_", "XDG_"))}
        environ |= {"HOME": scratch, "TMPDIR": scratch, "DO_NOT_TRACK": "1", "LOG_LEVEL": "error"}
        began = time.monotonic()
        server = subprocess.Popen(
            [BIN / "flyte-unified", "start", "--port", "0", "--ephemeral", "--python", sys.executable, "--log-level", "error"],
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
            cwd=scratch,
            process_group=0,  # so that Ctrl-C reaches the server once, through us
        )
        try:
            address = ready(server)
            print(f"ready after {time.monotonic() - began:.1f} s\n", flush=True)
            use(address, environ=environ, scratch=Path(scratch))
        finally:
            end(server)


def end(server: subprocess.Popen[str]) -> None:
    """Ask for an orderly stop, and see to it that it comes to an end."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def ready(server: subprocess.Popen[str]) -> str:
    """The server's address, from the banner that it prints when it is ready."""
    address = ""
    for line in server.stdout or ():
        print(line, end="", flush=True)
        if found := re.match(r"\s+API\s+(\S+)", line):
            address = found[1]
        if line.lstrip().startswith("SDK"):
            return address
    sys.exit("the server ended before it was ready")


def use(address: str, *, environ: dict[str, str], scratch: Path) -> None:
    """What a user does: point the client here, run a program, look at its result."""
    config = scratch / "config.yaml"
    port = address.rpartition(":")[2]

    def call(program: str, *arguments: str) -> None:
        print(f"$ {program} {shlex.join(arguments)}", flush=True)
        done = subprocess.run(
            [BIN / program, *arguments], check=False, env=environ | {"PYTHONDONTWRITEBYTECODE": "1"}, cwd=EXAMPLES
        )
        if done.returncode:
            print(f"{program} ended with status {done.returncode}", flush=True)
            sys.exit(1)

    call("flyte-unified", "config", "client", "--port", port, "--write", str(config))
    names = '["Ada", "Grace", "Barbara"]'
    call("flyte", "--config", str(config), "run", "--follow", "--name", RUN, "hello.py", "main", "--names", names)
    call("flyte", "--config", str(config), "get", "io", RUN, "--outputs-only")
    print(f"\nThe run was at {address}/v2/domain/development/project/flytesnacks/runs/{RUN}")


if __name__ == "__main__":
    main()
