"""Apps: programs that serve for as long as somebody wants them to.

The table says what is wanted and what was last heard of it; whoever runs them (``api.AppLauncher``) is told of every change
after its commit, and tells what there is. An app that is pinned to a cluster of another name is run by whoever leases it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

import orjson
import structlog
from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.app import app_payload_pb2 as payload
from flyteidl2.common import identity_pb2

from flyte_unified.apps import model, store
from flyte_unified.apps.addresses import Addresses, Directory
from flyte_unified.apps.api import AppLauncher, Output, Told
from flyte_unified.apps.changes import Change, Changes
from flyte_unified.apps.model import App, AppKey, Phase
from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    FlyteUnifiedError,
    InvalidArgument,
    NotFound,
)
from flyte_unified.core.ids import scope_part
from flyte_unified.core.paging import Order, listing
from flyte_unified.core.sites import Site
from flyte_unified.db.api import Database, Notice

_log = structlog.get_logger(__name__)
_TOPIC = "app"
_LONGEST_NAME = 30
_LONGEST_REASON = 100
_NEWEST_FIRST = (Order("created_at", descending=True),)


class RequireProject(Protocol):
    async def __call__(self, project: str, domain: str) -> object: ...


class Admit(Protocol):
    async def __call__(self, app: idl.Spec, project: str, domain: str) -> None: ...


class Apps:
    """One for a server. ``admit`` raises FailedPrecondition for an app that may not be deployed."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        launcher: AppLauncher,
        addresses: Addresses,
        require_project: RequireProject,
        admit: Admit,
    ) -> None:
        self._database = database
        self._clock = clock
        self._launcher = launcher
        self._require_project = require_project
        self._admit = admit
        self._refreshing: set[asyncio.Task[None]] = set()
        self._started = asyncio.Event()
        self.addresses = addresses
        self.changes = Changes()
        self.sites = Directory(addresses, self._site)

    @property
    def cluster(self) -> str:
        """The name of the place where apps run that are pinned to none."""
        return self._launcher.cluster

    def pattern(self, project: str, domain: str) -> str:
        """How tasks of a domain reach its apps."""
        return self.addresses.pattern(project, domain)

    async def start(self) -> None:
        apps = await self._database.read(store.everything)
        for app in apps:
            self.sites.put(app)
        await self._launcher.start([app for app in apps if not app.spec.cluster], self._observe)
        self._started.set()

    async def stop(self, *, grace: float) -> None:
        """What runs here ends; the next start begins it again."""
        await self._launcher.stop(grace=grace)

    async def close(self) -> None:
        """Watches end. What runs, where it can outlive the server, goes on."""
        self.changes.close()
        await self._launcher.close()
        for refreshing in self._refreshing:
            refreshing.cancel()
        await asyncio.gather(*self._refreshing, return_exceptions=True)

    # What clients ask for

    async def create(self, asked: idl.App, *, by: str, creator: identity_pb2.EnrichedIdentity) -> App:
        """The app; the same again is no error. Raises AlreadyExists for another, InvalidArgument naming the field."""
        key = key_of(asked.metadata.id, field="app.metadata.id")
        await self._require_project(key.project, key.domain)
        await self._check(key, asked.spec)
        if (rival := self.sites.rival(key)) is not None:
            raise AlreadyExists(f"app.metadata.id: app {rival} has the host that {key} would have; choose another name")
        now = self._clock.now()

        def to(known: App | None) -> App:
            if known is not None:
                return model.again(known, asked, now=now)
            return model.created(key, asked, by=by, creator=creator, now=now)

        app = await self._change(key, to, hosts=self.addresses.short(key, asked.spec.ingress.subdomain))
        assert app is not None
        return app

    async def update(self, asked: idl.App, *, reason: str, actor: identity_pb2.EnrichedIdentity) -> App:
        """The next revision. Raises NotFound; Aborted when another than ``asked`` says is the present one."""
        key = key_of(asked.metadata.id, field="app.metadata.id")
        if len(reason) > _LONGEST_REASON:
            raise InvalidArgument(f"reason has {len(reason)} characters; at most {_LONGEST_REASON} are allowed")
        await self._check(key, asked.spec)
        now = self._clock.now()

        def to(known: App | None) -> App:
            if known is None:
                raise _unknown(key)
            return model.updated(known, asked, reason=reason, actor=actor, now=now)

        app = await self._change(key, to)
        assert app is not None
        return app

    async def delete(self, key: AppKey) -> None:
        """Raises NotFound."""
        removed = await self._database.write(
            lambda: store.remove(key),
            then=lambda known: self._gone(known.key) if known is not None else None,
            changed=lambda known: [_notice(key)] if known is not None else [],
        )
        if removed is None:
            raise _unknown(key)

    async def get(self, key: AppKey) -> App:
        """Raises NotFound."""
        app = await self._database.read(lambda: store.get(key))
        if app is None:
            raise _unknown(key)
        return app

    async def get_at(self, ingress: idl.Ingress) -> App:
        """The app at an address. Raises NotFound; InvalidArgument where there are two."""
        keys = set()
        for url in filter(None, (ingress.public_url, ingress.cname_url, ingress.vpc_url)):
            key = self.sites.find(self.addresses.label(urlsplit(url).hostname or "") or "")
            if key is None:
                raise NotFound(f"ingress: there is no app at {url}")
            keys.add(key)
        if len(keys) != 1:
            raise InvalidArgument("ingress: one app's addresses are expected")
        return await self.get(keys.pop())

    async def page(self, message: payload.ListRequest) -> tuple[list[App], str, int]:
        """One page, the newest first if nothing else is asked, the token of the next, and the number of all, if wanted."""
        scope = {
            "project": optional(message.project.name, field="project.name"),
            "domain": optional(message.project.domain, field="project.domain"),
            "cluster": optional(message.cluster_id.name, field="cluster_id.name"),
        }
        if message.HasField("artifact"):
            of = message.artifact
            scope["artifact"] = f"{of.project}/{of.domain}/{of.name}@" + (f"{of.version}\n" if of.version else "")
        asked = listing(
            message.request,
            store.KIND,
            default=_NEWEST_FIRST,
            key=("project", "domain", "name"),
            scope=sorted(scope.items()),
        )
        where = store.in_scope(**scope)
        apps, token = await self._database.read(lambda: store.page(where, asked))
        total = await self._database.read(lambda: store.count(where, asked)) if message.include_total_count else 0
        return apps, token, total

    async def tally(self) -> Mapping[str, int]:
        """How many there are, by how they are in a word."""
        return Counter(model.state(app) for app in await self._database.read(store.everything))

    async def watch(self, wanted: Callable[[App], bool]) -> AsyncGenerator[tuple[App | None, App | None]]:
        """Apps that are ``wanted``, as they are, then each change of them: before and after, until the server stops.

        Where there is none at first, that is told too, as (None, None).
        """
        with self.changes.subscribe() as subscription:
            seen = {app.key: app for app in await self._database.read(store.everything) if wanted(app)}
            first: list[App | None] = [*seen.values()]
            for known in first or [None]:
                yield known, known
            while changed := await subscription.next():
                for key, after in changed:
                    before = seen.get(key)
                    if after is None:
                        if seen.pop(key, None) is not None:
                            yield before, None
                    elif wanted(after) and (before is None or before.version != after.version):
                        seen[key] = after
                        yield before, after

    async def follow(self, key: AppKey, replica: str) -> AsyncGenerator[Output]:
        """What its replicas wrote and write. Raises NotFound."""
        app = await self.get(key)
        if app.spec.cluster:
            raise NotFound(f"app {key} runs in cluster {app.spec.cluster!r}, which keeps its log")
        async for output in self._launcher.follow(key, replica):
            yield output

    # What clusters that lease apps tell

    async def report(self, asked: idl.App) -> App:
        """Takes over the status that a cluster tells of an app that is pinned to it. Raises Aborted for another revision."""
        key = key_of(asked.metadata.id, field="app.metadata.id")
        now = self._clock.now()

        def to(known: App | None) -> App | None:
            if known is None:
                raise _unknown(key)
            if not known.spec.cluster:
                raise FailedPrecondition(f"app.status: app {key} is run by this server, which alone tells how it is")
            if asked.metadata.revision != known.revision:
                raise Aborted(f"app.metadata.revision: {asked.metadata.revision} is not the present one, {known.revision}")
            told = _told(asked.status)
            return model.observed(known, told, now=now) if told is not None else None

        app = await self._change(key, to)
        assert app is not None
        return app

    async def lease(self, cluster: str) -> AsyncGenerator[list[App]]:
        """The apps that are pinned to ``cluster``, then each that changes, until the server stops."""
        scope_part(cluster, field="id.name")
        for app in await self._database.read(store.everything):
            if app.spec.cluster == cluster and app.phase == Phase.DEPLOYMENT_STATUS_UNASSIGNED:
                await self._observe(app.key, app.deployment, Told(phase=Phase.DEPLOYMENT_STATUS_ASSIGNED))
        async for _, after in self.watch(lambda app: bool(app.spec.cluster == cluster)):
            yield [after] if after is not None else []

    # What becomes of it

    def noticed(self, notice: Notice | None) -> None:
        """What another replica changed; None: everything may have."""
        if notice is None or notice.topic == _TOPIC:
            keys = [AppKey(*orjson.loads(notice.key))] if notice is not None else None
            task = asyncio.create_task(self._refresh(keys), name="apps that another replica changed")
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)

    async def _refresh(self, keys: Sequence[AppKey] | None) -> None:
        await self._started.wait()
        try:
            apps = await self._database.read(lambda: store.some(keys) if keys is not None else store.everything())
        except FlyteUnifiedError as error:
            _log.warning("what another replica changed could not be read", error=error.message)
            return
        gone = set(keys if keys is not None else self.sites) - {app.key for app in apps}
        for key in gone:
            self._gone(key)
        for app in apps:
            self.sites.put(app)
            self.changes.publish(Change(app.key, app))
            self._tell(app)

    async def _check(self, key: AppKey, spec: idl.Spec) -> None:
        optional(spec.cluster, field="app.spec.cluster")
        if spec.desired_state != idl.Spec.DESIRED_STATE_STOPPED:  # whoever stops one that is there already deploys nothing
            await self._admit(spec, key.project, key.domain)

    async def _observe(self, key: AppKey, deployment: str, told: Told) -> None:
        now = self._clock.now()

        def to(known: App | None) -> App | None:
            if known is None or known.deployment != deployment:
                return None
            return model.observed(known, told, now=now)

        await self._change(key, to)

    async def _change(self, key: AppKey, to: Callable[[App | None], App | None], *, hosts: Sequence[str] = ()) -> App | None:
        _, after = await self._database.write(
            lambda: store.change(key, to, hosts=hosts),
            then=lambda changed: self._changed(*changed),
            changed=lambda changed: [_notice(key)] if changed[0] is not changed[1] else [],
        )
        return after

    def _changed(self, before: App | None, after: App | None) -> None:
        if after is None or after is before:
            return
        self.sites.put(after)
        self.changes.publish(Change(after.key, after))
        asked = before is None or before.revision != after.revision or after.phase == Phase.DEPLOYMENT_STATUS_PENDING
        if asked:
            self._tell(after)

    def _gone(self, key: AppKey) -> None:
        self.sites.remove(key)
        self.changes.publish(Change(key, None))
        self._launcher.unwanted(key)

    def _tell(self, app: App) -> None:
        if app.spec.cluster:
            self._launcher.unwanted(app.key)
        else:
            self._launcher.wanted(app)

    def _site(self, key: AppKey) -> Site:
        return self._launcher.site(key)


def key_of(message: idl.Identifier, *, field: str) -> AppKey:
    """Raises InvalidArgument naming the part of ``field`` that is wrong."""
    name = scope_part(message.name, field=f"{field}.name")
    if len(name) > _LONGEST_NAME or not name.replace("-", "").isalnum():
        raise InvalidArgument(f"{field}.name: {name!r} is no app's name: letters, digits and '-', at most {_LONGEST_NAME}")
    return AppKey(
        scope_part(message.project, field=f"{field}.project"), scope_part(message.domain, field=f"{field}.domain"), name
    )


def optional(value: str, *, field: str) -> str:
    """A project's, a domain's or a cluster's name, where there is one. Raises InvalidArgument."""
    return scope_part(value, field=field) if value else ""


def _told(status: idl.Status) -> Told | None:
    if not status.conditions:
        return None
    last = status.conditions[-1]
    return Told(phase=last.deployment_status, substate=last.substate, message=last.message, replicas=status.current_replicas)


def _notice(key: AppKey) -> Notice:
    return Notice(_TOPIC, orjson.dumps([*key]).decode())


def _unknown(key: AppKey) -> NotFound:
    return NotFound(f"there is no app {key}")
