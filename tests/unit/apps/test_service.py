"""What clients and clusters are told of apps, and who runs them here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import pytest
from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.app import app_payload_pb2 as payload
from flyteidl2.common import list_pb2

from flyte_unified.apps.addresses import Addresses
from flyte_unified.apps.api import Observe, Output
from flyte_unified.apps.model import App, AppKey, Phase
from flyte_unified.apps.service import Apps
from flyte_unified.core.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from flyte_unified.core.sites import Site
from flyte_unified.db.api import Database, Notice
from tests.unit.apps.machine import NOBODY
from tests.unit.manual_clock import ManualClock

LOCAL = "http://localhost:30080"


async def known(project: str, domain: str) -> None:
    """Every project is."""


async def admitted(app: idl.Spec, project: str, domain: str) -> None:
    """Every app is."""


class Elsewhere:
    """A launcher that only hears."""

    cluster = "here"

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.news = asyncio.Event()

    async def start(self, apps: Sequence[App], observe: Observe) -> None:
        pass

    def wanted(self, app: App) -> None:
        self.heard.append(f"wanted {app.key.name}")
        self.news.set()

    def unwanted(self, key: AppKey) -> None:
        self.heard.append(f"unwanted {key.name}")
        self.news.set()

    def site(self, key: AppKey) -> Site:
        raise NotImplementedError

    def follow(self, key: AppKey, replica: str) -> AsyncGenerator[Output]:
        raise NotImplementedError

    async def stop(self, *, grace: float) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_what_another_server_changed_is_told(database: Database) -> None:
    """The launcher hears of it as of what this one changed: of one app, and of all after a gap."""
    launchers = Elsewhere(), Elsewhere()
    one, other = (
        Apps(
            database=database,
            clock=ManualClock(),
            launcher=launcher,
            addresses=Addresses(LOCAL, local=LOCAL),
            require_project=known,
            admit=admitted,
        )
        for launcher in launchers
    )
    await one.start()
    await other.start()
    hears = launchers[1]
    await create(one, asked("hello", cluster=""))
    for notice, heard in ((Notice("app", '["p","d","hello"]'), "wanted hello"), (None, "wanted hello")):
        hears.news.clear()
        other.noticed(notice)
        await asyncio.wait_for(hears.news.wait(), 10)
        assert hears.heard[-1] == heard
    await one.delete(AppKey("p", "d", "hello"))
    hears.news.clear()
    other.noticed(None)
    await asyncio.wait_for(hears.news.wait(), 10)
    assert hears.heard[-1] == launchers[0].heard[-1] == "unwanted hello"
    await one.close()
    await other.close()


@pytest.fixture
async def apps(database: Database) -> AsyncIterator[Apps]:
    apps = Apps(
        database=database,
        clock=ManualClock(),
        launcher=Elsewhere(),
        addresses=Addresses(LOCAL, local=LOCAL),
        require_project=known,
        admit=admitted,
    )
    await apps.start()
    yield apps
    await apps.close()


def asked(name: str, *, project: str = "p", cluster: str = "far", consumes: str = "", revision: int = 0) -> idl.App:
    message = idl.App(metadata=idl.Meta(id=idl.Identifier(project=project, domain="d", name=name), revision=revision))
    message.spec.container.command.append("serve")
    message.spec.cluster = cluster
    if consumes:
        item = message.spec.inputs.items.add(name="model").artifact_id
        item.key.project, item.key.domain, item.key.name = "p", "d", consumes
        item.version = "v1"
    return message


async def create(apps: Apps, message: idl.App) -> None:
    await apps.create(message, by="me", creator=NOBODY)


async def names(apps: Apps, **asked: object) -> list[str]:
    found, _, _ = await apps.page(payload.ListRequest(**asked))  # type: ignore[arg-type]
    return [app.key.name for app in found]


async def test_lists(apps: Apps) -> None:
    """By project, cluster, artifact and status; in pages, with the number of all."""
    for number in range(5):
        await create(apps, asked(f"app-{number}", consumes="model" if number % 2 else ""))
    await create(apps, asked("other", project="q", cluster="near"))
    assert len(await names(apps)) == 6
    project = {"name": "p", "domain": "d"}
    first, token, total = await apps.page(
        payload.ListRequest(request=list_pb2.ListRequest(limit=2), project=project, include_total_count=True)
    )
    assert (len(first), total) == (2, 5)
    assert len(await names(apps, request=list_pb2.ListRequest(limit=9, token=""), project=project)) == 5
    second, _, _ = await apps.page(payload.ListRequest(request=list_pb2.ListRequest(limit=2, token=token), project=project))
    assert {app.key for app in first}.isdisjoint(app.key for app in second)
    assert await names(apps, cluster_id={"name": "near"}) == ["other"]
    model = payload.ConsumedArtifactFilter(project="p", domain="d", name="model")
    assert sorted(await names(apps, artifact=model)) == ["app-1", "app-3"]
    model.version = "v"
    assert await names(apps, artifact=model) == []
    for value, number in (("DEPLOYMENT_STATUS_UNASSIGNED", 6), ("unassigned", 6), ("1", 6), ("ACTIVE", 0)):
        where = list_pb2.Filter(function=list_pb2.Filter.EQUAL, field="status_phase", values=[value])
        assert len(await names(apps, request=list_pb2.ListRequest(filters=[where]))) == number
    where = list_pb2.Filter(function=list_pb2.Filter.EQUAL, field="status_phase", values=["SLEEPY"])
    with pytest.raises(InvalidArgument, match="status_phase"):
        await names(apps, request=list_pb2.ListRequest(filters=[where]))


async def test_a_watch_sees_what_is_and_what_becomes(apps: Apps) -> None:
    """The snapshot, creations, changes and deletions, of what it is about and of nothing else."""
    await create(apps, asked("first"))
    async with aclosing(apps.watch(lambda app: app.key.project == "p")) as changes:
        before, after = await anext(changes)
        assert before is after
        await create(apps, asked("elsewhere", project="q"))
        await create(apps, asked("second"))
        before, after = await anext(changes)
        assert before is None
        assert after is not None
        assert after.key.name == "second"
        message = asked("second", revision=1)
        message.metadata.labels["team"] = "red"
        await apps.update(message, reason="", actor=NOBODY)
        before, after = await anext(changes)
        assert before is not None
        assert after is not None
        assert (before.revision, after.revision) == (1, 2)
        await apps.delete(AppKey("p", "d", "second"))
        before, after = await anext(changes)
        assert before is not None
        assert (before.revision, after) == (2, None)
        apps.changes.close()
        assert await anext(changes, "the end") == "the end"


async def test_a_cluster_leases_what_is_pinned_to_it_and_reports(apps: Apps) -> None:
    """Nothing else; of the revision that it has; whose status it is told."""
    await create(apps, asked("mine"))
    await create(apps, asked("other", cluster="near"))
    async with aclosing(apps.lease("far")) as leased:
        (app,) = await anext(leased)
        assert (app.key.name, app.phase) == ("mine", Phase.DEPLOYMENT_STATUS_ASSIGNED)
        told = asked("mine", revision=1)
        told.status.conditions.add(deployment_status=Phase.DEPLOYMENT_STATUS_ACTIVE, message="it runs")
        told.status.current_replicas = 2
        reported = await apps.report(told)
        assert (reported.phase, reported.status.current_replicas) == (Phase.DEPLOYMENT_STATUS_ACTIVE, 2)
        assert await apps.tally() == {"running": 1, "unassigned": 1}
        (again,) = await anext(leased)
        assert again.version == reported.version
        told.metadata.revision = 7
        with pytest.raises(Aborted):
            await apps.report(told)
    with pytest.raises(NotFound):
        await apps.report(asked("nobody"))


async def test_an_update_is_checked_as_a_creation_is(apps: Apps) -> None:
    """And its reason is no novel."""
    await create(apps, asked("mine"))
    with pytest.raises(InvalidArgument, match=r"app\.spec\.cluster"):
        await apps.update(asked("mine", cluster="far away", revision=1), reason="", actor=NOBODY)
    with pytest.raises(InvalidArgument, match="reason has 101 characters"):
        await apps.update(asked("mine", revision=1), reason="x" * 101, actor=NOBODY)


async def test_a_short_host_goes_to_the_first_who_wants_it(apps: Apps) -> None:
    """And to the next one that is made once it is free."""
    for project in ("p", "q"):
        await create(apps, asked("hello", project=project))
    hosts = [(await apps.get(AppKey(project, "d", "hello"))).host for project in ("p", "q")]
    assert hosts == ["hello", None]
    await apps.delete(AppKey("p", "d", "hello"))
    await create(apps, asked("hello", project="r"))
    assert (await apps.get(AppKey("r", "d", "hello"))).host == "hello"


async def test_an_app_that_would_have_the_host_of_another_is_refused(apps: Apps) -> None:
    """Who asks for the one must not come to the other."""
    await create(apps, asked("hello"))
    with pytest.raises(AlreadyExists, match="app p/d/hello has the host that p/d/Hello would have"):
        await create(apps, asked("Hello"))
