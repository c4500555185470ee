"""Run Connect's own conformance suite (https://github.com/connectrpc/conformance) against the edge.

    python tests/conformance/run.py [options of connectconformance, such as --run PATTERN --trace -v]

Needs Go to install the suite and ``grpcio-tools`` to compile its proto files; both results are cached outside this
tree, nothing of the suite is copied into it. A whole run that passes writes ``docs/conformance.md``.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

VERSION = "v1.0.7"
MODULE = "connectrpc.com/conformance"

_HERE = Path(__file__).resolve().parent
_REPORT = _HERE.parents[1] / "docs" / "conformance.md"
_PROTOS = ("config", "service", "server_compat")


def main(options: list[str]) -> int:
    go = shutil.which("go")
    if go is None:
        sys.stderr.write("Go is not installed: the conformance suite cannot be built here\n")
        return 2
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flyte-unified" / f"conformance-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    command = [
        str(_suite(go, cache)),
        *("--mode", "server", "--conf", str(_HERE / "config.yaml"), *options),
        *("--", sys.executable, str(_HERE / "server.py"), str(_descriptors(go, cache))),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    if process.wait() == 0 and not options:
        _report("".join(lines), go)
    return process.returncode


def _suite(go: str, cache: Path) -> Path:
    suite = cache / "connectconformance"
    if not suite.exists():
        environment = {**os.environ, "GOBIN": str(cache)}
        subprocess.run([go, "install", f"{MODULE}/cmd/connectconformance@{VERSION}"], check=True, env=environment)
    return suite


def _descriptors(go: str, cache: Path) -> Path:
    descriptors = cache / "descriptors.pb"
    if not descriptors.exists():
        listed = subprocess.run(
            [go, "mod", "download", "-json", f"{MODULE}@{VERSION}"], check=True, capture_output=True, cwd=cache
        )
        protos = Path(json.loads(listed.stdout)["Dir"]) / "proto"
        files = [str(protos / "connectrpc" / "conformance" / "v1" / f"{name}.proto") for name in _PROTOS]
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", "--include_imports"]
        subprocess.run([*protoc, f"--descriptor_set_out={descriptors}", *files], check=True)
    return descriptors


def _report(output: str, go: str) -> None:
    total = re.search(r"Total cases: (\d+)\n(\d+) passed, (\d+) failed", output)
    if total is None:
        raise ValueError("the suite's summary was not understood")
    golang = subprocess.run([go, "version"], check=True, capture_output=True, text=True).stdout.split()[2]
    versions = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "grpclib", "h2", "protobuf"))
    _REPORT.parent.mkdir(exist_ok=True)
    _REPORT.write_text(
        f"""# Conformance of the RPC edge

The judge is [Connect's own conformance suite](https://github.com/connectrpc/conformance), not our reading of the
protocols. It runs its reference service on our edge and calls it with Connect's reference client.

| | |
|---|---|
| cases | {total[1]} |
| passed | {total[2]} |
| failed | {total[3]} |
| known to fail, or flaky | none |
| date | {datetime.datetime.now(datetime.UTC):%Y-%m-%d} |
| suite | {MODULE} {VERSION}, {golang} |
| server | CPython {sys.version.split()[0]}, {versions} |
| command | `make conformance` |

Covered: Connect, gRPC and gRPC-Web; HTTP/1.1 and HTTP/2 without TLS; unary, client, server, half-duplex and full-duplex
streams (half-duplex over HTTP/1.1 too); protobuf and JSON; identity and gzip in both directions; GET; timeouts; limits on
message size. Not covered, because the edge does not have them: HTTP/3, TLS (it ends at the ingress), br, zstd, snappy.
"""
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
