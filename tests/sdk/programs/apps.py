"""An app with nothing but the standard library, another one that asks it, and a task that does."""

from __future__ import annotations

import asyncio
import http.server
import os
import urllib.request
from pathlib import Path

import flyte
import flyte.app
import flyte.remote
from flyte.remote._logs import AppLogs
from speak import say

image = flyte.Image.from_base("local")
hello = flyte.app.AppEnvironment(
    name="hello",
    image=image,
    parameters=[flyte.app.Parameter(name="word", value="good day", env_var="WORD")],
    scaling=flyte.app.Scaling(replicas=(0, 1), scaledown_after=600),
)
middle = flyte.app.AppEnvironment(name="middle", image=image, depends_on=[hello])
asking = flyte.TaskEnvironment(name="asking", depends_on=[hello])


def answer(port: int, what: str) -> None:
    """Says ``what``, where it runs, and what it is asked for."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            print(f"asked for {self.path}")
            text = urllib.request.urlopen(f"{hello.endpoint}/middle").read().decode() if what == "middle" else what
            body = f"{text} from {Path.cwd().name.split(',')[2]}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()


@hello.server
def serve_hello(word: str) -> None:
    answer(hello.get_port().port, f"{word}, {os.environ['WORD']}")


@middle.server
async def serve_middle() -> None:
    """Both have port 8080, which one of them gets."""
    await asyncio.to_thread(answer, middle.get_port().port, "middle")


@asking.task
def ask() -> str:
    return urllib.request.urlopen(f"{hello.endpoint}/task").read().decode()


async def lines(name: str, until: str) -> list[str]:
    """The app's log."""
    said = []
    async for line in AppLogs.tail.aio(app_id=flyte.remote.App.get(name).pb2.metadata.id):
        said.append(line.message.rstrip())
        if said[-1].endswith(until):
            break
    return said


def main() -> None:
    flyte.init_from_config()
    app = flyte.serve(middle)
    say("served", revision=app.revision, active=app.is_active(), endpoint=app.endpoint)
    again = flyte.serve(middle)
    say("served again", revision=again.revision)
    base = f"{app.endpoint.partition('://')[0]}://localhost:{app.endpoint.rpartition(':')[2]}"
    request = urllib.request.Request(base, headers={"Host": "middle.localhost"})
    say("asked", text=urllib.request.urlopen(request).read().decode())
    run = flyte.run(ask)
    run.wait()
    say("task", text=run.outputs()[0])
    say("log", lines=asyncio.run(lines("hello", "asked for /task")))
    say("listed", active=sorted(each.name for each in flyte.remote.App.listall(in_status="active")))
    stopped = flyte.remote.App.get("hello").deactivate(wait=True)
    say("stopped", names=[each.name for each in flyte.remote.App.listall(in_status=("stopped", "failed"))])
    with flyte.remote.App.get("hello").ephemeral_ctx_sync():
        say("started", active=flyte.remote.App.get("hello").is_active(), after=stopped.revision)
    flyte.remote.App.delete("middle")
    flyte.remote.App.delete("middle")
    say("deleted", left=[each.name for each in flyte.remote.App.listall()])


if __name__ == "__main__":
    main()
