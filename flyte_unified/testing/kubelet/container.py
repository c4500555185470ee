"""The life of one container: its image, its process, its probes, its ends, and when it is started again.

It reads top to bottom in ``ContainerLife.run``. Everything it learns goes into a ``status.Container``, and each change is told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.launchers.processes import facts
from flyte_unified.launchers.processes.work import Exited, ProcessWork
from flyte_unified.testing.fake_kube.quantities import parse
from flyte_unified.testing.kubelet import environment, volumes
from flyte_unified.testing.kubelet.environment import ConfigError, Object, Sources
from flyte_unified.testing.kubelet.images import PullError
from flyte_unified.testing.kubelet.output import termination_message
from flyte_unified.testing.kubelet.probes import Handlers, Result, watch
from flyte_unified.testing.kubelet.runtime import Run, Sandbox
from flyte_unified.testing.kubelet.services import Backoff, Services
from flyte_unified.testing.kubelet.status import UNKNOWN, Container, Running, Terminated, Waiting

_log = structlog.get_logger(__name__)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process"
)
_LOST = "The container could not be located when the pod was terminated"
_RUNTIME = "a0"
"""The SDK's program, which a fork server can start."""


@dataclass(frozen=True, slots=True)
class Home:
    """What a container needs of its pod: the object, its volumes, what it refers to, and whom to tell of a change."""

    pod: Object
    places: dict[str, Path]
    sources: Callable[[], Awaitable[Sources]]
    changed: Callable[[], None]

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def address(self) -> str:
        return str(self.pod["status"]["podIP"])


