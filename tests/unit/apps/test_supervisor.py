"""One app over hours, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from flyteidl2.app import app_definition_pb2 as idl

from flyte_unified.apps import model
from flyte_unified.apps.local.supervisor import End, Replica
from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import FailedPrecondition, NotFound, Unavailable
from tests.unit.apps.machine import KEY, Machine, app, asked, changed, supervised

pytestmark = pytest.mark.virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_it_is_put_to_sleep_and_woken() -> None:
    """After 60 s without a visitor; the next one waits the 3 s of its start."""
    machine = Machine()
    async with supervised(app(), machine) as supervisor:
        await asyncio.sleep(100)
        assert len(machine.ended) == 1
        began = now()
        async with supervisor.visit() as upstream:
            assert upstream.port == 2
        assert now() - began == pytest.approx(3)
        await asyncio.sleep(59)
        assert len(machine.ended) == 1
        await asyncio.sleep(2)
        assert len(machine.ended) == 2
    states = [(phase, substate) for _, phase, substate in machine.said]
    assert states == [
        ("DEPLOYING", "INITIALIZING"),
        ("ACTIVE", "RUNNING"),
        ("ACTIVE", "SCALED_TO_ZERO"),
        ("ACTIVE", "SCALING_FROM_ZERO"),
        ("ACTIVE", "RUNNING"),
        ("ACTIVE", "SCALED_TO_ZERO"),
    ]


async def test_a_long_request_keeps_it_awake() -> None:
    """The clock of its idleness begins with its end."""
    machine = Machine()
    async with supervised(app(), machine) as supervisor:
        async with supervisor.visit():
            await asyncio.sleep(1000)
        await asyncio.sleep(59)
        assert machine.ended == []
        await asyncio.sleep(2)
        assert len(machine.ended) == 1


async def test_crashes_are_tried_again_ever_later() -> None:
    """1, 2, 4, 8 s and no longer; after three it has failed, and goes on trying; who asks then is told why."""
    machine = Machine()
    machine.fails = End("exit code 1")
    async with supervised(app(), machine) as supervisor:
        await asyncio.sleep(31.5)
        assert [round(at) for at in machine.launched] == [0, 1, 3, 7, 15, 23, 31]
        assert [phase for _, phase, _ in machine.said].index("FAILED") == 3
        assert machine.said[3][2] == "CRASH_LOOP"
        assert machine.told[3].message == "exit code 1: last words; started again in 4 s"
        with pytest.raises(Unavailable, match="app p/d/hello fails: exit code 1: last words"):
            async with supervisor.visit():
                pass
        machine.fails = None
        await asyncio.sleep(30)
        assert machine.said[-1][1:] == ("ACTIVE", "RUNNING")
        async with supervisor.visit():
            pass


async def test_what_failed_is_tried_at_once_when_somebody_asks_for_it() -> None:
    """It may find by now what it lacked."""
    machine = Machine()
    machine.fails = End("exit code 1")
    known = app()
    async with supervised(known, machine) as supervisor:
        await asyncio.sleep(24)
        failed = model.observed(known, machine.told[-1], now=Micros(2))
        assert failed is not None
        machine.fails = None
        supervisor.want(model.again(failed, asked(), now=Micros(3)))
        async with supervisor.visit():
            assert now() == pytest.approx(27)


async def test_one_that_does_not_wake_is_tried_until_it_does() -> None:
    """Though nobody waits for it any more; it has failed meanwhile, and is not said to sleep."""
    machine = Machine()
    async with supervised(app(), machine) as supervisor:
        await asyncio.sleep(100)
        machine.fails = End("exit code 1")
        with pytest.raises(Unavailable, match="fails: exit code 1"):
            async with supervisor.visit():
                pass
        await asyncio.sleep(10)
        assert machine.said[-1][1:] == ("FAILED", "CRASH_LOOP")
        machine.fails = None
        await asyncio.sleep(15)
        assert machine.said[-1][1:] == ("ACTIVE", "RUNNING")


async def test_what_is_stopped_may_crash_on_its_way_out() -> None:
    """It is stopped then, and no failure is told."""
    machine = Machine()
    known = app()
    async with supervised(known, machine) as supervisor:
        await asyncio.sleep(10)
        replica = supervisor.replica
        assert replica is not None
        message = asked(revision=1)
        message.spec.desired_state = idl.Spec.DESIRED_STATE_STOPPED
        supervisor.want(changed(known, message))
        supervisor.ended(replica, End("exit code 1"))
        await asyncio.sleep(5)
        assert [phase for _, phase, _ in machine.said] == ["DEPLOYING", "ACTIVE", "STOPPED"]


async def test_a_crash_after_long_service_is_the_first_one() -> None:
    """It is started again after a second, not after minutes; those who ask meanwhile wait."""
    machine = Machine()
    async with supervised(app(least=1), machine) as supervisor:
        for _ in range(5):
            await asyncio.sleep(100)
            replica = supervisor.replica
            assert replica is not None
            supervisor.ended(replica, End("exit code 3"))
            began = now()
            async with supervisor.visit():
                assert now() - began == pytest.approx(4)
        assert "FAILED" not in [phase for _, phase, _ in machine.said]


async def test_what_takes_all_memory_has_failed_at_once() -> None:
    """There is no use in waiting for another try."""
    machine = Machine()
    machine.fails = End("its memory limit was not enough (signal 9)", out_of_memory=True)
    async with supervised(app(), machine):
        await asyncio.sleep(0.5)
    assert machine.said[-1][1:] == ("FAILED", "OOM_KILLED")


async def test_what_does_not_listen_is_ended() -> None:
    """After 30 s, and tried again; a request waits no longer than 20 s for it."""
    machine = Machine(after=1e9)
    async with supervised(app(), machine) as supervisor:
        with pytest.raises(Unavailable, match="not ready yet: it is starting; ask again"):
            async with supervisor.visit():
                pass
        assert now() == pytest.approx(20)
        await asyncio.sleep(11)
        assert len(machine.ended) == 1
        assert "it did not listen on port 8080 within 30 s: last words" in machine.told[-1].message


async def test_what_can_not_be_launched_is_told() -> None:
    """In the words of what refused it."""
    machine = Machine()
    machine.fails = FailedPrecondition("no such secret")
    async with supervised(app(), machine):
        await asyncio.sleep(5)
    assert machine.told[-1].message.startswith("no such secret")
    assert machine.said[-1][1] == "FAILED"


async def test_a_machine_that_cannot_is_told_too() -> None:
    """A disk that is full stays so for a while: the app is not left to be waited for."""
    machine = Machine()
    machine.fails = OSError(28, "No space left on device")
    async with supervised(app(), machine):
        await asyncio.sleep(5)
    assert "No space left on device" in machine.told[-1].message
    assert machine.said[-1][1] == "FAILED"


async def test_a_later_deployment_takes_the_place_of_the_earlier() -> None:
    """Who is inside may finish; who comes waits for the later one; nobody is refused."""
    machine = Machine()
    known = app("old")
    async with supervised(known, machine) as supervisor:
        await asyncio.sleep(10)
        async with supervisor.visit() as old:
            supervisor.want(changed(known, asked("new", revision=1)))
            newcomer = asyncio.create_task(_port(supervisor))
            await asyncio.sleep(5)
            assert (old.port, newcomer.done(), machine.ended) == (1, False, [])
        assert await newcomer == 2


async def _port(supervisor: object) -> int:
    async with supervisor.visit() as upstream:  # type: ignore[attr-defined]
        return int(upstream.port)


async def test_a_request_without_end_holds_a_replacement_up_for_a_while_only() -> None:
    """30 s."""
    machine = Machine()
    known = app("old")
    async with supervised(known, machine) as supervisor:
        await asyncio.sleep(10)
        async with supervisor.visit():
            supervisor.want(changed(known, asked("new", revision=1)))
            await asyncio.sleep(29)
            assert machine.ended == []
            await asyncio.sleep(2)
            assert len(machine.ended) == 1


async def test_stop_and_delete() -> None:
    """A stopped app refuses with the way to start it; of a deleted one nothing is left once its process is gone."""
    machine = Machine()
    known = app()
    async with supervised(known, machine) as supervisor:
        await asyncio.sleep(10)
        message = asked(revision=1)
        message.spec.desired_state = idl.Spec.DESIRED_STATE_STOPPED
        supervisor.want(changed(known, message))
        await asyncio.sleep(1)
        assert machine.said[-1][1] == "STOPPED"
        with pytest.raises(Unavailable, match="`flyte update app hello --activate`"):
            async with supervisor.visit():
                pass
        supervisor.want(known)
        await asyncio.sleep(10)
        supervisor.delete()
        await asyncio.sleep(0)
        with pytest.raises(NotFound):
            async with supervisor.visit():
                pass
        assert not machine.retired
        await supervisor.retired.wait()
        assert machine.retired


async def test_a_process_of_an_earlier_server_is_taken_over_if_it_is_what_is_wanted() -> None:
    """Of this deployment, and told of this server: else there would be two."""
    machine = Machine()
    wanted = app()
    async with supervised(wanted, machine) as supervisor:
        pass
    mine = Replica(KEY, wanted.deployment[:12], "here", 8080, "hello-0")
    for replica in (mine._replace(deployment="other"), mine._replace(surroundings="elsewhere")):
        assert not supervisor.adopt(replica, surroundings="here")
    assert supervisor.adopt(mine, surroundings="here")
    assert not supervisor.adopt(mine._replace(name="hello-9"), surroundings="here")
    supervisor.begin()
    async with supervisor.visit():
        assert machine.launched == []
    await supervisor.close()
