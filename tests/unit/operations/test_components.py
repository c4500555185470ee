"""How a server's parts are said to be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from flyte_unified.core.clock import Micros
from flyte_unified.core.context import CallContext
from flyte_unified.operations.admission import Admission
from flyte_unified.operations.handlers import ManagerHandlers, Server
from flyte_unified.operations.messages import ListComponentsRequest
from flyte_unified.triggers.scheduler import Standing

AT = Micros(1_800_000_000_000_000)


async def _well() -> str:
    return ""


async def components(*, leads: bool, leader: str = "", standing: Standing | None = None, **apps: int) -> dict[str, Any]:
    """Of a server of which nothing else can be asked."""

    async def tally() -> dict[str, int]:
        return apps

    plane = SimpleNamespace(
        controller=object() if leads else None,
        leader=leader,
        scheduler=SimpleNamespace(standing=standing or Standing(0, None, 0)),
    )
    server = SimpleNamespace(plane=plane, drain=SimpleNamespace(on=False), apps=tally)
    handlers = ManagerHandlers(cast("Server", server), admission=cast("Admission", SimpleNamespace(check=lambda _: None)))
    handlers._ask_database = handlers._ask_storage = _well  # type: ignore[method-assign]
    told = await handlers.list_components(ListComponentsRequest(), CallContext(procedure="/test"))
    return {part.name: (part.healthy, part.detail) for part in told.components}


@pytest.mark.parametrize(
    ("leads", "leader", "words"),
    [
        (True, "", "carries out runs"),
        (True, "flyte-0_1f", "carries out runs, as flyte-0_1f"),
        (False, "flyte-1_2e", "flyte-1_2e carries out runs"),
        (False, "", "nobody yet carries out runs"),
    ],
)
async def test_who_leads(leads: bool, leader: str, words: str) -> None:
    """The holder of the lease, whichever server is asked; on a laptop there is no other."""
    assert (await components(leads=leads, leader=leader))["executor"] == (True, words)


async def test_the_scheduler() -> None:
    """What is to come, and when; it is not well while a trigger can't fire. Who doesn't lead knows nothing of it."""
    well = await components(leads=True, standing=Standing(2, AT, 0))
    assert well["scheduler"] == (True, "triggers that are to fire: 2, the next at 2027-01-15T08:00:00Z")
    healthy, detail = (await components(leads=True, standing=Standing(2, AT, 1)))["scheduler"]
    assert not healthy and "are tried again: 1" in detail
    assert (await components(leads=False))["scheduler"] == (True, "at work where runs are carried out")


async def test_apps() -> None:
    """How many are how; that an app failed is its author's matter."""
    assert (await components(leads=True, running=2, asleep=1, failed=1))["apps"] == (True, "1 asleep, 1 failed, 2 running")
    assert (await components(leads=True))["apps"] == (True, "none")
