"""Apps as processes of this machine, each under its supervisor.

They have a keeper of their own (see ``launchers.processes``), which outlives the server: the next one takes over what runs, and
ends what is not wanted any more. There is none before there is an app.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from flyte_unified.apps.api import Observe, Output
from flyte_unified.apps.local import ports
from flyte_unified.apps.local.payload import Payload, payload
from flyte_unified.apps.local.supervisor import End, Replica, Rules, Supervisor
from flyte_unified.apps.model import App, AppKey, Told
from flyte_unified.core.clock import Clock, Micros, seconds
from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.sites import Site, Upstream
from flyte_unified.dataproxy.api import Line
from flyte_unified.launchers.api import INTERPRETER
from flyte_unified.launchers.processes import logs
from flyte_unified.launchers.processes.images import Images, Lookup, lay_out, variables_of
from flyte_unified.launchers.processes.launcher import ProcessLauncher
from flyte_unified.launchers.processes.secrets import Reveal, Secrets
from flyte_unified.launchers.processes.surroundings import Surroundings
from flyte_unified.launchers.processes.work import Adopted, Exited, ProcessWork, WorkEvent
from flyte_unified.plugins.api import Process, Resources
from flyte_unified.plugins.container import APPS

_LOGS = 10
"""Logs kept of an app's replicas."""
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.5
"""Seconds between two looks whether it listens, of which no system tells another process."""
_LAST_BYTES = 4096
_DIGITS = 12
"""Of a deployment's digest: what tells those of one app apart."""


