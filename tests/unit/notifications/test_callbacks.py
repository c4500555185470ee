"""The address in a condition's webhook: it signals that condition, in the type that it waits for, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.http import Request, Response
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import ActionType, Ledger, Move
from flyte_unified.notifications.callbacks import Callbacks
from tests.unit.ledger import births
from tests.unit.manual_clock import ManualClock

KEY = b"k" * 32
TYPES = {"bool": types_pb2.BOOLEAN, "int": types_pb2.INTEGER, "float": types_pb2.FLOAT, "str": types_pb2.STRING}


class Desk:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.callbacks = Callbacks(key=KEY, address="https://flyte.example.com/", ledger=ledger)
        self.post, self.get = (route.handler for route in self.callbacks.routes)

    async def condition(self, kind: str) -> ActionKey:
        told = run_definition_pb2.ConditionAction(name="c", type=types_pb2.LiteralType(simple=TYPES[kind]))
        new = replace(births.action(kind), action_type=ActionType.CONDITION, phase=Phase.PAUSED, spec=told.SerializeToString())
        await self.ledger.enqueue(new)
        return new.key

    async def signal(self, uri: str, body: bytes = b"", **query: str) -> tuple[int, dict[str, object]]:
        response = await self.post(_request(uri, body, query))
        assert isinstance(response.body, bytes)
        return response.status, json.loads(response.body)

    async def value(self, key: ActionKey) -> literals_pb2.Primitive:
        return literals_pb2.Literal.FromString((await self.ledger.action(key)).value or b"").scalar.primitive


def _request(uri: str, body: bytes, query: dict[str, str]) -> Request:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    token = uri.rpartition("/")[2]
    return Request("POST", f"/callbacks/{token}", query, (), pieces(), match={"token": token})


@pytest.fixture
async def desk(database: Database, clock: ManualClock) -> AsyncIterator[Desk]:
    ledger = Ledger(database=database, clock=clock)
    await ledger.create_run(births.run())
    yield Desk(ledger)
    ledger.changes.close()


@pytest.mark.parametrize(
    ("kind", "body", "query", "expected"),
    [
        ("bool", b"true", {}, literals_pb2.Primitive(boolean=True)),
        ("bool", b'{"value": false}', {}, literals_pb2.Primitive(boolean=False)),
        ("bool", b"", {"value": "true"}, literals_pb2.Primitive(boolean=True)),
        ("int", b" 7 ", {}, literals_pb2.Primitive(integer=7)),
        ("float", b"7", {}, literals_pb2.Primitive(float_value=7.0)),
        ("float", b"0.5", {}, literals_pb2.Primitive(float_value=0.5)),
        ("str", b'"yes"', {}, literals_pb2.Primitive(string_value="yes")),
        ("str", b"", {"value": "yes, why not"}, literals_pb2.Primitive(string_value="yes, why not")),
        ("str", b"", {"value": "5"}, literals_pb2.Primitive(string_value="5")),
    ],
)
async def test_a_value_signals(
    desk: Desk, kind: str, body: bytes, query: dict[str, str], expected: literals_pb2.Primitive
) -> None:
    """As JSON, alone or named, or in the address; whoever comes again with the same is told the same."""
    key = await desk.condition(kind)
    uri = desk.callbacks.uri(key)
    assert uri.startswith("https://flyte.example.com/callbacks/")
    assert await desk.signal(uri, body, **query) == (200, {"signalled": True})
    assert await desk.signal(uri, body, **query) == (200, {"signalled": True})
    assert await desk.value(key) == expected
    assert (await desk.ledger.action(key)).principal == "webhook"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("bool", b'"true"'),
        ("bool", b"1"),
        ("int", b"true"),
        ("int", b"7.5"),
        ("int", b"99999999999999999999"),
        ("float", b'"1"'),
        ("float", b"1" + b"0" * 400),
        ("str", b'"\\ud800"'),
        ("str", b"[" * 100_000),
        ("str", b"null"),
        ("str", b"[1]"),
        ("str", b"yes"),
        ("str", b""),
        ("str", b'{"answer": "x"}'),
    ],
)
async def test_what_does_not_fit_is_refused(desk: Desk, kind: str, body: bytes) -> None:
    """And the condition goes on waiting."""
    key = await desk.condition(kind)
    status, told = await desk.signal(desk.callbacks.uri(key), body)
    assert (status, list(told)) == (400, ["error"])
    assert (await desk.ledger.action(key)).phase is Phase.PAUSED


async def test_an_address_is_of_one_condition(desk: Desk) -> None:
    """A token that was altered, is another server's, or is no condition's leads nowhere; one that comes too late is told so."""
    key, other = await desk.condition("bool"), await desk.condition("str")
    uri = desk.callbacks.uri(key)
    stranger = Callbacks(key=b"x" * 32, address="https://h", ledger=desk.ledger)
    for wrong in (uri[:-1], uri + "A", stranger.uri(key), "h/!", "h/", desk.callbacks.uri(births.ROOT), uri + "=", f"{uri}%20"):
        assert (await desk.signal(wrong, b"true"))[0] == 404
    assert (await desk.ledger.action(key)).phase is Phase.PAUSED
    await desk.ledger.move(key, Move(to=Phase.TIMED_OUT))
    status, told = await desk.signal(uri, b"true")
    assert (status, told) == (409, {"error": f"condition {key} has ended (TIMED_OUT)"})
    assert (await desk.signal(desk.callbacks.uri(other), b'"' + b"x" * (1 << 20) + b'"'))[0] == 413


async def test_a_look_signals_nothing(desk: Desk) -> None:
    """Chats fetch the links that they show."""
    key = await desk.condition("bool")
    response = await desk.get(_request(desk.callbacks.uri(key), b"", {"value": "true"}))
    assert isinstance(response, Response)
    assert (response.status, (await desk.ledger.action(key)).phase) == (405, Phase.PAUSED)