class ContainerLife:
    """``run`` returns when the container will not be started again; ``stop``, after ``run`` was cancelled, ends it."""

    def __init__(self, container: Container, home: Home, services: Services) -> None:
        self.container = container
        self.up = asyncio.Event()
        """Set when the container first counts as started."""
        self.oom = False
        """The present run is to end as one that used too much memory."""
        self._spec = container.spec
        self._home = home
        self._services = services
        self._runs: list[Run] = []
        self._sandbox: Sandbox | None = None
        self._ending = False
        policy = home.pod["spec"].get("restartPolicy", "Always")
        self._policy = {"sidecar": "Always", "init": "Never" if policy == "Never" else "OnFailure"}.get(container.role, policy)
        self._crashes = Backoff(services.pace.crash_first, services.pace.crash_most)
        self._adopt()

    @property
    def current(self) -> Run | None:
        """The run whose process may live."""
        return self._runs[-1] if self._runs and not self._runs[-1].exited.done() else None

    async def run(self) -> None:
        """Run until the restart policy has no more to do."""
        container = self.container
        if isinstance(container.state, Running):
            if any(key in self._spec for key in ("lifecycle", "readinessProbe", "livenessProbe", "startupProbe")):
                self._sandbox = await asyncio.to_thread(self._prepare, await self._home.sources())
            await self._attend(self._runs[-1], adopted=True)
        while not isinstance(container.state, Terminated) or self._again():
            if isinstance(container.state, Terminated):
                await self._pause()
            await self._attend(await self._start())

    async def stop(self, grace: float) -> None:
        """preStop, SIGTERM, and SIGKILL when ``grace`` seconds are over; then the end is recorded."""
        container = self.container
        if (run := self.current) is not None:
            self._say("Killing", f"Stopping container {container.name}")
            await self._kill(run, grace)
            self._record(run, await asyncio.shield(run.exited))
        elif self._runs and isinstance(container.state, Running):
            self._record(self._runs[-1], self._runs[-1].exited.result())
        elif isinstance(container.state, Waiting) and container.last is not None:
            container.state, container.last = container.last, None
        container.retried = False
        self._home.changed()

    async def hurry(self, grace: float) -> None:
        """The end that was asked for must come within ``grace`` seconds."""
        if (run := self.current) is not None:
            await self._services.runtime.kill(run, grace)

    def lose(self) -> None:
        """The container never came to run, and its pod ends."""
        if isinstance(self.container.state, Waiting):
            self.container.state = Terminated(137, UNKNOWN, Micros(0), Micros(0), _LOST)

    def logged(self, *, previous: bool) -> Run | None:
        """The run whose output people mean, or the one before."""
        runs = [*self._runs, None] if isinstance(self.container.state, Waiting) else self._runs
        if previous:
            return runs[-2] if len(runs) > 1 else None
        return next((run for run in reversed(runs) if run is not None), None)

    def forget(self) -> None:
        for run in self._runs:
            self._services.runtime.forget(run)
        self._runs.clear()

    # Starting

    async def _start(self) -> Run:
        container = self.container
        await self._pulled()
        self._sandbox = await self._configured()
        number = container.restarts
        self._say("Created", f"Created container: {container.name}")
        run_id = f"{self._home.uid}.{container.name}.{number}"
        run = self._services.runtime.launch(await asyncio.to_thread(self._work, self._sandbox, run_id, number))
        for old in self._runs[:-1]:
            self._services.runtime.forget(old)
        self._runs = [*self._runs[-1:], run]
        return run

    async def _pulled(self) -> None:
        """The image is there. Waits for it as a kubelet does, for ever."""
        services, image = self._services, self._spec.get("image", "")
        backoff = Backoff(services.pace.pull_first, services.pace.pull_most)
        while True:
            try:
                if services.images.pulls(self._spec):
                    self._say("Pulling", f'Pulling image "{image}"')
                    begun = services.clock.monotonic()
                    await services.images.pull(image)
                    took = f"{(services.clock.monotonic() - begun) * 1000:.0f}ms"
                    self._say(
                        "Pulled",
                        f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: 0 bytes.',
                    )
                else:
                    self._say("Pulled", f'Container image "{image}" already present on machine')
            except PullError as error:
                await self._no_image(image, error, backoff.next())
            else:
                return

    async def _no_image(self, image: str, error: PullError, pause: float) -> None:
        told = {"InvalidImageName": "InspectFailed", "ErrImageNeverPull": "ErrImageNeverPull"}
        message = f'Failed to pull image "{image}": {error.message}' if error.reason == "ErrImagePull" else error.message
        self._say(told.get(error.reason, "Failed"), message, warning=True)
        self._say("Failed", f"Error: {error.reason}", warning=True)
        self._wait(error.reason, error.message)
        if error.reason == "ErrImagePull":
            seen = min(pause / 2, self._services.pace.retry)
            await asyncio.sleep(seen)
            pause -= seen
            self._say("BackOff", f'Back-off pulling image "{image}"')
            self._say("Failed", "Error: ImagePullBackOff", warning=True)
            self._wait("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {error.message}')
        await asyncio.sleep(pause)

    async def _configured(self) -> Sandbox:
        """The sandbox, when everything that the container refers to is there."""
        while True:
            try:
                return await asyncio.to_thread(self._prepare, await self._home.sources())
            except (ConfigError, volumes.MountError) as error:
                self._say("Failed", f"Error: {error.message}", warning=True)
                self._wait("CreateContainerConfigError", error.message)
            await asyncio.sleep(self._services.pace.retry)

    def _prepare(self, sources: Sources) -> Sandbox:
        runtime, pod, name = self._services.runtime, self._home.pod, self.container.name
        interpreter = self._services.images.interpreter(self._spec.get("image", ""))
        home, temporary = runtime.directory / "home", runtime.directory / "tmp"
        base = {
            "PATH": f"{interpreter.parent}:{_PATH}",
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        }
        env = environment.variables(self._spec, pod=pod, base=base, sources=sources, capacity=self._services.allocatable)
        place = self._services.pod_directory(self._home.uid) / "containers" / name
        work = place / "work"
        work.mkdir(parents=True, exist_ok=True)
        mounts = volumes.mounts(self._spec, self._home.places, pod=pod, env=env)
        directory = Path(self._spec.get("workingDir") or work)
        if not directory.exists() and not any(directory.is_relative_to(m.target) for m in mounts):
            mounts.append(volumes.Mount(work, PurePosixPath(directory), read_only=False))
        for own in (work, home, temporary):  # a volume over one of them would hide it
            if any(own.is_relative_to(m.target) for m in mounts):
                mounts.append(volumes.Mount(own, PurePosixPath(own), read_only=False))
        network = self._services.network.path(self._home.address) if self._services.network else None
        return Sandbox(place, env, sorted(mounts, key=lambda m: m.target.parts), directory, interpreter, network)

    def _work(self, sandbox: Sandbox, run_id: str, number: int) -> ProcessWork:
        argv = environment.words(self._spec, sandbox.env, program=self._services.images.program(self._spec.get("image", "")))
        plain = not sandbox.mounts and sandbox.network is None
        warm = self._services.warm and plain and argv[:1] == [_RUNTIME] and not self._spec.get("workingDir")
        sandbox.message(number).touch()
        if not warm:
            mounts = list(sandbox.mounts)
            if facts.LINUX and not self._services.runtime.mount_refusal:
                path = PurePosixPath(self._spec.get("terminationMessagePath") or "/dev/termination-log")
                mounts.append(volumes.Mount(sandbox.message(number), path, read_only=False))
            if argv[:1] in (["python"], ["python3"]):  # which the interpreter's directory need not have
                argv[0] = str(sandbox.interpreter)
            argv = sandbox.command(str(number), argv or [""], mounts=mounts)
        limit = (self._spec.get("resources") or {}).get("limits", {}).get("memory")
        return ProcessWork(
            id=run_id,
            argv=tuple(argv),
            env=sandbox.env,
            directory=sandbox.place / "work",
            log=sandbox.log(number),
            interpreter=sandbox.interpreter,
            warm=warm,
            memory_limit=int(parse(str(limit))) if limit else None,
        )

    # Running

    async def _attend(self, run: Run, *, adopted: bool = False) -> None:
        """See a run to its end."""
        container = self.container
        started = await asyncio.shield(run.started)
        if started.pid:
            container.state = Running(Micros(started.at))
            container.container_id = f"process://{run.id}"
            container.retried = False
            if not adopted:
                self._say("Started", f"Started container {container.name}")
            self._home.changed()
        care = asyncio.create_task(self._care(run, adopted=adopted), name=f"care for {run.id}")
        try:
            exited = await asyncio.shield(run.exited)
        finally:
            care.cancel()
            for error in await asyncio.gather(care, return_exceptions=True):
                if isinstance(error, Exception):
                    _log.error("a container's probes failed themselves", container=run.id, exc_info=error)
        self._record(run, exited)

    async def _care(self, run: Run, *, adopted: bool) -> None:
        """postStart, then the probes."""
        handlers = self._handlers()
        hook = None if adopted else (self._spec.get("lifecycle") or {}).get("postStart")
        if hook and handlers:
            result = await handlers.handle(hook, timeout=None)
            if not result.good:
                self._say("FailedPostStartHook", f"PostStartHook failed: {result.message}", warning=True)
                await self._kill(run, self._grace())
                return
        startup = self._spec.get("startupProbe")
        if startup and handlers:
            await watch(startup, handlers, told=lambda r: self._started_or_killed(r, run), failed=self._unhealthy("Startup"))
            if self._ending:
                return
        self.container.started = True
        readiness, liveness = self._spec.get("readinessProbe"), self._spec.get("livenessProbe")
        self.container.ready = readiness is None
        self.up.set()
        self._home.changed()
        async with asyncio.TaskGroup() as group:
            if readiness and handlers:
                group.create_task(watch(readiness, handlers, told=self._is_ready, failed=self._unhealthy("Readiness")))
            if liveness and handlers:
                alive = self._unhealthy("Liveness")
                group.create_task(watch(liveness, handlers, told=lambda r: self._alive_or_killed(r, run), failed=alive))

    def _unhealthy(self, kind: str) -> Callable[[Result], None]:
        return lambda result: self._say("Unhealthy", f"{kind} probe failed: {result.message}", warning=True)

    async def _is_ready(self, result: Result) -> bool:
        if self.container.ready != result.good:
            self.container.ready = result.good
            self._home.changed()
        return True

    async def _started_or_killed(self, result: Result, run: Run) -> bool:
        if not result.good:
            await self._unfit("startup", run)
        return False

    async def _alive_or_killed(self, result: Result, run: Run) -> bool:
        if not result.good:
            await self._unfit("liveness", run)
        return result.good

    async def _unfit(self, kind: str, run: Run) -> None:
        self._ending = True
        self._say("Killing", f"Container {self.container.name} failed {kind} probe, will be restarted")
        probe = self._spec[f"{kind}Probe"]
        await self._kill(run, probe.get("terminationGracePeriodSeconds", self._grace()))

    def _handlers(self) -> Handlers | None:
        if self._sandbox is None:
            return None
        return Handlers(self._spec, self._sandbox, runtime=self._services.runtime, address=self._home.address)

    def _grace(self) -> float:
        return float(self._home.pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def _kill(self, run: Run, grace: float) -> None:
        begun = self._services.clock.monotonic()
        hook = (self._spec.get("lifecycle") or {}).get("preStop")
        handlers = self._handlers()
        if hook and handlers and run.started.done() and grace > 0:
            result = await handlers.handle(hook, timeout=grace)
            if not result.good:
                self._say("FailedPreStopHook", f"PreStopHook failed: {result.message}", warning=True)
            grace = max(2.0, grace - (self._services.clock.monotonic() - begun))  # as a kubelet grants it
        await self._services.runtime.kill(run, grace)

    # Ends

    def _record(self, run: Run, exited: Exited) -> None:
        container = self.container
        began = container.state.at if isinstance(container.state, Running) else Micros(0)
        container.state = self._terminated(run, exited, began)
        container.ready = container.started = self._ending = self.oom = False
        self.up.clear()
        if container.state.reason == "StartError":
            self._say("Failed", f"Error: {container.state.message}", warning=True)
        self._home.changed()

    def _terminated(self, run: Run, exited: Exited, began: Micros) -> Terminated:
        at = Micros(exited.at) if exited.at else self._services.clock.now()
        place = self._services.pod_directory(self._home.uid) / "containers" / self.container.name
        sandbox = self._sandbox or Sandbox(place, {}, [], place, place)
        why = sandbox.failure(run.number)
        text = run.failure or (why.read_text() if exited.exit_code == 128 and why.exists() else "")
        if text:
            return Terminated(128, "StartError", Micros(0), at, f"{_START}: {text}: unknown", f"process://{run.id}")
        oom = exited.oom or self.oom
        code = 137 if oom else 128 + exited.signal if exited.signal else exited.exit_code
        reason = "OOMKilled" if oom else UNKNOWN if code is None else "Completed" if code == 0 else "Error"
        message = _LOST if code is None else termination_message(self._spec, sandbox, run.number, failed=code != 0)
        return Terminated(137 if code is None else code, reason, began or at, at, message, f"process://{run.id}")

    def _again(self) -> bool:
        """Whether the container runs once more."""
        state = self.container.state
        assert isinstance(state, Terminated)
        self.container.retried = self._policy == "Always" or (self._policy == "OnFailure" and state.exit_code != 0)
        return self.container.retried

    async def _pause(self) -> None:
        """Before a restart: nothing the first time, then a pause that grows."""
        container, pod = self.container, self._home.pod["metadata"]
        ended = container.state
        assert isinstance(ended, Terminated)
        if ended.finished_at - ended.started_at > self._services.pace.crash_forgotten * SECOND and ended.started_at:
            self._crashes.reset()
        elif container.restarts:
            pause = self._crashes.next()
            who = f"restarting failed container={container.name} pod={pod['name']}_{pod['namespace']}({pod['uid']})"
            said = (
                f"Back-off restarting failed container {container.name} in pod {pod['name']}_{pod['namespace']}({pod['uid']})"
            )
            self._say("BackOff", said, warning=True)
            container.last = ended
            self._wait("CrashLoopBackOff", f"back-off {_duration(pause)} {who}")
            await asyncio.sleep(pause)
        container.last = ended
        container.restarts += 1

    # Adoption

    def _adopt(self) -> None:
        """Find the runs of this container that an earlier kubelet started."""
        found = self._services.runtime.runs.get(f"{self._home.uid}.{self.container.name}", {})
        self._runs = [run for _, run in sorted(found.items())][-2:]
        container = self.container
        if not self._runs:
            if isinstance(container.state, Running):  # the machine was started anew, say
                container.state = Terminated(
                    137, UNKNOWN, container.state.at, container.state.at, _LOST, container.container_id
                )
            return
        run = self._runs[-1]
        container.restarts = max(container.restarts, run.number)
        container.container_id = f"process://{run.id}"
        at = Micros(run.started.result().at) if run.started.done() else self._services.clock.now()
        if not isinstance(container.state, Running):
            container.state = Running(at)
        if run.exited.done():
            container.state = self._terminated(run, run.exited.result(), container.state.at)

    def _wait(self, reason: str, message: str) -> None:
        self.container.state = Waiting(reason, message)
        self._home.changed()

    def _say(self, reason: str, message: str, *, warning: bool = False) -> None:
        part = "containers" if self.container.role == "main" else "initContainers"
        where = f"spec.{part}{{{self.container.name}}}"
        self._services.events.say(self._home.pod, reason, message, container=where, warning=warning)


def _duration(seconds: float) -> str:
    """As Go prints it."""
    minutes, rest = divmod(seconds, 60)
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
