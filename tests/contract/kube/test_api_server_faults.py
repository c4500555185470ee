"""What the fake does at a test's word, and what it counts."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.raw import MERGE, Raw, config_map


async def test_away_it_answers_nobody(api: Raw, fake: FakeKube):
    """Connections break, watches too; restored, all is as it was."""
    await api("POST", "~configmaps", config_map("a"))
    async with api.watch("~configmaps", resourceVersion="0") as watch:
        await watch.next()
        fake.faults.outage()
        with pytest.raises((aiohttp.ClientError, EOFError)):
            while True:
                await watch.next()
    with pytest.raises(aiohttp.ClientError):
        await api("GET", "~configmaps/a")
    fake.faults.restore()
    assert (await api("GET", "~configmaps/a")).status == 200


async def test_refusing_it_answers_503(api: Raw, fake: FakeKube):
    """As a load balancer before a server that is away."""
    fake.faults.outage(refuse=True)
    assert (await api("GET", "~configmaps")).status == 503
    fake.faults.restore()
    assert (await api("GET", "~configmaps")).status == 200


async def test_watches_are_cut(api: Raw, fake: FakeKube):
    """In the middle; a new one goes on where it was."""
    version = (await api("GET", "~configmaps")).version
    async with api.watch("~configmaps", resourceVersion=version) as watch:
        await api("POST", "~configmaps", config_map("a"))
        assert await watch.names(1) == [("ADDED", "a")]
        fake.faults.cut_watches()
        with pytest.raises((aiohttp.ClientError, EOFError)):
            await watch.next()
    async with api.watch("~configmaps", resourceVersion=version) as watch:
        assert await watch.names(1) == [("ADDED", "a")]


async def test_conflicts_come_so_many_times(api: Raw, fake: FakeKube):
    """Of updates and patches, as if somebody else had been quicker."""
    await api("POST", "~configmaps", config_map("a"))
    fake.faults.conflict(times=2)
    answers = [await api("PATCH", "~configmaps/a", {"data": {"k": str(n)}}, MERGE) for n in range(3)]
    assert [(one.status, one.body.get("reason")) for one in answers] == [(409, "Conflict"), (409, "Conflict"), (200, None)]


async def test_too_many_requests_say_when_to_come_back(api: Raw, fake: FakeKube):
    """Retry-After in seconds, in the head and in the details."""
    fake.faults.throttle(times=1, retry_after=7)
    answer = await api("GET", "~configmaps")
    assert (answer.status, answer.headers["Retry-After"], answer.body["details"]["retryAfterSeconds"]) == (429, "7", 7)
    assert (await api("GET", "~configmaps")).status == 200


async def test_a_fault_is_for_what_it_matches(api: Raw, fake: FakeKube):
    """By verb, resource, name."""
    fake.faults.fail(500, times=1, match=lambda asked: (asked.verb, asked.resource, asked.name) == ("create", "secrets", ""))
    assert (await api("POST", "~configmaps", config_map("a"))).status == 201
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}
    assert [(await api("POST", "~secrets", secret)).status for _ in range(2)] == [500, 201]


async def test_an_answer_can_be_lost(api: Raw, fake: FakeKube):
    """What was asked is done all the same."""
    fake.faults.drop(times=1, match=lambda asked: asked.verb == "create")
    with pytest.raises(aiohttp.ClientError):
        await api("POST", "~configmaps", config_map("a"))
    assert (await api("POST", "~configmaps", config_map("a"))).reason == "AlreadyExists"


async def test_answers_can_be_late(api: Raw, fake: FakeKube):
    """As long as the delay is on."""
    fake.faults.delay(0.05, match=lambda asked: asked.resource == "configmaps")
    begun = time.monotonic()
    await asyncio.gather(*(api("GET", "~configmaps") for _ in range(3)))
    assert time.monotonic() - begun >= 0.05
    fake.faults.restore()


async def test_requests_and_writes_are_counted(api: Raw, fake: FakeKube):
    """Every request; of the writes those that were done."""
    requests, writes = fake.requests.copy(), fake.writes.copy()
    await api("POST", "~configmaps", config_map("a"))
    await api("POST", "~configmaps", config_map("a"))
    await api("POST", "~configmaps?dryRun=All", config_map("b"))
    await api("PATCH", "~pods/none/status", {}, MERGE)
    assert fake.requests - requests == {("create", "configmaps", ""): 3, ("patch", "pods", "status"): 1}
    assert fake.writes - writes == {("create", "configmaps", ""): 1}
