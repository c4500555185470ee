"""Nothing is lost: servers, keepers and fork servers are killed in the middle of runs of the real SDK."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from pathlib import Path

from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.phases import Phase
from tests.sdk.durability.stand import Gate, Server, gone, identifier, standing
from tests.unit.executor.world import spec

LEAVES = 4


async def all_waiting(gate: Gate, *, leaves: int = LEAVES) -> dict[str, int]:
    """Everybody of a fan at the gate: names and process ids."""
    await gate.until(lambda: len(gate.visits) == leaves + 1)
    return {visit.name: visit.pid for visit in gate.visits}


async def check(server: Server, gate: Gate, run: str, *, leaves: int = LEAVES, attempts: int = 1) -> None:
    """The fan succeeded, each action is there once, each body ran once (an attempt), and every slot is free."""
    assert await server.phase(run) is Phase.SUCCEEDED, (server.directory / "server.log").read_text()[-4000:]
    actions = await server.actions(run)
    assert Counter(Phase(action.status.phase) for action in actions) == {Phase.SUCCEEDED: leaves + 1}
    assert {action.status.attempts for action in actions} == {attempts}
    assert Counter((visit.name, visit.attempt) for visit in gate.visits) == {
        (name, attempt): 1 for name in ("fan", *(f"leaf {n}" for n in range(leaves))) for attempt in range(1, attempts + 1)
    }
    assert [await server.metric(name) for name in ("live_actions", "active_slots", "waiting_actions")] == [0, 0, 0]


async def test_tasks_outlive_a_killed_server(tmp_path: Path) -> None:
    """Who slept across it keeps its process and runs once; who ended meanwhile keeps its result; no line is lost."""
    async with standing(tmp_path, EXECUTION_SLOTS="5") as (server, gate):
        run = await server.run(gate, "fan", LEAVES)
        pids = await all_waiting(gate)
        leaf = await gate.comes("leaf 0")
        await leaf.say("before")
        await server.kill()
        await leaf.say("during")
        ended = await gate.comes("leaf 1")
        ended.go()
        await gone(ended.pid)
        await server.start()
        assert await server.metric("active_slots") == LEAVES - 1
        await leaf.say("after")
        gate.open()
        await check(server, gate, run)
        assert {visit.name: visit.pid for visit in gate.visits} == pids
        logs = [await server.log(run, action.id.name) for action in await server.actions(run)]
        told = [[line.strip() for line in lines if line.strip() in ("before", "during", "after")] for lines in logs]
        assert ["before", "during", "after"] in told


KILLS = (("fork server",), ("server", "keeper"), ("server",), ("keeper",), ("server", "keeper", "fork server"))


async def test_whoever_is_killed_running_tasks_go_on(tmp_path: Path) -> None:
    """kill -9 of one after the other in the middle of a fan-out: each body runs once, in the process that it began in."""
    async with standing(tmp_path, EXECUTION_SLOTS="5") as (server, gate):
        run = await server.run(gate, "fan", LEAVES)
        pids = await all_waiting(gate)
        leaf = await gate.comes("leaf 0")
        for number, victims in enumerate(KILLS):
            await kill(server, victims)
            await leaf.say(f"alive after {number}")
            assert await server.metric("active_slots") == LEAVES
        gate.open()
        await check(server, gate, run)
        assert {visit.name: visit.pid for visit in gate.visits} == pids


async def test_a_kill_while_tasks_start_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The same at the moment when the first leaf of many is there: others are queued, launched, or were just forked."""
    async with standing(tmp_path, EXECUTION_SLOTS="3") as (server, gate):
        run = ""
        for victims in KILLS:
            gate.close()
            run = await server.again(run) if run else await server.run(gate, "fan", 6)
            await gate.until(lambda: any(visit.name != "fan" for visit in gate.visits))
            await kill(server, victims)
            gate.open()
            assert await server.phase(run) is Phase.SUCCEEDED, (server.directory / "server.log").read_text()[-4000:]
            assert Counter(Phase(action.status.phase) for action in await server.actions(run)) == {Phase.SUCCEEDED: 7}
            bodies = Counter(visit.name for visit in gate.visits)
            assert bodies == dict.fromkeys(("fan", *(f"leaf {n}" for n in range(6))), 1), victims


async def kill(server: Server, victims: tuple[str, ...]) -> None:
    keeper, forks = server.keeper(), server.fork_servers()
    if "server" in victims:
        await server.kill()
    if "keeper" in victims:
        os.kill(keeper, signal.SIGKILL)
        await gone(keeper)
    if "fork server" in victims:
        for fork in forks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(fork, signal.SIGKILL)
            await gone(fork)
    if "server" in victims:
        await server.start()


async def test_a_child_asked_for_while_no_server_runs_comes_into_being(tmp_path: Path) -> None:
    """The parent's call waits for the server, and its child is started once."""
    async with standing(tmp_path) as (server, gate):
        run = await server.run(gate, "late", 7)
        parent = await gate.comes("late")
        await server.kill()
        gate.open()
        parent.go()
        await server.start()
        assert await server.phase(run) is Phase.SUCCEEDED
        assert len(await server.actions(run)) == 2
        assert [visit.name for visit in gate.visits] == ["late", "leaf 7"]


