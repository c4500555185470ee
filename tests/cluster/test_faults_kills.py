"""A server that is killed, wherever it was: the next one goes on, and nothing is lost or done twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from flyte_unified.core.phases import Phase
from tests.cluster.replicas import Replica
from tests.cluster.stand import Stand

Way = Callable[[Stand, Replica], Awaitable[str]]


async def _before_the_order(stand: Stand, server: Replica) -> str:
    held = stand.hold("create", "taskactions")
    run = await stand.run(server)
    await stand.reached(held)
    return run


async def _order_unheard_of(stand: Stand, server: Replica) -> str:
    """It is there, but nobody was told so."""
    stand.faults.drop(match=lambda asked: (asked.verb, asked.resource) == ("create", "taskactions"))
    stand.hold("get", "taskactions")
    stand.hold("watch", "taskactions")
    stand.faults.cut_watches()
    run = await stand.run(server)
    await stand.until(lambda: stand.order(run))
    return run


async def _before_the_pod(stand: Stand, server: Replica) -> str:
    held = stand.hold("create", "pods")
    run = await stand.run(server)
    await stand.reached(held)
    return run


async def _pod_unheard_of(stand: Stand, server: Replica) -> str:
    stand.faults.drop(match=lambda asked: (asked.verb, asked.resource, asked.subresource) == ("create", "pods", ""))
    run = await stand.run(server)
    await stand.until(lambda: stand.pod(run))
    return run


async def _pending(stand: Stand, server: Replica) -> str:
    stand.cluster.kubelet.hold()
    run = await stand.run(server)
    await stand.until(lambda: stand.pod(run))
    return run


async def _running(stand: Stand, server: Replica) -> str:
    run = await stand.run(server)
    await stand.bodies.comes(run)
    return run


async def _ended_unread(stand: Stand, server: Replica) -> str:
    """Its log is still to be read, and then its files."""
    run = await stand.run(server)
    held = stand.hold("get", "pods", "log")
    (await stand.bodies.comes(run)).end()
    await stand.reached(held)
    return run


async def _judged_untold(stand: Stand, server: Replica) -> str:
    """The ledger knows its end, its order does not."""
    run = await stand.run(server)
    body = await stand.bodies.comes(run)
    await stand.until(lambda: stand.condition(run) == "Executing")
    held = stand.hold("patch", "taskactions", "status")
    body.end()
    await stand.reached(held)
    assert await server.phase(run) is Phase.SUCCEEDED
    return run


async def _pod_held(stand: Stand, server: Replica) -> str:
    run = await stand.run(server)
    held = stand.hold("patch", "pods")
    (await stand.bodies.comes(run)).end()
    await stand.reached(held)
    return run


async def _order_held(stand: Stand, server: Replica) -> str:
    run = await stand.run(server)
    held = stand.hold("patch", "taskactions")
    (await stand.bodies.comes(run)).end()
    await stand.reached(held)
    return run


async def _before_the_next_attempt(stand: Stand, server: Replica) -> str:
    """The first has failed, and its pod is gone."""
    run = await stand.run(server)
    body = await stand.bodies.comes(run)
    held = stand.hold("create", "pods")
    body.end(1)
    await stand.reached(held)
    return run


async def _failed_unread(stand: Stand, server: Replica) -> str:
    run = await stand.run(server)
    held = stand.hold("get", "pods", "log")
    (await stand.bodies.comes(run)).end(1)
    await stand.reached(held)
    return run


ONCE = {
    "before its order": _before_the_order,
    "with an order unheard of": _order_unheard_of,
    "before its pod": _before_the_pod,
    "with a pod unheard of": _pod_unheard_of,
    "while its pod is pending": _pending,
    "while it runs": _running,
    "when it has ended, before it is judged": _ended_unread,
    "when it is judged, before its order says so": _judged_untold,
    "before its pod is let go": _pod_held,
    "before its order is let go": _order_held,
}
TWICE = {
    "when its first attempt has failed, before it is judged": _failed_unread,
    "before the pod of its second attempt": _before_the_next_attempt,
}


@pytest.mark.parametrize("way", ONCE.values(), ids=ONCE)
async def test_a_run_whose_server_is_killed_has_one_body(stand: Stand, way: Way) -> None:
    """It succeeds in its first attempt under the next server, wherever it was."""
    await _killed(stand, way, attempts=1)


@pytest.mark.parametrize("way", TWICE.values(), ids=TWICE)
async def test_an_attempt_that_failed_is_repeated_once(stand: Stand, way: Way) -> None:
    """Whichever server finds it so."""
    await _killed(stand, way, attempts=2)


async def _killed(stand: Stand, way: Way, *, attempts: int) -> None:
    server = await stand.replica()
    run = await way(stand, server)
    await server.kill()
    stand.vacate()
    stand.faults.restore()
    stand.cluster.kubelet.resume()
    for body in stand.bodies.all:
        if not body.told:
            body.end()
    stand.bodies.open = True
    await server.start()
    await stand.succeeds(server, run, attempts=attempts)
