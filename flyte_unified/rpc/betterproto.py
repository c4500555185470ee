"""Services with betterproto2's messages, beside those with protobuf's: our own, small ones.

What its compiler makes of a proto file says what there is to serve; grpclib's server, for which it is made, is not needed: the
registry's codecs are all that differs, so such a service is answered in every protocol of the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import betterproto2
from grpclib.const import Handler

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.rpc.registry import JSON, PROTO, Decoder, Kind, Method, snake_case


def methods(mapping: Mapping[str, Handler], handlers: object) -> Iterator[Method]:
    """The RPCs of a generated base class (its ``__mapping__``), answered by ``handlers`` as those of ``Registry.add`` are."""
    for path, rpc in mapping.items():
        _, name, method = path.split("/")
        shape, request = rpc.cardinality.value, rpc.request_type
        yield Method(
            service=name,
            rpc=method,
            kind=next(kind for kind in Kind if (kind.client_streams, kind.server_streams) == tuple(shape)),
            handler=getattr(handlers, snake_case(method), None),
            decoders={
                PROTO: _checked(request.parse, request.__name__),
                JSON: _checked(request.from_json, request.__name__, b"{}", ignore_unknown_fields=True),
            },
            encoders={PROTO: bytes, JSON: _to_json},
        )


def _checked(read: Callable[..., betterproto2.Message], name: str, empty: bytes = b"", **options: bool) -> Decoder:
    def decode(data: bytes) -> betterproto2.Message:
        try:
            message = read(data or empty, **options)
            bytes(message)  # reading takes values of any type, writing does not
        except Exception as error:  # whatever comes up in it: there is no one class for what can't be read
            raise InvalidArgument(f"the request is no {name}: {error}") from error
        return message

    return decode


def _to_json(message: betterproto2.Message) -> bytes:
    return message.to_json(include_default_values=True).encode()
