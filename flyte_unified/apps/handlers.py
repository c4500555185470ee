"""flyteidl2.app.AppService and AppLogsService (flyteidl2/app/app_service.proto, app_logs_service.proto)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.app import app_logs_payload_pb2 as logs
from flyteidl2.app import app_payload_pb2 as payload
from flyteidl2.app import replica_definition_pb2
from flyteidl2.logs.dataplane import payload_pb2

from flyte_unified.apps.api import Output
from flyte_unified.apps.model import App, AppKey
from flyte_unified.apps.service import Apps, key_of, optional
from flyte_unified.core.clock import timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.http import Request, Response, Route
from flyte_unified.identity.api import Identities


class AppsHandlers:
    """The org of a request is echoed and nothing more."""

    def __init__(self, *, apps: Apps, identities: Identities) -> None:
        self._apps = apps
        self._identities = identities

    async def create(self, message: payload.CreateRequest, ctx: CallContext) -> payload.CreateResponse:
        who = self._identities.of(ctx).subject
        app = await self._apps.create(message.app, by=who, creator=self._identities.enriched(who))
        return payload.CreateResponse(app=self._shown(app, message.app.metadata.id.org))

    async def get(self, message: payload.GetRequest, ctx: CallContext) -> payload.GetResponse:
        if message.HasField("ingress"):
            app = await self._apps.get_at(message.ingress)
        else:
            app = await self._apps.get(key_of(message.app_id, field="app_id"))
        return payload.GetResponse(app=self._shown(app, message.app_id.org))

    async def update(self, message: payload.UpdateRequest, ctx: CallContext) -> payload.UpdateResponse:
        actor = self._identities.enriched(self._identities.of(ctx).subject)
        app = await self._apps.update(message.app, reason=message.reason, actor=actor)
        return payload.UpdateResponse(app=self._shown(app, message.app.metadata.id.org))

    async def update_status(self, message: payload.UpdateStatusRequest, ctx: CallContext) -> payload.UpdateStatusResponse:
        app = await self._apps.report(message.app)
        return payload.UpdateStatusResponse(app=self._shown(app, message.app.metadata.id.org))

    async def delete(self, message: payload.DeleteRequest, ctx: CallContext) -> payload.DeleteResponse:
        await self._apps.delete(key_of(message.app_id, field="app_id"))
        return payload.DeleteResponse()

    async def list(self, message: payload.ListRequest, ctx: CallContext) -> payload.ListResponse:
        apps, token, total = await self._apps.page(message)
        org = message.org or message.project.organization
        return payload.ListResponse(apps=[self._shown(app, org) for app in apps], token=token, total_count=total)

    async def watch(self, message: payload.WatchRequest, ctx: CallContext) -> AsyncIterator[payload.WatchResponse]:
        org = message.org or message.project.organization or message.app_id.org
        if message.HasField("app_id"):
            await self._apps.get(key_of(message.app_id, field="app_id"))
        async with aclosing(self._apps.watch(_target(message))) as changes:
            async for before, after in changes:
                yield self._event(before, after, org)

    async def lease(self, message: payload.LeaseRequest, ctx: CallContext) -> AsyncIterator[payload.LeaseResponse]:
        async with aclosing(self._apps.lease(message.id.name)) as leased:
            async for apps in leased:
                yield payload.LeaseResponse(apps=[self._shown(app, message.id.organization) for app in apps])

    def _event(self, before: App | None, after: App | None, org: str) -> payload.WatchResponse:
        """An app as it was when the watch began is told as an update, too: the SDK looks at no other event."""
        if after is None and before is None:
            return payload.WatchResponse()
        if after is None:
            assert before is not None
            return payload.WatchResponse(delete_event=payload.DeleteEvent(app=self._shown(before, org)))
        shown = self._shown(after, org)
        if before is None:
            return payload.WatchResponse(create_event=payload.CreateEvent(app=shown))
        return payload.WatchResponse(update_event=payload.UpdateEvent(updated_app=shown, old_app=self._shown(before, org)))

    def _shown(self, app: App, org: str) -> idl.App:
        shown = idl.App(metadata=app.meta, spec=app.spec, status=app.status)
        shown.metadata.id.CopyFrom(idl.Identifier(org=org, **app.key._asdict()))
        shown.status.ingress.public_url = self._apps.addresses.url(app)
        shown.status.assigned_cluster = shown.status.last_assigned_cluster = app.spec.cluster or self._apps.cluster
        return shown


def links(apps: Apps) -> list[Route]:
    """The addresses that the SDK prints of apps, which lead to them."""

    async def lead(request: Request) -> Response:
        app = await apps.get(AppKey(**request.match))
        return Response(status=302, headers=(("location", apps.addresses.url(app)), ("cache-control", "no-store")))

    return [Route("GET", "/v2/domain/{domain}/project/{project}/apps/{name}", lead)]


class AppLogsHandlers:
    """Lines come from the beginning, of all that is kept."""

    def __init__(self, *, apps: Apps) -> None:
        self._apps = apps

    async def tail_logs(self, message: logs.TailLogsRequest, ctx: CallContext) -> AsyncIterator[logs.TailLogsResponse]:
        identifier, replica = message.app_id, ""
        if message.HasField("replica_id"):
            identifier, replica = message.replica_id.app_id, message.replica_id.name
            if not replica:
                raise InvalidArgument("replica_id.name is empty")
        key = key_of(identifier, field="replica_id.app_id" if replica else "app_id")
        known: list[replica_definition_pb2.ReplicaIdentifier] = []
        await self._apps.get(key)
        yield logs.TailLogsResponse(replicas=logs.ReplicaIdentifierList())
        async with aclosing(self._apps.follow(key, replica)) as outputs:
            async for output in outputs:
                named = replica_definition_pb2.ReplicaIdentifier(app_id=identifier, name=output.replica)
                if named not in known:
                    known.append(named)
                    yield logs.TailLogsResponse(replicas=logs.ReplicaIdentifierList(replicas=known))
                if output.lines:
                    yield logs.TailLogsResponse(batches=logs.LogLinesBatch(logs=[_lines(output, named)]))


def _lines(output: Output, named: replica_definition_pb2.ReplicaIdentifier) -> logs.LogLines:
    return logs.LogLines(
        replica_id=named,
        structured_lines=[
            payload_pb2.LogLine(
                timestamp=timestamp(line.at),
                message=line.text,
                originator=payload_pb2.SYSTEM if line.system else payload_pb2.USER,
            )
            for line in output.lines
        ],
    )


def _target(message: payload.WatchRequest) -> Callable[[App], bool]:
    """Which apps a watch is about."""
    match message.WhichOneof("target"):
        case "app_id":
            wanted = key_of(message.app_id, field="app_id")
            return lambda app: app.key == wanted
        case "project":
            project = optional(message.project.name, field="project.name")
            domain = optional(message.project.domain, field="project.domain")
            return lambda app: app.key.project == project and domain in ("", app.key.domain)
        case "cluster_id":
            name = optional(message.cluster_id.name, field="cluster_id.name")
            return lambda app: bool(app.spec.cluster == name)
        case "org":
            return lambda _: True
    raise InvalidArgument("no target is set: org, cluster_id, project or app_id")
