"""Apps without any package but the SDK and what it needs itself."""

from __future__ import annotations

import http.server
import json
import os
import sys
from pathlib import Path

import flyte
import flyte.app

image = flyte.Image.from_base("local")
env = flyte.app.AppEnvironment(name="hello", image=image, scaling=flyte.app.Scaling(replicas=(0, 1), scaledown_after=600))


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        print(f"asked for {self.path}")
        body = json.dumps({"pid": os.getpid(), "path": self.path, "cwd": str(Path.cwd()), "greeting": os.environ.get("GREETING")})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@env.server
def serve() -> None:
    print("hello from the app")
    http.server.ThreadingHTTPServer(("127.0.0.1", env.get_port().port), Hello).serve_forever()


if __name__ == "__main__":
    sys.exit("for `flyte serve`")
