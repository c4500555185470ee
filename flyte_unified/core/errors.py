"""Errors that a caller may see. Each class knows its RPC code; the edge maps them to the wire in one place.

Libraries' own exceptions are wrapped where the library is used, so no room depends on another room's client.
The codes are Connect's (https://connectrpc.com/docs/protocol#error-codes), which are gRPC's.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar

from google.protobuf.message import Message


class Code(enum.IntEnum):
    """Number as in gRPC's status codes; ``wire`` is the name in a Connect error."""

    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def wire(self) -> str:
        return self.name.lower()


class FlyteUnifiedError(Exception):
    """The root of every error we raise on purpose."""

    code: ClassVar[Code] = Code.UNKNOWN

    def __init__(self, message: str = "", *, details: Sequence[Message] = ()) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.details = tuple(details)

    @property
    def message(self) -> str:
        return str(self.args[0])


class RpcError(FlyteUnifiedError):
    """An error whose code is known only when it is raised: one that came over the wire, say."""

    def __init__(self, code: Code, message: str, *, details: Sequence[Message] = ()) -> None:
        super().__init__(message, details=details)
        self.code = code  # type: ignore[misc]  # deliberately per instance


class Canceled(FlyteUnifiedError):
    """The caller went away."""

    code = Code.CANCELED


class InvalidArgument(FlyteUnifiedError):
    """The request is wrong, whatever the state of the system; the message names the field."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(FlyteUnifiedError):
    """The deadline passed before the answer was ready."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(FlyteUnifiedError):
    """What the request names does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(FlyteUnifiedError):
    """The name is taken by something with other content."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(FlyteUnifiedError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(FlyteUnifiedError):
    """A bound is reached: try again later, or raise the setting that the message names."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(FlyteUnifiedError):
    """The request is right, but not in the state that the system is in."""

    code = Code.FAILED_PRECONDITION


class Aborted(FlyteUnifiedError):
    """The run was aborted, or a concurrent change won."""

    code = Code.ABORTED


class NotLeader(Aborted):
    """Another server leads by now: what this one decided is not written."""


class OutOfRange(FlyteUnifiedError):
    """Past the end."""

    code = Code.OUT_OF_RANGE


class Unimplemented(FlyteUnifiedError):
    """This backend does not have it yet."""

    code = Code.UNIMPLEMENTED


class Internal(FlyteUnifiedError):
    """A fault of this program. Never raised after a commit: clients repeat the call."""

    code = Code.INTERNAL


class Unavailable(FlyteUnifiedError):
    """Starting, stopping, or a dependency is away. Never raised after a commit: clients repeat the call."""

    code = Code.UNAVAILABLE


class Unauthenticated(FlyteUnifiedError):
    """No valid credentials came with the call."""

    code = Code.UNAUTHENTICATED
