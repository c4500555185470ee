"""``body.py <gate> <outputs> <s3>``: what runs in a pod. It comes to the test's gate, and does what it is told there.

``outputs`` is a directory, or an address in S3, whose buckets are directories in ``s3``.
"""

from __future__ import annotations

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
            place = Path(outputs.replace("s3://", f"{s3}/"))
            place.mkdir(parents=True, exist_ok=True)
            (place / "outputs.pb").write_bytes(b"")
    return status


if __name__ == "__main__":
    sys.exit(run())
