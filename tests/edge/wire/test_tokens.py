"""A run's token: it opens its own run, no other, and nothing else does where one is asked for."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from flyte_unified.core.ids import RunKey
from flyte_unified.manager import Manager
from flyte_unified.rpc.registry import Registry
from flyte_unified.rpc.sockets import listen
from flyte_unified.rpc.tokens import RunTokens
from flyte_unified.storage.signing import load_key
from flyte_unified.testing import Backend
from flyte_unified.testing.backend import settings_in
from tests.edge.wire import examples
from tests.edge.wire import world as facts
from tests.edge.wire.examples import Example
from tests.edge.wire.raw import Answer, Raw
from tests.edge.wire.world import DOMAIN, PROJECT, World

_METHODS = {method.procedure: method for method in Registry().methods()}
_OF_TASKS = (
    "actions.ActionsService",
    "workflow.QueueService",
    "workflow.StateService",
    "workflow.EventsProxyService",
    "workflow.InternalRunService",
)
"""Services of which a call must be of the run that it speaks of."""


def token_of(directory: Path, run: str) -> str:
    return RunTokens(load_key(directory / "key")).token(RunKey(PROJECT, DOMAIN, run))


async def call(raw: Raw, example: Example, token: str = "") -> Answer:
    kind = _METHODS[example.procedure].kind
    streams = kind.client_streams or kind.server_streams
    return await raw.call(example.procedure, example.message, streams=streams, token=token, patience=0.1)


@pytest.fixture
def of_tasks(valid: Mapping[str, list[Example]]) -> list[Example]:
    """Requests that speak of the run ``spare``, or of ``example``."""
    return [example for service in _OF_TASKS for example in valid[service]]


async def test_the_token_of_another_run(raw: Raw, of_tasks: list[Example], directory: Path) -> None:
    """PermissionDenied that names both runs; the stream of reports is refused as a whole."""
    token = token_of(directory, examples.DONE)
    for example in of_tasks:
        answer = await call(raw, example, token)
        assert answer.code == "permission_denied", (example.procedure, answer)
        assert f"the token is of run {PROJECT}/{DOMAIN}/{examples.DONE}" in answer.message


async def test_the_right_token_or_none(raw: Raw, of_tasks: list[Example], directory: Path) -> None:
    """On an open loopback both pass."""
    for example in of_tasks:
        run = examples.SPARE if f'name: "{examples.SPARE}"' in str(example.message) else examples.RUN
        for token in (token_of(directory, run), ""):
            answer = await call(raw, example, token)
            assert answer.code not in ("permission_denied", "unauthenticated"), (example.procedure, answer)


def wrong_tokens(directory: Path) -> Iterator[str]:
    good = token_of(directory, examples.SPARE)
    raw = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    yield from ("x", "%00", "a" * 10_000, "%F0%9F%90%A2", good[:-4], good[4:], good.swapcase())
    yield good + "A"
    yield good + "!"
    yield good[:5] + "!" + good[5:]
    yield good + "="
    yield base64.urlsafe_b64encode(bytes([raw[0] ^ 1]) + raw[1:]).decode().rstrip("=")
    yield base64.urlsafe_b64encode(raw[:16] + f"{PROJECT},{DOMAIN},{examples.RUN}".encode()).decode().rstrip("=")
    yield base64.urlsafe_b64encode(raw + b",more").decode().rstrip("=")
    yield RunTokens(b"another server's key").token(RunKey(PROJECT, DOMAIN, examples.SPARE))


async def test_a_wrong_token(raw: Raw, valid: Mapping[str, list[Example]], directory: Path) -> None:
    """None passes anywhere, not even where no token is needed."""
    for token in wrong_tokens(directory):
        for service in ("workflow.StateService", "auth.IdentityService", "project.ProjectService"):
            answer = await call(raw, valid[service][0], token)
            assert answer.code == "permission_denied", (token, service, answer)
            assert "run token" in answer.message
            assert token not in answer.message


async def test_no_token_in_the_log(server: Backend, raw: Raw, valid: Mapping[str, list[Example]], directory: Path) -> None:
    """Whatever is logged of calls that came with one, refused, failed or fine."""
    lines: list[str] = []
    before = structlog.get_config()["processors"]

    def look(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        lines.append(repr(event))
        return event

    structlog.configure(processors=[look, *before])
    token = token_of(directory, examples.DONE)
    try:
        for example in (example for service in _OF_TASKS for example in valid[service]):
            await call(raw, example, token)
        for path in ("/nowhere", "/flyteidl2.workflow.RunService/Nothing", "/data/data/x", "/readyz"):
            for method in ("GET", "POST", "DELETE"):
                async with raw.session.request(method, f"{server.address}/t/{token}{path}") as response:
                    assert token not in await response.text()
        async with raw.session.get(f"{server.address}/metrics") as response:
            assert token not in await response.text()
    finally:
        structlog.configure(processors=before)
    assert any("permission_denied" in line for line in lines)
    assert not [line for line in lines if token in line]


@pytest.fixture
async def public(tmp_path: Path) -> AsyncIterator[tuple[Raw, Path]]:
    """A server that believes itself beyond loopback; the socket it really has is not."""
    settings = settings_in(tmp_path, {"server.host": "0.0.0.0", "server.insecure_public": True})
    manager = Manager(settings, sockets=listen("127.0.0.1", 0))
    try:
        await manager.start()
        async with Raw(manager.address) as raw:
            yield raw, tmp_path
    finally:
        await manager.stop()


async def test_beyond_loopback(public: tuple[Raw, Path], of_tasks: list[Example]) -> None:
    """A call without a token is refused as one that only a task may make; with its run's own it passes."""
    raw, directory = public
    for example in of_tasks:
        answer = await call(raw, example)
        assert (answer.code, "without the run's token" in answer.message) == ("permission_denied", True), example.procedure
    world = World(raw, str(directory))
    await world.create("mine", timedelta(hours=1))
    trace = facts.trace_request("mine", "t0")
    assert (await raw.call(facts.ACTIONS + "Enqueue", trace)).code == "permission_denied"
    assert (await raw.call(facts.ACTIONS + "Enqueue", trace, token=token_of(directory, "mine"))).code == "ok"
    assert (await world.details("mine", "t0")).metadata.trace.name == "spelled"
