"""Objects in S3, or in anything that speaks like it: AWS, MinIO, Ceph, R2.

``minio`` knows how a bucket is addressed, where credentials come from, how a request is signed and what an error says. The
requests themselves are sent here, as its client has no conditional write and takes an error told as ``text/xml`` for no
answer. Calls block, so they run in a few threads of their own and never on the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from configparser import Error as ConfigError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)
from minio.error import MinioException
from minio.signer import sign_v4_s3
from urllib3 import BaseHTTPResponse as Response
from urllib3.exceptions import HTTPError

from flyte_unified.core.clock import SECOND, Clock, Micros
from flyte_unified.core.errors import (
    FailedPrecondition,
    FlyteUnifiedError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from flyte_unified.storage.addresses import Addresses, parted
from flyte_unified.storage.api import ObjectInfo, SignedUrl, content_type
from flyte_unified.storage.sigv4 import LONGEST, Keys, presigned

T = TypeVar("T")

PIECE = 1 << 20
"""Bytes read at once."""

_THREADS = 16
_WAITING = 2048
"""Calls that may wait for a thread."""
_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
_RETRIES = urllib3.Retry(
    total=4,
    backoff_factor=0.2,
    status_forcelist=(429, 500, 502, 503, 504),
    redirect=False,
    raise_on_status=False,
    respect_retry_after_header=False,  # a store that asks for an hour would have a thread for an hour
)
_CREDENTIALS_RETRIES = urllib3.Retry(total=1, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504))
_CREDENTIALS_TIMEOUT = urllib3.Timeout(connect=1.0, read=5.0)
_AWS = "https://s3.amazonaws.com"
_REGION = "us-east-1"
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_NONE: Mapping[str, str] = {}
_CONFLICTS = 3
_LARGEST_ERROR = 64 << 10
_NO_CONDITIONS = frozenset({400, 501})
"""What a server answers that knows no conditional write, if it does not pass over the header."""

_STATUS: dict[int, type[FlyteUnifiedError]] = {
    301: FailedPrecondition,
    307: FailedPrecondition,
    400: InvalidArgument,
    401: PermissionDenied,
    403: PermissionDenied,
    404: NotFound,
    409: Unavailable,
    429: Unavailable,
    507: ResourceExhausted,
}
_CODES: dict[str, type[FlyteUnifiedError]] = {
    "NoSuchBucket": FailedPrecondition,
    "AuthorizationHeaderMalformed": FailedPrecondition,  # another region
    "RequestTimeTooSkewed": FailedPrecondition,
}
_ADVICE: dict[type[FlyteUnifiedError], str] = {
    PermissionDenied: "; look at storage.s3_access_key and at what it may do, listing the bucket included",
    FailedPrecondition: "; look at storage.root and storage.s3_region",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a store is reached.

    ``endpoint`` is a URL without a path, empty for AWS; ``public_endpoint`` the one that clients reach it under, where it is
    another. Without ``access_key`` the credentials are those of the environment (``AWS_ACCESS_KEY_ID`` and its kin), of
    ``~/.aws/credentials``, or of the machine's IAM role, in this order.
    """

    endpoint: str = ""
    public_endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    virtual_host: bool = False

    def provider(self) -> Provider:
        """Where the credentials are from. Asking it may call out."""
        if self.access_key:
            return StaticProvider(self.access_key, self.secret_key)
        role = IamAwsProvider(http_client=urllib3.PoolManager(retries=_CREDENTIALS_RETRIES, timeout=_CREDENTIALS_TIMEOUT))
        return ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), role])


