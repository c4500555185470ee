"""The local store's own URLs: what S3 would answer to a signed PUT and GET.

Whoever has a signed URL needs no other credential, so a response never runs as part of the API's origin: user content is
sandboxed and its type is not guessed by the browser.
"""

from __future__ import annotations

import base64
import binascii
import re
from email.utils import formatdate

from flyte_unified.core.clock import SECOND
from flyte_unified.core.context import Headers
from flyte_unified.core.errors import Code, FlyteUnifiedError, InvalidArgument, NotFound, OutOfRange, PermissionDenied
from flyte_unified.core.http import Request, Response, Route
from flyte_unified.storage.api import ObjectInfo, content_type
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import PREFIX

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.OUT_OF_RANGE: 413,
    Code.RESOURCE_EXHAUSTED: 507,
}
_SAFE = (
    # The tabs of Flyte's reports are scripts: they may run, but in an origin of their own, without the API's.
    ("content-security-policy", "sandbox allow-scripts"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "private, no-cache"),
)


def data_routes(store: LocalStore) -> list[Route]:
    """PUT, GET and HEAD of ``store``'s signed URLs."""
    routes = _Routes(store)
    path = f"{PREFIX}{{key:.*}}"
    return [Route("PUT", path, routes.put), Route("GET", path, routes.get), Route("HEAD", path, routes.get)]


class _Routes:
    def __init__(self, store: LocalStore) -> None:
        self._store = store

    async def put(self, request: Request) -> Response:
        try:
            return await self._put(request)
        except FlyteUnifiedError as error:
            return _refusal(error)

    async def get(self, request: Request) -> Response:
        try:
            return await self._get(request)
        except FlyteUnifiedError as error:
            return _refusal(error)

    async def _put(self, request: Request) -> Response:
        uri, grant = self._store.granted(request.path.removeprefix(PREFIX), request.query)
        if grant.method != "PUT":
            raise PermissionDenied(f"this URL is signed for {grant.method}, not for PUT")
        if _md5(request.header("content-md5")) != grant.md5:
            raise InvalidArgument("Content-MD5: this URL is signed for content with another MD5")
        length = request.header("content-length")
        if length.isdecimal() and int(length) > grant.max_length:
            raise OutOfRange(f"Content-Length: {length} is more than the {grant.max_length} bytes that this URL allows")
        await self._store.check_room()
        await self._store.receive(uri, request.body, grant)
        return Response(headers=(*_SAFE, ("etag", f'"{grant.md5}"')))

    async def _get(self, request: Request) -> Response:
        uri, grant = self._store.granted(request.path.removeprefix(PREFIX), request.query)
        if grant.method != "GET":
            raise PermissionDenied(f"this URL is signed for {grant.method}, not for {request.method}")
        info = await self._store.head(uri)
        if info is None:
            raise NotFound(f"{uri} does not exist")
        headers: Headers = (
            *_SAFE,
            ("accept-ranges", "bytes"),
            ("content-type", content_type(uri)),
            ("etag", info.etag),
            ("last-modified", formatdate(info.modified / SECOND, usegmt=True)),
        )
        if info.etag in _etags(request.header("if-none-match")):
            return Response(304, headers)
        span = _span(request, info)
        if span is None:
            return Response(416, (*headers, ("content-range", f"bytes */{info.size}")))
        start, length = span
        status = 200
        if length != info.size:
            status = 206
            headers = (*headers, ("content-range", f"bytes {start}-{start + length - 1}/{info.size}"))
        headers = (*headers, ("content-length", str(length)))
        if request.method == "HEAD":
            return Response(status, headers)
        return Response(status, headers, self._store.read(uri, start=start, length=length))


def _refusal(error: FlyteUnifiedError) -> Response:
    """The error as plain text. An expired URL says so in the words that object stores use: clients look for them."""
    headers = (*_SAFE, ("content-type", "text/plain; charset=utf-8"))
    return Response(_STATUS.get(error.code, 500), headers, f"{error.message}\n".encode())


def _md5(header: str) -> str:
    """A Content-MD5 header's digest in hexadecimal, or an empty string if it is none."""
    try:
        return base64.b64decode(header, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""


def _etags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]


def _span(request: Request, info: ObjectInfo) -> tuple[int, int] | None:
    """Start and length of what is asked for, None if it lies outside.

    Several ranges, other units and a range of an older version count as no range, as RFC 9110 §14.2 allows.
    """
    match = _RANGE.fullmatch(request.header("range"))
    if match is None or match.groups() == ("", "") or request.header("if-range") not in ("", info.etag):
        return 0, info.size
    first, last = match.groups()
    if not first:
        length = min(int(last), info.size)
        return (info.size - length, length) if length else None
    start = int(first)
    end = min(int(last), info.size - 1) if last else info.size - 1
    if last and int(last) < start:
        return 0, info.size
    return (start, end - start + 1) if start < info.size else None
