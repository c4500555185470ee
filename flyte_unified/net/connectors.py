"""The client of connectors: services that run tasks somewhere else (flyteidl2/connector/service.proto).

One connection for each address, made when it is first needed and again when it broke. No call is repeated here: whether it may
be is for the caller to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from flyteidl2.connector import connector_pb2
from google.protobuf.message import Message
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from flyte_unified.core.errors import Code, FlyteUnifiedError, InvalidArgument, Unavailable
from flyte_unified.net.grpc import tls, told

_JOBS = "/flyteidl2.connector.AsyncConnectorService/"
_METADATA = "/flyteidl2.connector.ConnectorMetadataService/"
_PARALLEL = 64
"""Calls to one connector at one time."""

_Reply = TypeVar("_Reply", bound=Message)


class NoAnswer(Unavailable):
    """The connector may have done what it was asked to, or not: the connection broke, or the time ran out, before it said."""


class Endpoint(NamedTuple):
    """Where a connector is."""

    host: str
    port: int
    secure: bool
    authority: str = ""
    """Whom to ask for there, if not for the host itself."""

    @classmethod
    def parse(cls, address: str) -> Endpoint:
        """``host:port``, with ``grpcs://`` (TLS) or ``authority@`` before it. Raises InvalidArgument."""
        scheme, separator, rest = address.rpartition("://")
        try:
            parts = urlsplit(f"//{rest}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if scheme not in ("", "grpc", "grpcs") or (separator and not scheme) or not host or not port or parts.path:
            raise InvalidArgument(f"{address!r} is no connector's address: host:port is expected, or grpcs://host:port")
        return cls(host, port, scheme == "grpcs", parts.username or "")


class ConnectorClient:
    """``timeout`` bounds each call, and the wait for each piece of a log; in seconds.

    Every method takes the connector's address and raises Unavailable when it can't be reached, NoAnswer when it did not
    answer, else an error with its own code and words.
    """

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._channels: dict[str, Channel] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._closed = False

    def close(self) -> None:
        """For good: calls raise Unavailable from now on."""
        self._closed = True
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    async def create(self, address: str, request: connector_pb2.CreateTaskRequest) -> bytes:
        """The job's ``resource_meta``: what it is known by from now on."""
        created = await self._call(address, f"{_JOBS}CreateTask", request, connector_pb2.CreateTaskResponse)
        return bytes(created.resource_meta)

    async def get(self, address: str, request: connector_pb2.GetTaskRequest) -> connector_pb2.Resource:
        return (await self._call(address, f"{_JOBS}GetTask", request, connector_pb2.GetTaskResponse)).resource

    async def delete(self, address: str, request: connector_pb2.DeleteTaskRequest) -> None:
        await self._call(address, f"{_JOBS}DeleteTask", request, connector_pb2.DeleteTaskResponse)

    async def categories(self, address: str) -> list[connector_pb2.TaskCategory]:
        """The types of the tasks that it runs."""
        request = connector_pb2.ListConnectorsRequest()
        listed = await self._call(address, f"{_METADATA}ListConnectors", request, connector_pb2.ListConnectorsResponse)
        return [category for connector in listed.connectors for category in connector.supported_task_categories]

    async def logs(
        self, address: str, request: connector_pb2.GetTaskLogsRequest
    ) -> AsyncGenerator[connector_pb2.GetTaskLogsResponse]:
        """What it tells, piece by piece."""
        name, reply = f"{_JOBS}GetTaskLogs", connector_pb2.GetTaskLogsResponse
        async with self._wrapped(address):
            channel = await self._connected(address)
            async with channel.request(name, Cardinality.UNARY_STREAM, type(request), reply) as stream:
                await stream.send_message(request, end=True)
                while True:
                    async with asyncio.timeout(self._timeout):
                        part = await stream.recv_message()
                    if part is None:
                        return
                    yield part

    async def _call(self, address: str, name: str, request: Message, reply: type[_Reply]) -> _Reply:
        async with self._turns.setdefault(address, asyncio.Semaphore(_PARALLEL)), self._wrapped(address):
            channel = await self._connected(address)
            async with asyncio.timeout(self._timeout):
                method: UnaryUnaryMethod[Any, _Reply] = UnaryUnaryMethod(channel, name, type(request), reply)
                return await method(request, timeout=self._timeout)

    async def _connected(self, address: str) -> Channel:
        """Raises Unavailable; what was to be sent has not been sent."""
        if self._closed:
            raise Unavailable("the server is stopping")
        channel = self._channels.get(address)
        if channel is None:
            endpoint = Endpoint.parse(address)
            channel = self._channels[address] = Channel(endpoint.host, endpoint.port, ssl=tls() if endpoint.secure else None)
            channel._authority = endpoint.authority or channel._authority  # for which grpclib has no parameter
        try:
            async with asyncio.timeout(self._timeout):
                await channel.__connect__()
        except TimeoutError:
            raise Unavailable(f"connector {address} can't be reached within {self._timeout:g} s") from None
        except OSError as error:
            raise Unavailable(f"connector {address} can't be reached: {error}") from error
        return channel

    @asynccontextmanager
    async def _wrapped(self, address: str) -> AsyncIterator[None]:
        try:
            yield
        except GRPCError as error:
            raise _told(Code(error.status.value), f"connector {address}: {error.message or error.status.name}") from error
        except TimeoutError:
            raise NoAnswer(f"connector {address} did not answer within {self._timeout:g} s") from None
        except (OSError, ProtocolError, StreamTerminatedError) as error:
            raise NoAnswer(f"connector {address}: the connection broke before it answered: {error}") from error


def _told(code: Code, message: str) -> FlyteUnifiedError:
    return NoAnswer(message) if code is Code.DEADLINE_EXCEEDED else told(code, message)
