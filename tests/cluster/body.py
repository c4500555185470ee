"""``body.py <gate> <outputs> <s3>``: what runs in a pod. It comes to the test's gate, and does what it is told there.

``outputs`` is a directory, or an address in the S3 server at ``s3``, who lets anybody write.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from pathlib import Path


def run() -> int:
    gate, outputs, s3 = sys.argv[1:4]
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as lines:
        connection.connect(gate)
        name, action, attempt = (os.environ[key] for key in ("RUN_NAME", "ACTION_NAME", "FLYTE_ATTEMPT_NUMBER"))
        lines.write(json.dumps({"run": name, "action": action, "attempt": int(attempt) + 1, "pid": os.getpid()}) + "\n")
        lines.flush()
        status = int(lines.readline() or -1)
        if status == 0:
            leave(f"{outputs}/outputs.pb", s3)
    return status


def leave(place: str, s3: str) -> None:
    """An empty file."""
    if place.startswith("s3://"):
        connection = http.client.HTTPConnection(s3.removeprefix("http://"))
        connection.request("PUT", place.removeprefix("s3:/"), body=b"")
        assert connection.getresponse().status == 200
    else:
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


if __name__ == "__main__":
    sys.exit(run())
