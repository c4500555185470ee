"""One call from its headers to its last byte: identity, deadline, handler, error, metric. The same for every protocol.

Errors are judged here and nowhere else: ours go to the caller as they are; a foreign exception is logged with its
traceback and becomes INTERNAL with a message that tells nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import isawaitable

import structlog
from structlog.typing import FilteringBoundLogger

from flyte_unified.core.context import CallContext, Headers, Identity
from flyte_unified.core.errors import Code, DeadlineExceeded, FlyteUnifiedError, Internal, Unavailable
from flyte_unified.rpc.exchange import Disconnected, Exchange
from flyte_unified.rpc.registry import Method
from flyte_unified.rpc.wire import Call, Limits, Wire

Identify = Callable[[str | None, Headers], Identity | Awaitable[Identity]]
"""The run token in the path, if any, and the headers, to the caller. Raises PermissionDenied on a wrong token."""
Authorize = Callable[[CallContext], None]
"""Raises PermissionDenied or Unauthenticated before a call's message is read."""
Observe = Callable[[str, str, str, float], None]
"""``(procedure, protocol, code, seconds)`` of each finished call; code ``ok`` or an error's wire name."""
InFlight = Callable[[int], None]
"""Told +1 and -1 as calls begin and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the server's owner decides about calls."""

    identify: Identify
    authorize: Authorize | None = None
    observe: Observe | None = None
    in_flight: InFlight | None = None
    limits: Limits


class Calls:
    """Runs calls, knows which are open, and can end them."""

    def __init__(self, policy: Policy, *, logger: FilteringBoundLogger | None = None) -> None:
        self._policy = policy
        self._log: FilteringBoundLogger = logger or structlog.get_logger("flyte_unified.rpc")
        self._open: dict[asyncio.Task[object], bool] = {}
        self._ended: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.stopping = False

    async def serve(self, exchange: Exchange, method: Method, wire: Wire, codec: str) -> None:
        """Answer one call, whatever happens. Raises only CancelledError, when the client is gone."""
        policy = self._policy
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.current_task()
        assert task is not None
        call = self._call(exchange, method, wire, codec)
        self._enter(task, streams=method.kind.client_streams or method.kind.server_streams)
        if policy.in_flight is not None:
            policy.in_flight(1)
        outcome = Code.CANCELED.wire
        try:
            outcome = await self._run(call, wire, task, began)
        except Disconnected:
            exchange.abort()
        finally:
            self._leave(task)
            if policy.in_flight is not None:
                policy.in_flight(-1)
            if policy.observe is not None:
                policy.observe(method.procedure, wire.protocol, outcome, loop.time() - began)

    async def identify(self, exchange: Exchange) -> Identity:
        """Who calls. Raises PermissionDenied on a wrong token."""
        identity = self._policy.identify(exchange.token, exchange.headers)
        return await identity if isawaitable(identity) else identity

    async def refuse(self, exchange: Exchange, method: Method, wire: Wire, codec: str, error: FlyteUnifiedError) -> None:
        """Answer a call that no handler is there for, in the caller's own protocol."""
        await self._fail(self._call(exchange, method, wire, codec), wire, error)

    @contextmanager
    def tracked(self, *, streams: bool) -> Iterator[None]:
        """Count work that is no RPC among what ``stop`` waits for, or ends. Raises Disconnected when ended so."""
        task = asyncio.current_task()
        assert task is not None
        self._enter(task, streams=streams)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise Disconnected from None
        finally:
            self._leave(task)

    def endless(self) -> None:
        """What is tracked in this task may not end by itself: ``stop`` does not wait for it."""
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = True
        if self.stopping:
            self._end([task])

    async def stop(self, grace: float) -> None:
        """End open streams at once and unary calls after ``grace`` seconds, all with UNAVAILABLE.

        A handler that does not end when it is cancelled is left behind after one more second.
        """
        self.stopping = True
        self._end([task for task, streams in self._open.items() if streams])
        if await _within(self._idle, grace):
            return
        self._end(list(self._open))
        await _within(self._idle, 1.0)

    def _call(self, exchange: Exchange, method: Method, wire: Wire, codec: str) -> Call:
        ctx = CallContext(
            procedure=method.procedure,
            headers=exchange.headers,
            base_url=exchange.base_url,
            http_method=exchange.method,
            protocol=wire.protocol,
        )
        return Call(exchange, method, ctx, dict(exchange.headers), codec, self._policy.limits)

    def _enter(self, task: asyncio.Task[object], *, streams: bool) -> None:
        self._open[task] = streams
        self._idle.clear()

    def _leave(self, task: asyncio.Task[object]) -> None:
        del self._open[task]
        self._ended.discard(task)
        if not self._open:
            self._idle.set()

    def _end(self, tasks: list[asyncio.Task[object]]) -> None:
        for task in tasks:
            if task not in self._ended:
                self._ended.add(task)
                task.cancel()

    async def _run(self, call: Call, wire: Wire, task: asyncio.Task[object], began: float) -> str:
        deadline: asyncio.Timeout | None = None
        try:
            if self.stopping:
                raise _shutting_down()
            if (seconds := wire.timeout(call)) is None:
                await self._handle(call, wire)
            else:
                call.ctx.deadline = began + seconds
                async with asyncio.timeout_at(call.ctx.deadline) as deadline:
                    await self._handle(call, wire)
        except Disconnected:
            raise
        except asyncio.CancelledError:
            if task in self._ended:
                task.uncancel()
                error: FlyteUnifiedError = _shutting_down()
            elif task.cancelling():
                raise
            else:
                error = self._foreign(call, "a handler was cancelled from within")
        except FlyteUnifiedError as exc:
            error = exc
        except Exception as exc:
            if deadline is not None and deadline.expired() and isinstance(exc, TimeoutError):
                error = DeadlineExceeded()
            else:
                error = self._foreign(call, "a handler failed")
        else:
            return "ok"
        await self._fail(call, wire, error)
        return error.code.wire

    async def _handle(self, call: Call, wire: Wire) -> None:
        call.ctx.identity = await self.identify(call.exchange)
        if self._policy.authorize is not None:
            self._policy.authorize(call.ctx)
        await wire.run(call, call.method.built())

    async def _fail(self, call: Call, wire: Wire, error: FlyteUnifiedError) -> None:
        self._log.debug("call failed", procedure=call.method.procedure, code=error.code.wire, error=error.message)
        try:
            if call.exchange.complete:
                raise Disconnected
            await wire.fail(call, error)
        except Disconnected:
            call.exchange.abort()
        except Exception:
            self._log.exception("an error could not be sent", procedure=call.method.procedure)
            call.exchange.abort()

    def _foreign(self, call: Call, what: str) -> FlyteUnifiedError:
        self._log.exception(what, procedure=call.method.procedure, request_id=call.ctx.request_id)
        return Internal("internal error; the server's log has the details")


def _shutting_down() -> FlyteUnifiedError:
    return Unavailable("server is shutting down")


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