class S3Store:
    """``roots`` by name, each ``s3://bucket`` or ``s3://bucket/prefix``.

    What S3 cannot do: bound the length of what a signed URL takes (its MD5 is bound instead), and refuse other content where
    some is, without refusing the same content once more as well. So ``max_length`` and ``replace`` of ``sign_upload`` say
    nothing here, and a caller to whom it matters looks first.
    """

    def __init__(self, roots: Mapping[str, str], *, access: Access, clock: Clock) -> None:
        self._addresses = Addresses(roots)
        self._clock = clock
        self._endpoint = access.endpoint or _AWS
        self._region = access.region or _REGION
        self._server, self._public = (
            _Addressing(
                endpoint,
                region=self._region,
                virtual_host=access.virtual_host,
                buckets=[parted(bucket)[0] for bucket in self._addresses.buckets],
            )
            for endpoint in (self._endpoint, access.public_endpoint or self._endpoint)
        )
        self._provider = access.provider()
        self._http = urllib3.PoolManager(maxsize=_THREADS, timeout=_TIMEOUT, retries=_RETRIES)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")
        self._calls = 0

    async def start(self) -> None:
        """Raises what would keep every call from success: an unknown bucket, refused credentials, a store that is away."""
        for bucket in self._addresses.buckets:
            try:
                await self._call(self._finish, "HEAD", bucket)
            except NotFound:
                raise FailedPrecondition(f"{self._endpoint} has no bucket {bucket}: make it, or set storage.root") from None

    async def stop(self) -> None:
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._http.clear()

    def base(self, root: str) -> str:
        return self._addresses.base(root)

    def owns(self, uri: str) -> bool:
        return self._addresses.owns(uri)

    async def get(self, uri: str, *, limit: int | None = None) -> bytes:
        self._addresses.check(uri)
        return await self._call(self._get, uri, limit)

    async def read(self, uri: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        self._addresses.check(uri)
        last = "" if length is None else str(start + max(length, 1) - 1)
        response = await self._call(self._send, "GET", uri, {"Range": f"bytes={start}-{last}"} if start or last else {})
        if length == 0 or response.status == 416:  # begins behind the end
            response.close()
            return
        reading = None
        try:
            while piece := await asyncio.wrap_future(reading := self._threads.submit(self._piece, uri, response)):
                yield piece
        finally:
            if reading is not None:  # whoever left early may have left a thread in it
                reading.add_done_callback(lambda _: response.close())

    async def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Stores ``data``.

        A server without conditional writes (they are S3's since 2024) leaves a gap between the look and the write, in which
        two writers may both believe to be the first.
        """
        self._addresses.check(uri)
        if not if_absent:
            await self._call(self._finish, "PUT", uri, _NONE, data)
            return True
        return await self._call(self._put_first, uri, data)

    async def head(self, uri: str) -> ObjectInfo | None:
        self._addresses.check(uri)
        try:
            return _info(uri, await self._call(self._finish, "HEAD", uri))
        except NotFound:
            return None

    async def md5(self, uri: str) -> bytes:
        """The ETag where S3 says that it is the MD5: an object of one part, not encrypted with a key of KMS or the client."""
        self._addresses.check(uri)
        headers = await self._call(self._finish, "HEAD", uri)
        told = _MD5.fullmatch(headers.get("etag", ""))
        encrypted = headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
        if told and not encrypted and "x-amz-server-side-encryption-customer-algorithm" not in headers:
            return bytes.fromhex(told[1])
        digest = hashlib.md5(usedforsecurity=False)
        async for piece in self.read(uri):
            await self._call(digest.update, piece)
        return digest.digest()

    async def delete(self, uri: str) -> None:
        self._addresses.check(uri)
        with suppress(NotFound):
            await self._call(self._finish, "DELETE", uri)

    async def check_room(self) -> None:
        """A bucket has no end; a quota answers to the write itself."""

    async def sign_upload(
        self, uri: str, *, md5: bytes, max_length: int, expires_in: float, base_url: str, replace: bool = False
    ) -> SignedUrl:
        self._addresses.check(uri)
        return await self._signed("PUT", uri, expires_in, headers={"Content-MD5": b64encode(md5).decode()})

    async def sign_download(self, uri: str, *, expires_in: float, base_url: str) -> SignedUrl:
        if await self.head(uri) is None:
            raise NotFound(f"{uri} does not exist")
        # What tasks write has no type of its own, and a browser would not show it.
        return await self._signed("GET", uri, expires_in, query={"response-content-type": content_type(uri)})

    async def _signed(
        self,
        method: str,
        uri: str,
        expires_in: float,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> SignedUrl:
        now = self._clock.now()
        expires = min(max(1, ceil(expires_in)), LONGEST)
        url = presigned(
            method,
            self._public.url(uri),
            keys=await self._call(self._keys),
            region=self._region,
            expires=expires,
            now=now,
            headers=headers,
            query=query,
        )
        return SignedUrl(url, Micros((now // SECOND + expires) * SECOND), headers or {})

    async def _call(self, call: Callable[..., T], *args: Any) -> T:
        if self._calls >= _WAITING:
            raise ResourceExhausted(f"{self._calls} calls wait for the object store at {self._endpoint} already")
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
        finally:
            self._calls -= 1

    # What follows blocks, and runs in the threads

    def _get(self, uri: str, limit: int | None) -> bytes:
        with self._wrapped(uri), self._send("GET", uri) as response:
            size = int(response.headers.get("content-length", 0))
            if limit is not None and size > limit:
                raise ResourceExhausted(f"{uri} has {size} bytes, more than the {limit} that may be read at once")
            return response.read()

    def _piece(self, uri: str, response: Response) -> bytes:
        with self._wrapped(uri):
            return response.read(PIECE)

    def _put_first(self, uri: str, data: bytes) -> bool:
        with suppress(NotFound):
            self._finish("HEAD", uri)
            return False
        for _ in range(_CONFLICTS):
            with self._wrapped(uri):
                response = self._request("PUT", uri, {"If-None-Match": "*"}, data)
                if response.status != 409:  # another write is under way
                    break
                response.drain_conn()
        if response.status in _NO_CONDITIONS:
            response.drain_conn()
            self._finish("PUT", uri, _NONE, data)
        elif response.status != 412:
            self._check(uri, response)
        response.drain_conn()
        return response.status != 412

    def _finish(self, method: str, uri: str, headers: Mapping[str, str] = _NONE, body: bytes = b"") -> Mapping[str, str]:
        """The headers of an answer whose body says nothing."""
        with self._wrapped(uri), self._send(method, uri, headers, body) as response:
            response.read()
            return response.headers

    def _send(self, method: str, uri: str, headers: Mapping[str, str] = _NONE, body: bytes = b"") -> Response:
        with self._wrapped(uri):
            response = self._request(method, uri, headers, body)
            self._check(uri, response)
            return response

    def _request(self, method: str, uri: str, headers: Mapping[str, str], body: bytes) -> Response:
        url = self._server.url(uri)
        now = datetime.now(UTC)
        digest = hashlib.sha256(body).hexdigest()
        signed: dict[str, str | list[str] | tuple[str]] = {
            **headers,
            "Host": urlsplit(url).netloc,
            "x-amz-content-sha256": digest,
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        }
        credentials = self._credentials()
        if credentials.session_token:
            signed["x-amz-security-token"] = credentials.session_token
        sign_v4_s3(
            method=method,
            url=urlsplit(url),
            region=self._region,
            headers=signed,
            credentials=credentials,
            content_sha256=digest,
            date=now,
        )
        sent = {name: str(value) for name, value in signed.items()}
        return self._http.urlopen(method, url, body=body, headers=sent, preload_content=False, decode_content=False)

    def _check(self, uri: str, response: Response) -> None:
        if response.status < 300 or response.status == 416:
            return
        with self._wrapped(uri), response:
            code, message = _told(response.read(_LARGEST_ERROR))
        kind = _CODES.get(code) or _STATUS.get(response.status) or (Unavailable if response.status >= 500 else Internal)
        if kind is NotFound:
            raise NotFound(f"{uri} does not exist")
        said = ": ".join(filter(None, (code, message))) or f"status {response.status}"
        raise kind(f"{uri}: the object store at {self._endpoint} answers {said}{_ADVICE.get(kind, '')}")

    def _credentials(self) -> Credentials:
        try:
            return self._provider.retrieve()
        except (ValueError, KeyError, OSError, ConfigError, MinioException, HTTPError) as error:
            raise Unavailable(
                "no credentials for the object store: set storage.s3_access_key and storage.s3_secret_key, or the AWS_* "
                f"variables, or let the machine have a role ({error})"
            ) from error

    def _keys(self) -> Keys:
        found = self._credentials()
        return Keys(found.access_key, found.secret_key, found.session_token or "")

    @contextmanager
    def _wrapped(self, uri: str) -> Iterator[None]:
        """What goes wrong on the way, as our error."""
        try:
            yield
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise Unavailable(f"{uri}: the object store at {self._endpoint} does not answer: {reason}") from error


class _Addressing:
    """The URLs under which one endpoint knows the objects of buckets."""

    def __init__(self, endpoint: str, *, region: str, virtual_host: bool, buckets: Iterable[str]) -> None:
        parts = urlsplit(endpoint)
        try:
            client = Minio(parts.netloc + parts.path.rstrip("/"), region=region, secure=parts.scheme == "https")
            if virtual_host:
                client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]  # minio forgot to say None
            # Without credentials minio signs nothing: what it gives is the address alone.
            self._buckets = {name: client.get_presigned_url("GET", name, "x").removesuffix("x") for name in buckets}
        except ValueError as error:
            raise FailedPrecondition(f"the object store {endpoint!r} cannot be addressed: {error}") from error

    def url(self, uri: str) -> str:
        bucket, key = parted(uri)
        return self._buckets[bucket] + quote(key, safe="/")


def _info(uri: str, headers: Mapping[str, str]) -> ObjectInfo:
    modified = parsedate_to_datetime(headers["last-modified"]).timestamp()
    return ObjectInfo(uri, int(headers["content-length"]), headers.get("etag", ""), Micros(int(modified) * SECOND))


def _told(body: bytes) -> tuple[str, str]:
    """Code and message of an error; empty where it is no XML, as with a proxy's."""
    try:
        tree = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return "", ""
    return tree.findtext("{*}Code", ""), tree.findtext("{*}Message", "")
