"""What a handler may know of its call beside the message."""

from __future__ import annotations

from dataclasses import dataclass, field

from flyte_unified.core.ids import RunKey

Headers = tuple[tuple[str, str], ...]
"""Header lines in order, names in lower case; a name may recur."""

_MAX_REQUEST_ID = 256
"""Characters"""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls. ``run`` is set when a task of that run calls back with the token it was started with."""

    subject: str = ""
    run: RunKey | None = None


@dataclass(slots=True)
class CallContext:
    """One call. Cancellation is the task's own: a handler is cancelled when its caller is gone."""

    procedure: str
    """``/package.Service/Method``"""
    headers: Headers = ()
    deadline: float | None = None
    """On the running loop's clock (seconds), or None."""
    identity: Identity = field(default_factory=Identity)
    base_url: str = ""
    """Scheme and authority that the caller used, without a trailing slash: what links in the reply begin with."""
    http_method: str = "POST"
    protocol: str = ""
    """``connect``, ``grpc`` or ``grpc-web``."""
    response_headers: list[tuple[str, str]] = field(default_factory=list)
    response_trailers: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str:
        """The first value of a header, or an empty string."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def request_id(self) -> str:
        """The client's id of this call; the SDK repeats it when it repeats the call. As much of it as an index takes."""
        return self.header("x-request-id")[:_MAX_REQUEST_ID]