async def test_a_graceful_stop_costs_no_retry(tmp_path: Path) -> None:
    """Ctrl-C ends every task; none of them has a retry, and all go on at the next start."""
    async with standing(tmp_path, EXECUTION_SLOTS="5") as (server, gate):
        run = await server.run(gate, "fan", LEAVES)
        await all_waiting(gate)
        assert await server.stop() == 0
        assert server.survivors() == []
        await server.start()
        gate.open()
        await check(server, gate, run, attempts=2)


async def test_a_hundred_tasks_stop_within_five_seconds(tmp_path: Path) -> None:
    """One Ctrl-C, and no process is left."""
    async with standing(tmp_path, EXECUTION_SLOTS="101", EXECUTION_PROCESS_WATERMARK="200") as (server, gate):
        await server.run(gate, "fan", 100)
        await gate.until(lambda: len(gate.visits) == 101)
        begun = time.monotonic()
        assert await server.stop() == 0
        took = time.monotonic() - begun
        assert server.survivors() == []
        assert took < 5.0


async def test_a_stop_while_tasks_start_costs_no_retry(tmp_path: Path) -> None:
    """Ctrl-C at the moment when the first leaf of many is there; no attempt of any of them begins twice."""
    async with standing(tmp_path, EXECUTION_SLOTS="3") as (server, gate):
        run = await server.run(gate, "fan", 6)
        await gate.until(lambda: any(visit.name != "fan" for visit in gate.visits))
        assert await server.stop() == 0
        assert server.survivors() == []
        gate.open()
        await server.start()
        assert await server.phase(run) is Phase.SUCCEEDED, (server.directory / "server.log").read_text()[-4000:]
        assert Counter(Phase(action.status.phase) for action in await server.actions(run)) == {Phase.SUCCEEDED: 7}
        assert max(Counter((visit.name, visit.attempt) for visit in gate.visits).values()) == 1


async def test_a_stop_kills_who_does_not_end_by_itself(tmp_path: Path) -> None:
    """Within the server's grace, and the task goes on at the next start."""
    async with standing(tmp_path, SERVER_SHUTDOWN_GRACE="2") as (server, gate):
        run = await server.run(gate, "stubborn", 1)
        await gate.comes("stubborn")
        assert await server.stop() == 0
        assert server.survivors() == []
        gate.open()
        await server.start()
        assert await server.phase(run) is Phase.SUCCEEDED


async def test_a_second_interrupt_ends_the_server_now(tmp_path: Path) -> None:
    """Even with a task that does not end when it is asked to; the keeper ends that one."""
    async with standing(tmp_path) as (server, gate):
        await server.run(gate, "stubborn", 1)
        task, keeper = await gate.comes("stubborn"), server.keeper()
        server.signal(signal.SIGINT)
        await gate.comes("asked to end")
        begun = time.monotonic()
        assert await server.stop() == 128 + signal.SIGINT
        assert time.monotonic() - begun < 1.5
        await gone(task.pid)
        await gone(keeper)
        assert server.survivors() == []


async def test_an_ephemeral_server_takes_all_along(tmp_path: Path) -> None:
    """Killed without a word, it leaves neither tasks nor a keeper."""
    async with standing(tmp_path) as (server, gate):
        await server.stop()
        await server.start("--ephemeral")
        await server.run(gate, "fan", 1)
        await all_waiting(gate, leaves=1)
        family = server.survivors()
        assert {visit.pid for visit in gate.visits} < {process.pid for process in family}
        await server.kill()
        await asyncio.gather(*(gone(process.pid) for process in family))


async def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    """The second start says who holds it, and harms nobody."""
    async with standing(tmp_path) as (server, _):
        assert server.process is not None
        second = Server(tmp_path)
        process = await second.spawn()
        assert await process.wait() == 1
        said = (tmp_path / "server.log").read_text()
        assert f"is in use by a server with pid {server.process.pid} on port {server.port}" in said
        assert await server.metric("live_actions") == 0


async def test_what_was_accepted_is_there_after_a_kill(tmp_path: Path) -> None:
    """Every CreateRun that was answered; the others may be repeated, and no run is there twice."""
    async with standing(tmp_path) as (server, _):
        answered: list[int] = []
        some = asyncio.Event()

        async def create(number: int) -> None:
            request = run_service_pb2.CreateRunRequest(run_id=identifier(f"r{number}"), task_spec=spec("core-sleep"))
            request.inputs.literals.add(name="length").value.scalar.primitive.duration.FromSeconds(3600)
            await server.call("workflow.RunService", "CreateRun", request, run_service_pb2.CreateRunResponse)
            answered.append(number)
            if len(answered) == 50:
                some.set()

        calls = [asyncio.create_task(create(number)) for number in range(200)]
        await some.wait()
        await server.kill()
        await asyncio.gather(*calls, return_exceptions=True)
        assert 50 <= len(answered) < 200
        await server.start()
        for number in answered:
            assert len(await server.actions(f"r{number}")) == 1
        await asyncio.gather(*(create(number) for number in range(200)))
        assert await server.metric("live_actions") == 200
