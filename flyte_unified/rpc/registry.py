"""Which RPC is answered by which function.

Every RPC of every Flyte 2 service has an entry; one that nobody implements answers Unimplemented with its own name.
A service's descriptor is loaded at its first call, so an unused service costs nothing at start.
"""

from __future__ import annotations

import enum
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from flyte_unified.core.errors import FailedPrecondition, InvalidArgument, Unimplemented
from flyte_unified.rpc import idl

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")

PROTO = "proto"
JSON = "json"


class Kind(enum.Enum):
    """Which sides of a call are streams."""

    UNARY = "unary"
    CLIENT_STREAM = "client stream"
    SERVER_STREAM = "server stream"
    BIDI_STREAM = "bidi stream"

    @property
    def client_streams(self) -> bool:
        return self in (Kind.CLIENT_STREAM, Kind.BIDI_STREAM)

    @property
    def server_streams(self) -> bool:
        return self in (Kind.SERVER_STREAM, Kind.BIDI_STREAM)


Decoder = Callable[[bytes], Any]
"""Bytes to message; raises InvalidArgument."""
Encoder = Callable[[Any], bytes]
"""Message to bytes; raises FailedPrecondition where a codec cannot tell it."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: how its messages are read and written, and who answers.

    ``handler(message, ctx)`` is a coroutine function, or an async generator function where the server streams; where
    the client streams, ``message`` is an async iterator of messages. None: not built.
    """

    service: str
    rpc: str
    kind: Kind
    handler: Callable[..., Any] | None
    decoders: Mapping[str, Decoder]
    """By codec: ``proto`` and ``json``."""
    encoders: Mapping[str, Encoder]
    idempotent: bool = False
    """Without side effects: Connect allows GET."""

    @property
    def procedure(self) -> str:
        return f"/{self.service}/{self.rpc}"

    def built(self) -> Callable[..., Any]:
        """The handler. Raises Unimplemented when there is none."""
        if self.handler is None:
            raise Unimplemented(f"{self.service}/{self.rpc} is not built in this server")
        return self.handler


class Registry:
    """All services of one server."""

    def __init__(self) -> None:
        self._implementations: dict[str, object] = {}
        self._descriptors: dict[str, ServiceDescriptor] = {}
        self._foreign: dict[str, Callable[[], Iterable[Method]]] = {}
        self._pending = set(idl.MODULES)
        self._methods: dict[str, Method] = {}

    def add(self, service: str, implementation: object, *, descriptor: ServiceDescriptor | None = None) -> None:
        """Let ``implementation`` answer ``service`` (its full protobuf name).

        Its methods bear the RPCs' names in snake case. ``descriptor`` is needed for services that are not Flyte 2's.
        Raises ValueError when the service is unknown or has an implementation already.
        """
        if service in self._implementations:
            raise ValueError(f"{service} has an implementation already")
        if descriptor is not None:
            self._descriptors[service] = descriptor
        elif service not in idl.MODULES:
            raise ValueError(f"{service} is no Flyte 2 service; pass its descriptor")
        self._implementations[service] = implementation
        self._pending.add(service)

    def add_foreign(self, service: str, methods: Callable[[], Iterable[Method]]) -> None:
        """Add a service whose messages are not protobuf's own classes; ``methods`` is called when it is first needed."""
        self._foreign[service] = methods
        self._pending.add(service)

    def add_method(self, method: Method) -> None:
        """Add one RPC, or put it in the place of the one that there is."""
        self._methods[method.procedure] = method

    def find(self, path: str) -> Method | None:
        """The RPC at ``/package.Service/Method``, or None."""
        method = self._methods.get(path)
        if method is None and (service := path[1:].partition("/")[0]) in self._pending:
            self._load(service)
            method = self._methods.get(path)
        return method

    def methods(self) -> Iterator[Method]:
        """Every RPC, by name. Loads every descriptor: for documents and tests."""
        for service in list(self._pending):
            self._load(service)
        for procedure in sorted(self._methods):
            yield self._methods[procedure]

    def _load(self, service: str) -> None:
        self._pending.discard(service)
        if (foreign := self._foreign.get(service)) is not None:
            for found in foreign():
                self.add_method(found)
            return
        descriptor = self._descriptors.get(service) or _descriptor(service)
        implementation = self._implementations.get(service)
        for method in descriptor.methods:
            self.add_method(_method(method, getattr(implementation, snake_case(method.name), None)))


def snake_case(rpc: str) -> str:
    """``GetActionDataURIs`` as ``get_action_data_uris``."""
    return _WORDS.sub("_", rpc).lower()


def _descriptor(service: str) -> ServiceDescriptor:
    file = importlib.import_module(idl.MODULES[service]).DESCRIPTOR
    descriptor: ServiceDescriptor = file.services_by_name[service.rpartition(".")[2]]
    return descriptor


def _method(descriptor: MethodDescriptor, handler: Callable[..., Any] | None) -> Method:
    request = GetMessageClass(descriptor.input_type)
    response = GetMessageClass(descriptor.output_type)
    kinds = {
        (False, False): Kind.UNARY,
        (True, False): Kind.CLIENT_STREAM,
        (False, True): Kind.SERVER_STREAM,
        (True, True): Kind.BIDI_STREAM,
    }
    return Method(
        service=descriptor.containing_service.full_name,
        rpc=descriptor.name,
        kind=kinds[descriptor.client_streaming, descriptor.server_streaming],
        handler=handler,
        decoders={PROTO: _from_proto(request), JSON: _from_json(request)},
        encoders={PROTO: response.SerializeToString, JSON: _to_json},
        idempotent=descriptor.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
    )


def _from_proto(message: type[Message]) -> Decoder:
    parse = message.FromString

    def decode(data: bytes) -> Message:
        try:
            return parse(data)
        except DecodeError as error:
            raise InvalidArgument(f"the request is no {message.DESCRIPTOR.full_name}: {error}") from error

    return decode


def _from_json(message: type[Message]) -> Decoder:
    name = message.DESCRIPTOR.full_name

    def decode(data: bytes) -> Message:
        # A missing body is an empty message, as for proto. protobuf's own parser takes "[]" for one, too.
        text = data.strip() or b"{}"
        if not text.startswith(b"{"):
            raise InvalidArgument(f"the request is no {name} in JSON: it is no object")
        try:
            return json_format.Parse(text, message(), ignore_unknown_fields=True)
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"the request is no {name} in JSON: {error}") from error

    return decode


def _to_json(message: Message) -> bytes:
    try:
        return json_format.MessageToJson(message, indent=None, ensure_ascii=False).encode()
    except (json_format.SerializeToJsonError, ValueError) as error:  # a duration of a billion years, say
        raise FailedPrecondition(f"the answer holds what JSON cannot tell ({error}); ask for it as protobuf") from error