class LocalApps:
    """An ``AppLauncher``. ``processes`` makes the process launcher, given whom to tell of events.

    ``images`` knows what was built here, ``endpoint`` is where apps reach the server, ``pattern`` how they reach each other (by
    project and domain), ``raw_data`` the address below which their data is.
    """

    cluster = "local"

    def __init__(
        self,
        *,
        processes: Callable[[Callable[[WorkEvent], None]], ProcessLauncher],
        directory: Path,
        interpreter: Path,
        inherited: Mapping[str, str],
        reveal: Reveal,
        images: Lookup | None,
        endpoint: str,
        pattern: Callable[[str, str], str],
        raw_data: str,
        log_limit: int,
        kill_grace: float,
        rules: Rules,
        clock: Clock,
    ) -> None:
        self._processes = processes(self._heard)
        self._directory = directory
        self._interpreter = interpreter
        self._inherited = Surroundings(inherited)
        self._secrets = Secrets(reveal)
        self._images = Images(images)
        self._endpoint = endpoint
        self._pattern = pattern
        self._raw_data = raw_data
        self._log_limit = log_limit
        self._kill_grace = kill_grace
        self._rules = rules
        self._clock = clock
        self._ports = ports.Ports()
        self._surroundings = hashlib.sha256(repr((endpoint, str(interpreter))).encode()).hexdigest()[:8]
        self._supervisors: dict[AppKey, Supervisor] = {}
        self._observe: Observe
        self._started = False
        self._starting = asyncio.Lock()
        self._launching: dict[str, Exited | None] = {}
        self._steps: set[asyncio.Task[None]] = set()

    # The port

    async def start(self, apps: Sequence[App], observe: Observe) -> None:
        self._observe = observe
        for app in apps:
            self._supervisors[app.key] = Supervisor(app, machine=self, rules=self._rules)
        if await asyncio.to_thread(self._keeper.exists):
            await self._connected()
        for supervisor in self._supervisors.values():
            supervisor.begin()

    def wanted(self, app: App) -> None:
        supervisor = self._supervisors.get(app.key)
        if supervisor is not None and not supervisor.retired.is_set():
            supervisor.want(app)
            return
        self._supervisors[app.key] = supervisor = Supervisor(app, machine=self, rules=self._rules)
        supervisor.begin()

    def unwanted(self, key: AppKey) -> None:
        if (supervisor := self._supervisors.get(key)) is not None:
            supervisor.delete()

    def site(self, key: AppKey) -> Site:
        if (supervisor := self._supervisors.get(key)) is None:
            raise NotFound(f"there is no app {key}")
        return supervisor

    async def follow(self, key: AppKey, replica: str) -> AsyncGenerator[Output]:
        supervisor = self._supervisors.get(key)
        if supervisor is None:
            raise NotFound(f"there is no app {key}")
        read: dict[str, int] = {}
        while True:
            turn = supervisor.turn
            kept = [name for name in await asyncio.to_thread(self._kept, key) if replica in ("", name)]
            if replica and not read and not kept:
                raise NotFound(f"app {key} has no replica {replica!r}, or not its log any more")
            new = [name for name in kept if name not in read]
            # The newest again: it may have been read while its process was about to be known.
            for name in new or kept[-1:]:
                if name in new:
                    read[name] = 0
                    yield Output(name)
                async with aclosing(self._batches(supervisor, name, read[name])) as batches:
                    async for batch in batches:
                        read[name] = batch.offset
                        yield Output(name, list(_lines(batch.lines)))
            if new:
                continue
            if replica or not supervisor.active:
                return
            await turn.wait()

    async def stop(self, *, grace: float) -> None:
        await self._leave()
        if self._started:
            await self._processes.stop(grace)

    async def close(self) -> None:
        await self._leave()
        if self._started:
            await self._processes.close()

    async def _leave(self) -> None:
        await asyncio.gather(*(supervisor.close() for supervisor in self._supervisors.values()))
        await asyncio.gather(*self._steps)

    # What supervisors need: see ``supervisor.Machine``

    async def launch(self, app: App) -> Replica:
        key = app.key
        await self._connected()
        port = self._ports.take(key, self._payload(app).port)
        name = f"{key.name}-{self._clock.now() // 1000:x}"
        replica = Replica(key, app.deployment[:_DIGITS], self._surroundings, port, name)
        try:
            await asyncio.to_thread(self._make_room, key)
            await self._launch(await self._work(app, replica))
        except BaseException as error:
            # A server that leaves in the middle leaves what may have begun to the next one, with its directory.
            if not (isinstance(error, asyncio.CancelledError) and self._processes.running(_id(replica))):
                self._later(self.clear(replica))
            raise
        return replica

    async def listening(self, replica: Replica) -> Upstream:
        wait = _FIRST_LOOK
        while True:
            root = self._processes.root(_id(replica))
            for port in {replica.port, self._declared(replica)}:  # one in its own code may be free by now
                if not await asyncio.to_thread(ports.listens, root, port):
                    continue
                for host in ("127.0.0.1", "::1"):
                    if await _answers(host, port):
                        return self._upstream(replica, host, port)
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, _LAST_LOOK)

    async def end(self, replica: Replica) -> None:
        await self._processes.kill(_id(replica), self._kill_grace)

    async def clear(self, replica: Replica) -> None:
        self._ports.release(replica.port)
        self._processes.forget(_id(replica))
        await asyncio.to_thread(shutil.rmtree, self._place(replica), ignore_errors=True)

    async def retire(self, app: App) -> None:
        del self._supervisors[app.key]
        gone = self._directory / f"gone-{self._clock.now()}"
        with suppress(FileNotFoundError):
            self._logs(app.key).rename(gone)  # the next app of this name may begin at once
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    async def last_words(self, replica: Replica) -> str:
        tail = await asyncio.to_thread(_last_lines, self._log(replica))
        words = next((line for line in reversed(tail) if line), "")
        declared = self._declared(replica)
        if declared == replica.port:
            return words
        return (
            f"{words} (port {declared} belongs to {self._ports.whose(declared)}, so it was told to listen on another: with "
            "$PORT, and where it asks env.get_port(); an app that has the port in its own code needs one that is free)"
        )

    async def say(self, app: App, told: Told) -> None:
        await self._observe(app.key, app.deployment, told)

    # The rest

    @property
    def _keeper(self) -> Path:
        return self._directory / "keeper"

    async def _connected(self) -> None:
        async with self._starting:
            if self._started:
                return
            found = await self._processes.start()
            self._started = True
        for event in found:
            self._heard(event)

    def _heard(self, event: WorkEvent) -> None:
        replica = _parsed(event.id)
        supervisor = self._supervisors.get(replica.key)
        ours = supervisor is not None and supervisor.replica == replica
        match event:
            case Adopted() if not ours:
                self._ports.hold(replica.key, replica.port)
                if supervisor is None or not supervisor.adopt(replica, surroundings=self._surroundings):
                    self._later(self._processes.kill(event.id, self._kill_grace))
            case Exited() if event.id in self._launching:
                self._launching[event.id] = event
            case Exited() if supervisor is not None and ours:
                supervisor.ended(replica, _end(event))
            case Exited():
                self._later(self.clear(replica))

    def _later(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(step, name="what is left of an app")
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)

    async def _launch(self, work: ProcessWork) -> None:
        """Its process may be gone before anybody can be told that there is one."""
        self._launching[work.id] = None
        try:
            await self._processes.launch(work)
        finally:
            exited = self._launching.pop(work.id)
        if exited is not None:
            asyncio.get_running_loop().call_soon(self._heard, exited)

    async def _work(self, app: App, replica: Replica) -> ProcessWork:
        """Raises FlyteUnifiedError for what can't be had here: a secret, an image, an interpreter."""
        what, key = self._payload(app), app.key
        process = Process(
            arguments=what.line(replica.port),
            environment={"PYTHONUNBUFFERED": "1", **what.environment},
            system=self._system(key) | what.told(replica.port),
            resources=Resources(memory_limit=what.memory_limit or 0),
            image=what.image,
        )
        secrets = await self._secrets.given(what.secrets, ActionKey(key.project, key.domain, "", ""))
        image = await asyncio.to_thread(self._images.of, process)
        usual = image.python if image is not None else self._interpreter
        interpreter = Path(process.environment.get(INTERPRETER) or usual)
        asked = {**variables_of(image, self._inherited.inherited), **process.environment}
        if image is not None:
            await asyncio.to_thread(lay_out, image, self._place(replica))
        return ProcessWork(
            id=_id(replica),
            argv=process.arguments,
            env=self._inherited.environment(asked, process.system, interpreter),
            directory=self._place(replica),
            log=self._log(replica),
            interpreter=interpreter,
            warm=False,
            memory_limit=what.memory_limit,
            log_limit=self._log_limit,
            secrets={name: value for name, value in secrets.variables.items() if name not in process.system},
            private=secrets.private,
            note=self._images.note(process, await self._processes.version(interpreter), interpreter),
        )

    def _system(self, key: AppKey) -> dict[str, str]:
        return {
            "DO_NOT_TRACK": "1",
            "FLYTE_INTERNAL_EXECUTION_DOMAIN": key.domain,
            "FLYTE_INTERNAL_EXECUTION_PROJECT": key.project,
            "FSSPEC_FILE_AUTO_MKDIR": "1",
            APPS: self._pattern(key.project, key.domain),
            "_U_EP_OVERRIDE": self._endpoint,
            "_U_INSECURE": "true",
            "_U_ORG_NAME": "local",
        }

    def _payload(self, app: App) -> Payload:
        return payload(app.key, app.spec, raw_data=f"{self._raw_data}/{'/'.join(app.key)}")

    def _declared(self, replica: Replica) -> int:
        supervisor = self._supervisors.get(replica.key)
        return self._payload(supervisor.app).port if supervisor is not None else replica.port

    def _upstream(self, replica: Replica, host: str, port: int) -> Upstream:
        app = self._supervisors[replica.key].app
        patience = seconds(app.spec.timeouts.request_timeout) or self._rules.request
        return Upstream(host=host, port=port, http2=self._payload(app).http2, patience=patience)

    # Files

    def _place(self, replica: Replica) -> Path:
        """Where it runs."""
        return self._directory / "work" / _id(replica)

    def _logs(self, key: AppKey) -> Path:
        return self._directory.joinpath("logs", *key)

    def _log(self, replica: Replica) -> Path:
        return self._logs(replica.key) / f"{replica.name}.log"

    def _kept(self, key: AppKey) -> list[str]:
        """The replicas whose logs are there, in order."""
        return sorted(path.stem for path in self._logs(key).glob("*.log"))

    def _make_room(self, key: AppKey) -> None:
        for name in self._kept(key)[: 1 - _LOGS]:
            for path in self._logs(key).glob(f"{name}.log*"):
                path.unlink(missing_ok=True)

    def _batches(self, supervisor: Supervisor, name: str, offset: int) -> AsyncGenerator[logs.Batch]:
        current = supervisor.replica
        work = _id(current) if current is not None and current.name == name else ""
        path = self._logs(supervisor.app.key) / f"{name}.log"
        running, grown = partial(self._processes.running, work), partial(self._processes.grown, work)
        return logs.follow(path, running=running, grown=grown, offset=offset)


