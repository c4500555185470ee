"""What a task needs of the Hugging Face Hub, on a free port: one model, for who has its token."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REPO = "acme/snowdrop-2.5"
COMMIT = hashlib.sha1(b"the only one", usedforsecurity=False).hexdigest()
TOKEN = "hf_of_acme"
FILES = {
    "README.md": b"---\nlicense: mit\n---\n# Snowdrop\n\nTells *winters* apart.\n",
    "config.json": json.dumps({"architectures": ["SnowModel"], "model_type": "snow", "num_hidden_layers": 2}).encode(),
    "model.safetensors": bytes(range(256)) * 1024,
}


@dataclass
class Hub:
    """``url`` is what ``HF_ENDPOINT`` takes; ``asked`` is for what it was asked, in order."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[bytes, dict[str, str]]:
        """Raises LookupError for what it has not."""
        self.asked.append(path)
        if path.startswith(resolved := f"/{REPO}/resolve/{COMMIT}/"):
            content = FILES[path.removeprefix(resolved)]
            return content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        found = self._api(path.removeprefix(f"/api/models/{REPO}"))
        return json.dumps(found).encode(), {"Content-Type": "application/json"}

    def _api(self, what: str) -> Any:
        files = [{"type": "file", "path": path, "size": len(content), "oid": _oid(content)} for path, content in FILES.items()]
        return {
            "": {"id": REPO, "sha": COMMIT},
            f"/revision/{COMMIT}": {"id": REPO, "sha": COMMIT, "safetensors": {"parameters": {"BF16": 7}, "total": 7}},
            "/commits/main": [{"id": COMMIT, "authors": [], "date": "2026-01-06T00:00:00Z", "title": "Snow", "message": ""}],
            f"/tree/{COMMIT}": files,
            f"/paths-info/{COMMIT}": files[:1],
        }[what]


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    serving = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the library's name
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = 200, {}, b""
            try:
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    raise LookupError
                body, headers = serving.answer(urlsplit(self.path).path)
            except LookupError:
                status, headers = 404, {"X-Error-Code": "RepoNotFound"}
            if wanted := self.headers["Range"]:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                end = min(int(last or len(body)), len(body) - 1)
                status, headers = 206, headers | {"Content-Range": f"bytes {first}-{end}/{len(body)}"}
                body = body[int(first) : end + 1]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET  # noqa: N815  # the same

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield serving
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
