"""What can go wrong with an API server, at a test's word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from flyte_unified.testing.fake_kube import errors
from flyte_unified.testing.fake_kube.errors import ApiError


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a matcher of faults sees it.

    ``verb`` as in RBAC: get, list, watch, create, update, patch, delete, deletecollection.
    """

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""


Match = Callable[[Asked], bool]
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def _every(_: Asked) -> bool:
    return True


@dataclass(slots=True)
class _Fault:
    times: int
    match: Match
    error: Callable[[Asked], ApiError] | None
    after: bool = False


class Faults:
    """Switched on by a test; each ends by itself after ``times`` requests, or with ``restore``."""

    def __init__(self, *, cut: Callable[[], None], expire: Callable[[], None]) -> None:
        self._cut = cut
        self._expire = expire
        self._pending: list[_Fault] = []
        self._delay = 0.0
        self._delayed: Match = _every
        self.away = False
        """The server takes no request: connections are dropped unanswered."""
        self.refusing = False
        """The server answers 503 to everything."""

    def outage(self, *, refuse: bool = False) -> None:
        """Go away: watches break, connections are dropped; with ``refuse``, everything is answered 503."""
        self.away, self.refusing = not refuse, refuse
        self._cut()

    def restore(self) -> None:
        """Be well again."""
        self.away = self.refusing = False
        self._delay = 0.0
        self._pending.clear()

    def cut_watches(self) -> None:
        """Break every watch that is open, in the middle of its stream."""
        self._cut()

    def expire(self) -> None:
        """Forget the history: watches and continued lists from before get 410."""
        self._expire()

    def conflict(self, times: int = 1, match: Match = _every) -> None:
        """Refuse the next updates and patches with 409, as if somebody else had written in between."""
        self._pending.append(
            _Fault(
                times,
                lambda asked: asked.verb in ("update", "patch") and match(asked),
                lambda asked: errors.conflict(asked.group, asked.resource, asked.name),
            )
        )

    def throttle(self, times: int = 1, retry_after: int = 1, match: Match = _every) -> None:
        """Answer 429 with Retry-After in seconds."""
        self._pending.append(_Fault(times, match, lambda _: errors.too_many_requests(retry_after)))

    def fail(self, status: int = 500, times: int = 1, match: Match = _every, *, reason: str = "", message: str = "") -> None:
        """Refuse requests, before anything is done."""
        reason = reason or {500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout", 403: "Forbidden"}.get(status, "")
        self._pending.append(_Fault(times, match, lambda _: ApiError(status, reason, message or f"injected fault {status}")))

    def drop(self, times: int = 1, match: Match = _every) -> None:
        """Do what is asked, then break the connection instead of answering: the client cannot know."""
        self._pending.append(_Fault(times, match, None, after=True))

    def delay(self, seconds: float, match: Match = _every) -> None:
        """Answer late, until ``restore`` or ``delay(0)``."""
        self._delay, self._delayed = seconds, match

    async def before(self, asked: Asked) -> None:
        """Raises ApiError where a fault is due."""
        if self._delay and self._delayed(asked):
            await asyncio.sleep(self._delay)
        if self.refusing:
            raise ApiError(503, "ServiceUnavailable", "the server is currently unable to handle the request")
        fault = self._due(asked, after=False)
        if fault is not None and fault.error is not None:
            raise fault.error(asked)

    def dropped(self, asked: Asked) -> bool:
        """Whether the answer is to be lost."""
        return self.away or self._due(asked, after=True) is not None

    def _due(self, asked: Asked, *, after: bool) -> _Fault | None:
        for fault in self._pending:
            if fault.after == after and fault.match(asked):
                fault.times -= 1
                if fault.times <= 0:
                    self._pending.remove(fault)
                return fault
        return None