def _id(replica: Replica) -> str:
    """Fit for a file name; a comma stands in none of its parts."""
    *_, surroundings, port, name = replica
    return ",".join((*replica.key, replica.deployment[:_DIGITS], surroundings, str(port), name))


def _parsed(work: str) -> Replica:
    project, domain, app, deployment, surroundings, port, name = work.split(",")
    return Replica(AppKey(project, domain, app), deployment, surroundings, int(port), name)


def _end(exited: Exited) -> End:
    if not exited.known:
        return End("it ended while nobody watched it")
    words = f"signal {exited.signal}" if exited.signal else f"exit code {exited.exit_code}"
    return End(f"its memory limit was not enough ({words})" if exited.oom else words, exited.oom)


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _lines(lines: Sequence[logs.LogLine]) -> Iterator[Line]:
    """With the end that the reader took off. A notice without a time of its own has that of its neighbour."""
    at = next((line.at for line in lines if line.at), 0)
    for line in lines:
        at = line.at or at
        yield Line(Micros(at), line.text if line.goes_on else f"{line.text}\n", line.stream == "system")


def _last_lines(path: Path) -> list[str]:
    """What a log ends with."""
    newest = max(path.parent.glob(f"{path.name}*"), default=None)
    if newest is None:
        return []
    with newest.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _LAST_BYTES))
        return [line.split(" ", 2)[-1].strip() for line in file.read().decode(errors="replace").splitlines()]
