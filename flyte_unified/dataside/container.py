"""A container between its inputs and its outputs, on a machine without a cluster: podman or docker, run to its end.

The process that does it is the attempt's: it has the container's output and exit code. What the engine knows better than an
exit code tells (no such image, no such program, no memory left) is told in an error.pb.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyteidl2.core import interface_pb2

from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.dataside import HANDED, NOTE, inputs, outputs
from flyte_unified.storage.transfer import Transfer

_NOTHING, _PIPE = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
_LINE = 1 << 20
_ENDED = "{{.State.Status}} {{.State.OOMKilled}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``directory`` has the engine's note, and gets inputs and outputs. ``words`` are those of ``create``."""

    directory: Path
    source: str
    """An inputs.pb; empty: there are none."""
    form: str
    layout: str
    to: str
    raw: str
    outputs: Sequence[interface_pb2.VariableEntry]
    words: Sequence[str]


async def run(transfer: Transfer, plan: Plan, environment: Mapping[str, str]) -> int:
    """The container's exit code, or that of SIGTERM. Raises FlyteUnifiedError when the store fails."""
    attempt = asyncio.current_task()
    loop = asyncio.get_running_loop()
    note_path = plan.directory / NOTE
    note = json.loads(await asyncio.to_thread(note_path.read_bytes))
    engine = _Engine(note["engine"], note["name"], environment)
    loop.add_signal_handler(signal.SIGTERM, lambda: engine.told(attempt))
    try:
        return await _run(transfer, plan, engine)
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    finally:
        code, _ = await engine.says("rm", "--force", engine.name)
        if not code:  # else whoever reads the note tries again
            if note["private"]:
                shutil.rmtree(note["private"], ignore_errors=True)
            note_path.unlink(missing_ok=True)


async def _run(transfer: Transfer, plan: Plan, engine: _Engine) -> int:
    await asyncio.to_thread(_open_to_all, plan.directory / "outputs")
    if plan.source:
        try:
            await inputs.download(transfer, plan.source, plan.directory / "inputs", form=plan.form, layout=plan.layout)
        except (NotFound, InvalidArgument) as error:
            await outputs.tell(transfer, plan.to, "InputUnreadable", error.message)
            return 1
    code, complaint = await engine.create(plan.words)
    if code:
        await outputs.tell(transfer, plan.to, "ContainerNotCreated", f"{engine.program} made no container: {complaint}")
        return code
    code = await engine.run()
    if engine.over:
        return 128 + signal.SIGTERM
    _, state = await engine.says("inspect", f"--format={_ENDED}", engine.name)
    status, _, oom = state.strip().partition(" ")
    if oom == "true":
        told = "the container used more memory than its limit allows and was killed"
        await outputs.tell(transfer, plan.to, "OOMKilled", told)
    elif code and status in ("created", "configured", "initialized"):
        told = f"{engine.program} could not start the container (exit code {code}); the log says why"
        await outputs.tell(transfer, plan.to, "ContainerCannotRun", told)
    elif not code:
        unreadable = await outputs.upload(transfer, plan.directory / "outputs", to=plan.to, raw=plan.raw, outputs=plan.outputs)
        sys.stderr.write(f"flyte-unified: {unreadable}\n" if unreadable else "")
    return code


class _Engine:
    """Its processes have the signals that we have: whoever ends an attempt tells the whole tree."""

    def __init__(self, path: str, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.program = Path(path).name
        self.over = False
        """Somebody ended the attempt."""
        self._path = path
        self._environment = environment
        self._running = False

    def told(self, attempt: asyncio.Task[object] | None) -> None:
        """A container that runs has heard it too, and may end as it likes."""
        self.over = True
        if not self._running and attempt is not None:
            attempt.cancel()

    async def create(self, words: Sequence[str]) -> tuple[int, str]:
        """Its exit code and last words. All of them are in the log as they are said: it may fetch an image for minutes."""
        process = await self._start("create", f"--name={self.name}", *words, out=_NOTHING, err=_PIPE)
        last = ""
        assert process.stderr is not None
        async for line in process.stderr:
            sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()
            last = line.decode(errors="replace").strip() or last
        return await process.wait(), last

    async def run(self) -> int:
        """The container, its output being ours."""
        self._running = True
        try:
            return await (await self._start("start", "--attach", self.name)).wait()
        finally:
            self._running = False

    async def says(self, *words: str) -> tuple[int, str]:
        """Its exit code, and its answer or complaint."""
        process = await self._start(*words, out=_PIPE, err=_PIPE)
        out, complaint = await process.communicate()
        code = process.returncode or 0
        return code, (complaint if code else out).decode(errors="replace")

    async def _start(self, *words: str, out: int | None = None, err: int | None = None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(self._path, *words), env=self._environment, stdin=_NOTHING, stdout=out, stderr=err, limit=_LINE
        )


def _open_to_all(directory: Path) -> None:
    """Whoever the image's user is."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777)


def handed(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the engine finds what is meant for the container under its own name."""
    own = {name: value for name, value in environ.items() if not name.startswith(HANDED)}
    return own | {name.removeprefix(HANDED): value for name, value in environ.items() if name.startswith(HANDED)}
