"""What the tests of faults stand on: a cluster whose API server fails as it is told, servers to kill, and bodies of tasks.

A server is a process; the cluster is a thread. Its store tells every change, whatever its clients are told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.core.ids import RunKey
from flyte_unified.core.names import object_name, order_name
from flyte_unified.core.phases import Phase
from flyte_unified.kube.errors import Missing
from flyte_unified.kube.kinds import LEASES, Object
from flyte_unified.testing.fake_kube.faults import Asked, Faults
from flyte_unified.testing.fake_kube.store import Change
from tests.cluster.bodies import PATIENCE, Bodies
from tests.cluster.local import REAL, LocalCluster, let_go
from tests.cluster.replicas import Replica, Zygote
from tests.databases import clear
from tests.postgres import MISSING, PostgresServer
from tests.sdk.durability.stand import DOMAIN, PROJECT, identifier

LEASE = 2.0
"""Seconds: short, as many tests wait until one is over; long enough that a server on a busy machine renews its own in time."""
_FAST = {
    "kubernetes.lease_duration": LEASE,
    "execution.retry_backoff": 0.05,
    "execution.kill_grace": 0.5,
    "pods.node_lost_grace": 0.5,
    "log.format": "console",
    "server.public_url": "http://flyte.test",
}
_ENDLESS = 1 << 30
_ORDERS, _PODS, _LEASES = ("flyte.org", "taskactions"), ("", "pods"), ("coordination.k8s.io", "leases")


@dataclass
class Held:
    """Requests that are refused until the faults are over; ``reached`` when the first has come."""

    reached: asyncio.Event


class Stand:
    """``replicas`` are the servers that were started. Every run has a name of its own, of all tests."""

    _runs = 0

    def __init__(
        self, cluster: LocalCluster, zygote: Zygote, directory: Path, *, database: str, bodies: Bodies, settings: dict[str, Any]
    ) -> None:
        self.cluster = cluster
        self.bodies = bodies
        self.directory = directory
        self.replicas: dict[str, Replica] = {}
        self._zygote = zygote
        own = {"database.url": database, "storage.root": str(directory / "storage")}
        merged = {**cluster.settings, **_FAST, **own, **settings}
        self.settings = {
            name.replace(".", "_").upper(): ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in merged.items()
        }
        self.objects: dict[tuple[tuple[str, str], str], Object] = {}
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # The cluster

    @property
    def faults(self) -> Faults:
        return self.cluster.server.faults

    def listen(self) -> Callable[[], None]:
        """Follows what the cluster holds; what is answered ends it."""
        store = self.cluster.server.store

        def told(kind: tuple[str, str], change: Change) -> None:
            namespace = change.record.key[0]
            if kind in (_ORDERS, _PODS, _LEASES) and namespace == self.cluster.namespace:
                obj = None if change.deleted else change.record.object()
                with contextlib.suppress(RuntimeError):  # the test is over
                    self._loop.call_soon_threadsafe(self._heard, kind, change.record.key[1], obj)

        store.listeners.append(told)
        return lambda: store.listeners.remove(told)

    def _heard(self, kind: tuple[str, str], name: str, obj: Object | None) -> None:
        if obj is None:
            self.objects.pop((kind, name), None)
        else:
            self.objects[kind, name] = obj
        self._news.set()

    async def until(self, holds: Callable[[], object]) -> None:
        """Looks again whenever an object has changed."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self._news.clear()
                await self._news.wait()

    def order(self, run: str, action: str = "a0") -> Object | None:
        return self.objects.get((_ORDERS, order_name(_key(run, action))))

    def pod(self, run: str, attempt: int = 1, action: str = "a0") -> Object | None:
        return self.objects.get((_PODS, object_name(_key(run, action), attempt)))

    def condition(self, run: str) -> str:
        """What the order of ``run`` says that it is doing."""
        conditions = ((self.order(run) or {}).get("status") or {}).get("conditions") or []
        return str(conditions[0]["reason"]) if conditions else ""

    def hold(self, verb: str, resource: str, subresource: str = "", *, status: int = 503) -> Held:
        """Refuse such requests from now on."""
        held = Held(asyncio.Event())

        def match(asked: Asked) -> bool:
            found = (asked.verb, asked.resource, asked.subresource) == (verb, resource, subresource)
            if found:
                self._loop.call_soon_threadsafe(held.reached.set)
            return found

        self.faults.fail(status, times=_ENDLESS, match=match)
        return held

    async def reached(self, held: Held) -> None:
        async with asyncio.timeout(PATIENCE):
            await held.reached.wait()

    # Servers

    async def replica(self, name: str = "one", **settings: str) -> Replica:
        """A new server, ready."""
        replica = Replica(self.directory / name, {**self.settings, **settings}, name=name, zygote=self._zygote)
        self.replicas[name] = replica
        await replica.start()
        return replica

    def leader(self) -> str:
        """The name of the replica that has the lease."""
        lease = self.objects.get((_LEASES, "flyte-unified"))
        return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "").rpartition("_")[0]

    async def leads(self, *names: str) -> None:
        """Returns when one of them has the lease."""
        await self.until(lambda: self.leader() in names)

    def vacate(self) -> None:
        """The lease of a leader that is dead need not run out: somebody deletes it."""
        with contextlib.suppress(Missing):
            self.cluster.do(lambda: self.cluster.kube.delete(LEASES, "flyte-unified", namespace=self.cluster.namespace))

    # Runs

    async def run(self, replica: Replica, *, retries: int = 0) -> str:
        """The name of a new one."""
        Stand._runs += 1
        name = f"f{Stand._runs}"
        request = run_service_pb2.CreateRunRequest(run_id=identifier(name), task_spec=self.bodies.task(retries=retries))
        await replica.call("workflow.RunService", "CreateRun", request, run_service_pb2.CreateRunResponse)
        return name

    async def succeeds(self, replica: Replica, run: str, *, attempts: int = 1) -> run_definition_pb2.ActionDetails:
        """The run ends so, and is as if nothing had been: each attempt had its one body, and nothing is held by us."""
        return await self.ends(replica, run, Phase.SUCCEEDED, attempts=attempts)

    async def ends(
        self, replica: Replica, run: str, phase: Phase, *, attempts: int = 1, bodies: int | None = None
    ) -> run_definition_pb2.ActionDetails:
        """The same for another end; ``bodies`` is how many attempts had one, if not every."""
        try:
            async with asyncio.timeout(PATIENCE):
                assert await replica.phase(run) is phase, replica.log_text()
        except TimeoutError:
            told = "\n".join(f"{one.name}: {one.log_text()}" for one in self.replicas.values())
            raise AssertionError(f"{run} did not end: {self.condition(run)}\n{told}") from None
        details = await replica.details(run, "a0")
        assert len(details.attempts) == attempts, [str(attempt) for attempt in details.attempts]
        ran = self.bodies.of(run)
        assert len(ran) == len(set(ran)) == (attempts if bodies is None else bodies)
        assert self.bodies.twice == []
        await self.settled(run)
        return details

    async def settled(self, run: str) -> None:
        """The cluster says that it is over, and what it keeps is held by nobody."""

        def over() -> bool:
            order = self.order(run)
            pods = [obj for (kind, _), obj in self.objects.items() if kind == _PODS and _run_of(obj) == run]
            finalizers = [name for obj in (order, *pods) if obj for name in obj["metadata"].get("finalizers") or ()]
            return not finalizers

        await self.until(over)


