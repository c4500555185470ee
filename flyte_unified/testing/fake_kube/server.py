"""The API server at the HTTP edge: each request goes through faults, identity and rights to a verb, and out as JSON.

One handler takes every path, because the paths are data: custom resources appear while the server runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson
import yaml
from aiohttp import web

from flyte_unified.testing.fake_kube import discovery, errors, openapi, patches, strategic, tables, versions
from flyte_unified.testing.fake_kube.access import Access
from flyte_unified.testing.fake_kube.api import Api, Call
from flyte_unified.testing.fake_kube.errors import ApiError
from flyte_unified.testing.fake_kube.faults import WRITES, Asked, Faults
from flyte_unified.testing.fake_kube.listing import ListOptions, Watch, page
from flyte_unified.testing.fake_kube.logs import Logs
from flyte_unified.testing.fake_kube.requests import (
    APPLY,
    JSON_PATCH,
    MAX_BODY,
    MERGE,
    STRATEGIC,
    Path,
    call_options,
    deletion,
    media_type,
    read_object,
)  # fmt: skip
from flyte_unified.testing.fake_kube.resources import Object, Registry, Resource
from flyte_unified.testing.fake_kube.store import Record, Store
from flyte_unified.testing.fake_kube.subresources import Subresources

_WATCH_SECONDS = 1800.0
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PROTOBUF = "com.github.proto-openapi.spec.v2"
_SPECIAL = frozenset({"log", "binding", "eviction", "token", "scale", "finalize"})


class Server:
    """HTTP over one ``Api``."""

    def __init__(
        self, *, api: Api, store: Store, registry: Registry, subresources: Subresources, logs: Logs, access: Access
    ) -> None:
        self._api = api
        self._store = store
        self._registry = registry
        self._subresources = subresources
        self._logs = logs
        self._access = access
        self._watches: set[Watch] = set()
        self._transports: set[asyncio.Transport] = set()
        self.faults = Faults(cut=self._cut, expire=self._expire)
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.writes: Counter[tuple[str, str, str]] = Counter()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    def bookmark(self) -> None:
        """Tell every watch that wants bookmarks how far it is."""
        for watch in self._watches:
            watch.watcher.mark()

    def close_watches(self) -> None:
        """End every watch in good order."""
        for watch in self._watches:
            watch.watcher.close()

    def _cut(self) -> None:
        for transport in list(self._transports):
            transport.abort()
        self.close_watches()

    def _expire(self) -> None:
        for _, shelf in self._store.shelves():
            shelf.forget(self._store.version)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = Path.of(request.path)
        asked = path.asked(request.method, request.query) if path else Asked("get", "", request.path)
        if self.faults.away:
            return _gone(request)
        counted = (asked.verb, asked.resource, asked.subresource)
        self.requests[counted] += 1
        try:
            await self.faults.before(asked)
            response = await self._answer(request, path, asked)
        except ApiError as error:
            response = _failure(error)
        if asked.verb in WRITES and response.status < 300 and path and not request.query.get("dryRun"):
            self.writes[counted] += 1
        return _gone(request) if self.faults.dropped(asked) and not response.prepared else response

    async def _answer(self, request: web.Request, path: Path | None, asked: Asked) -> web.StreamResponse:
        if path is None:
            return self._outside(request)
        resource = self._registry.find(path.group, path.version, path.plural)
        if resource is None:
            raise errors.no_resource()
        user = self._access.user(request.headers.get("Authorization", ""))
        self._access.require(user, asked)
        call = call_options(request.query, request.headers.get("User-Agent", ""))
        _placed(path, resource, asked)
        body = await _body(request)
        if resource.verbs == ("create",):
            content = read_object(body, request.headers.get("Content-Type", ""))
            return _json(orjson.dumps(self._access.review(resource.kind, content, user)), 201)
        response = await self._verb(request, path, resource, asked, call, body)
        if tables.partial(request.headers.get("Accept", "")) and isinstance(response, web.Response):
            response.body = tables.trimmed(cast("bytes", response.body))
        for warning in dict.fromkeys(call.warnings):
            response.headers.add("Warning", f'299 - "{warning.replace(chr(34), chr(92) + chr(34))}"')
        return response

    async def _verb(
        self, request: web.Request, path: Path, resource: Resource, asked: Asked, call: Call, body: bytes
    ) -> web.StreamResponse:
        key = (path.namespace, path.name)
        if path.subresource and path.subresource not in resource.subresources:
            raise errors.no_resource()
        if asked.verb in ("create", "delete") and path.subresource and path.subresource not in _SPECIAL:
            raise errors.method_not_allowed()
        if path.subresource in _SPECIAL:
            return await self._special(request, path, resource, asked, call, body)
        match asked.verb:
            case "get":
                return self._read(request, resource, self._api.get(resource, key))
            case "list":
                return self._list(request, path, resource)
            case "watch":
                return await self._watch(request, path, resource)
            case "create":
                content = read_object(body, request.headers.get("Content-Type", ""))
                return _json(versions.shown(resource, self._api.create(resource, path.namespace, content, call)), 201)
            case "update":
                content = read_object(body, request.headers.get("Content-Type", ""))
                present = self._store.get(resource.shelf, key)
                record = self._api.update(resource, key, content, call, subresource=path.subresource)
                return _json(versions.shown(resource, record), 200 if present else 201)
            case "patch":
                return self._patch(request, path, resource, call, body)
            case "delete":
                record, gone = self._api.delete(resource, key, deletion(body, request.query, call), call)
                return _json(
                    _deleted(resource, record) if gone and not resource.returns_deleted else versions.shown(resource, record)
                )
            case "deletecollection":
                return self._delete_collection(request, path, resource, call, body)
        raise errors.method_not_allowed()

    async def _special(
        self, request: web.Request, path: Path, resource: Resource, asked: Asked, call: Call, body: bytes
    ) -> web.StreamResponse:
        """Subresources that are not the object over again."""
        key, name = (path.namespace, path.name), path.subresource
        kind = media_type(request.headers.get("Content-Type", ""))
        match asked.verb, name:
            case "get", "log":
                return await self._logs.answer(request, key)
            case "create", _:
                content = read_object(body, kind)
                return _json(orjson.dumps(self._subresources.create(resource, key, name, content, call)), 201)
            case "get", "scale":
                return _json(orjson.dumps(self._subresources.scale(resource, self._api.get(resource, key))))
            case "update", "scale":
                return _json(orjson.dumps(self._subresources.rescale(resource, key, read_object(body, kind), call)))
            case "patch", "scale":
                present = self._subresources.scale(resource, self._api.get(resource, key))
                scale = _change(MERGE if kind == STRATEGIC else kind, body, resource)(present)
                return _json(orjson.dumps(self._subresources.rescale(resource, key, scale, call)))
            case "update", "finalize":
                self._api.finalize(path.name)
                return _json(orjson.dumps(read_object(body, kind)))
        raise errors.method_not_allowed()

    def _list(self, request: web.Request, path: Path, resource: Resource) -> web.StreamResponse:
        options = ListOptions.of(resource, path.namespace, request.query)
        records, meta = page(self._store, resource, options)
        if tables.wanted(request.headers.get("Accept", "")):
            return _json(tables.table(resource, records, meta, request.query.get("includeObject", "")))
        return _json(_list_body(resource, records, meta))

    @staticmethod
    def _read(request: web.Request, resource: Resource, record: Record) -> web.StreamResponse:
        if tables.wanted(request.headers.get("Accept", "")):
            meta = {"resourceVersion": str(record.version)}
            return _json(tables.table(resource, [record], meta, request.query.get("includeObject", "")))
        return _json(versions.shown(resource, record))

    def _patch(self, request: web.Request, path: Path, resource: Resource, call: Call, body: bytes) -> web.StreamResponse:
        kind, key = media_type(request.headers.get("Content-Type", "")), (path.namespace, path.name)
        if kind == APPLY:
            applied = _applied(body)
            record, new = self._api.apply(resource, key, applied, call, subresource=path.subresource)
            return _json(versions.shown(resource, record), 201 if new else 200)
        change = _change(kind, body, resource)
        record = self._api.patch(resource, key, change, call, subresource=path.subresource)
        return _json(versions.shown(resource, record))

    def _delete_collection(
        self, request: web.Request, path: Path, resource: Resource, call: Call, body: bytes
    ) -> web.StreamResponse:
        options = deletion(body, request.query, call)
        records, meta = page(self._store, resource, ListOptions.of(resource, path.namespace, request.query))
        for record in records:
            self._api.delete(resource, record.key, options, call)
        return _json(_list_body(resource, records, meta))

    async def _watch(self, request: web.Request, path: Path, resource: Resource) -> web.StreamResponse:
        options = ListOptions.of(resource, path.namespace, request.query, name=path.name)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            watch = Watch(self._store, resource, options, _view(request, resource))
        except ApiError as error:
            if error.status != 410:
                raise
            await response.prepare(request)
            await response.write(b'{"type":"ERROR","object":' + orjson.dumps(error.body()) + b"}\n")
            return response
        self._watches.add(watch)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._transports.add(transport)
        try:
            await response.prepare(request)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(options.timeout or _WATCH_SECONDS):
                    async for chunk in watch.lines():
                        await response.write(chunk)
        except (ConnectionError, asyncio.CancelledError):
            watch.close()
            if not transport.is_closing():
                raise
        finally:
            watch.close()
            self._watches.discard(watch)
            self._transports.discard(transport)
        return response

    def _outside(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/openapi/v2" and _PROTOBUF in request.headers.get("Accept", ""):
            # An old form that kubectl asks for when the new one lacks a kind: a document that says nothing.
            return web.Response(body=b"\x0a\x032.0", headers={"Content-Type": "application/octet-stream"})
        content = discovery.answer(request.path, self._registry) or openapi.answer(request.path, self._registry)
        if content is None:
            return web.Response(status=404, text="404 page not found\n")
        if isinstance(content, str):
            return web.Response(text=content)
        return _json(orjson.dumps(content))


def _placed(path: Path, resource: Resource, asked: Asked) -> None:
    """Raises ApiError where the path is none of the resource, or the verb has no place there."""
    if resource.namespaced != bool(path.namespace) and not (resource.namespaced and not path.name):
        raise errors.no_resource()
    across = resource.namespaced and not path.namespace and asked.verb not in ("list", "watch")
    astray = asked.verb in ("create", "update", "patch") and (asked.verb == "create") == bool(path.name)
    if across or (not path.subresource and (astray or asked.verb not in resource.verbs)):
        raise errors.method_not_allowed()


def _change(kind: str, body: bytes, resource: Resource) -> Callable[[Object], Object]:
    if kind not in (JSON_PATCH, MERGE, STRATEGIC, APPLY) or (kind == STRATEGIC and resource.custom):
        raise errors.unsupported_media([JSON_PATCH, MERGE, APPLY] if resource.custom else [JSON_PATCH, MERGE, STRATEGIC, APPLY])
    try:
        patch = orjson.loads(body)
    except ValueError as error:
        raise errors.bad_request(f"error decoding patch: {error}") from None
    if kind == JSON_PATCH:
        return lambda present: patches.json_patch(present, patch)
    if kind == STRATEGIC:
        return lambda present: strategic.merge(present, patch, resource.schema)
    return lambda present: patches.merge(present, patch)


def _applied(body: bytes) -> Object:
    try:
        content = yaml.load(body, Loader=_YAML)
    except yaml.YAMLError as error:
        raise errors.bad_request(f"error decoding YAML: {error}") from None
    if not isinstance(content, dict):
        raise errors.bad_request("the applied configuration is not an object")
    content.setdefault("metadata", {})
    return content


def _view(request: web.Request, resource: Resource) -> Callable[[Record], bytes]:
    """How a watcher is shown an object. Columns are told with the first row alone."""
    accept = request.headers.get("Accept", "")
    if tables.partial(accept):
        return lambda record: tables.trimmed(versions.shown(resource, record))
    if not tables.wanted(accept):
        return lambda record: versions.shown(resource, record)
    heads = iter([True])

    def row(record: Record) -> bytes:
        meta = {"resourceVersion": str(record.version)}
        return tables.table(resource, [record], meta, request.query.get("includeObject", ""), head=next(heads, False))

    return row


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        message = f"Request entity too large: limit is {MAX_BODY}"
        raise ApiError(413, "RequestEntityTooLarge", message) from None


def _list_body(resource: Resource, records: list[Record], meta: Mapping[str, Any]) -> bytes:
    head = orjson.dumps({"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta})
    return head[:-1] + b',"items":[' + b",".join(versions.shown(resource, record) for record in records) + b"]}"


def _deleted(resource: Resource, record: Record) -> bytes:
    details = {"name": record.key[1], "group": resource.group, "kind": resource.plural, "uid": record.uid}
    return orjson.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {k: v for k, v in details.items() if v},
        }
    )


def _json(data: bytes, status: int = 200) -> web.Response:
    return web.Response(body=data, status=status, content_type="application/json")


def _failure(error: ApiError) -> web.Response:
    return web.Response(
        body=orjson.dumps(error.body()), status=error.status, content_type="application/json", headers=error.headers
    )


def _gone(request: web.Request) -> web.Response:
    """Break the connection; the answer goes nowhere."""
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
    return web.Response(status=503)