def _run_of(pod: Object) -> str:
    work = str((pod["metadata"].get("annotations") or {}).get("flyte.org/work", ",,,,"))
    return work.split(",")[2]


def _key(run: str, action: str) -> Any:
    return RunKey(PROJECT, DOMAIN, run).action(action)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote.waiting() as zygote:
        yield zygote


@pytest.fixture(scope="session")
def faulty_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One whose API server can be told to fail."""
    if REAL:
        pytest.skip("a real API server fails when it likes")
    with LocalCluster(tmp_path_factory.mktemp("faulty"), warm=False) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def standing(
    cluster: LocalCluster, zygote: Zygote, directory: Path, *, database: str, settings: dict[str, Any], s3: str = ""
) -> AsyncIterator[Stand]:
    async with Bodies(directory / "gate", s3=s3).meeting() as bodies:
        stand = Stand(cluster, zygote, directory, database=database, bodies=bodies, settings=settings)
        ignore = stand.listen()
        try:
            yield stand
        finally:
            cluster.server.faults.restore()
            cluster.kubelet.resume()
            bodies.let_go()
            await asyncio.gather(*(replica.kill() for replica in stand.replicas.values()))
            stand.vacate()
            await asyncio.to_thread(cluster.do, lambda: let_go(cluster.kube, cluster.namespace))
            ignore()


@pytest.fixture
async def stand(
    faulty_cluster: LocalCluster, zygote: Zygote, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Stand]:
    """Over Postgres where there is one: several servers need it, and one may have it too."""
    database = ""
    if not MISSING:
        server: PostgresServer = request.getfixturevalue("postgres")
        await clear(server.url())
        database = server.url()
    async with standing(faulty_cluster, zygote, tmp_path, database=database, settings={}) as stand:
        yield stand
