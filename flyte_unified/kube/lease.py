"""Who leads, among replicas: the holder of a Lease (https://kubernetes.io/docs/concepts/architecture/leases/).

The rules are client-go's. Nobody compares wall clocks: who waits measures by its own clock for how long the lease stood still,
and takes it after its duration; who leads stops in the earlier renew deadline, measured from before its last renewal that
succeeded. Every write names the version that it replaces, so of two that take the lease one is refused.

Beyond client-go: those that wait watch the lease, so a release is answered at once; and each term has a number of its own, the
epoch, greater than all before. A leader that was suspended cannot know in time that it lost, so what it writes must carry its
epoch and be refused for it; where nothing can refuse it, ``check`` comes just before.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import FlyteUnifiedError, NotLeader
from flyte_unified.core.tasks import to_its_end
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Conflict, Exists, Forbidden, Gone, KubeError, Missing
from flyte_unified.kube.kinds import LEASES, Object

_log = structlog.get_logger(__name__)

_JITTER = 1.2
"""client-go's: a pause is ``retry`` and up to so many times it on top."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Elector:
    """Competes for the Lease ``name`` in ``namespace``.

    ``identity`` is of this start of this process alone, as a pod's name with random characters. ``duration``, ``renew`` and
    ``retry`` are in seconds: for how long a lease that is not renewed holds off others, after which failures to renew
    leading ends, and between two renewals. ``last_epoch`` gives the greatest epoch that was ever used, for a lease
    that was deleted and begins anew.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        name: str,
        namespace: str,
        identity: str,
        duration: float = 15.0,
        renew: float = 10.0,
        retry: float = 2.0,
        clock: Clock,
        last_epoch: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        if not duration > renew > retry * _JITTER > 0:
            raise ValueError(f"a lease of {duration:g} s, renewed within {renew:g} s, every {retry:g} s, cannot be kept")
        self._kube = kube
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._duration = duration
        self._renew = renew
        self._retry = retry
        self._clock = clock
        self._last_epoch = last_epoch
        self._spec: Object = {}
        self._seen_at = 0.0
        self._until = 0.0
        self.epoch: int | None = None
        """Of our term, while ``lead`` runs."""

    @property
    def holder(self) -> str:
        """Who leads, as last seen; empty for nobody."""
        return self._spec.get("holderIdentity") or ""

    def check(self, epoch: int) -> None:
        """Raises NotLeader when that term is over, and from the renew deadline on, even before anything here has noticed: a
        process that was suspended wakes in the middle of what it did.
        """
        if self.epoch != epoch or self._clock.monotonic() >= self._until:
            raise NotLeader(f"{self._identity} does not have the lease {self._name}")

    async def run(self, lead: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Until it is cancelled: wait for the lease, run ``lead(epoch)``, cancel it when the lease is lost, wait again.

        When ``lead`` has ended the lease is released. What it raises is raised, and so is Forbidden where we lack a right to
        the lease: asking again gives none.
        """
        while True:
            lease = await self._acquired()
            await self._term(lease, lead)
            await self._pause()

    async def _acquired(self) -> Object:
        """The lease, ours."""
        failing = False
        while True:
            try:
                lease = await self._looked_at()
                left = remaining(self._spec, seen_at=self._seen_at, now=self._clock.monotonic(), identity=self._identity)
                if left <= 0:
                    return await self._taken(lease)
                failing = False
                if lease is not None and await self._over(lease, left):
                    continue
            except (Conflict, Exists, Gone) as error:
                _log.debug("the lease moved on", lease=self._name, error=error.message)
            except (FlyteUnifiedError, TimeoutError) as error:
                if isinstance(error, Forbidden) and error.right:
                    raise
                if not failing:
                    _log.warning("the lease is out of reach", lease=self._name, error=str(error) or "no answer in time")
                failing = True
            await self._pause()

    async def _looked_at(self) -> Object | None:
        try:
            async with asyncio.timeout(self._renew):
                lease = await self._kube.get(LEASES, self._name, namespace=self._namespace)
        except Missing:
            self._spec = {}
            return None
        self._observe(lease)
        return lease

    def _observe(self, lease: Object) -> None:
        spec = lease.get("spec") or {}
        if spec != self._spec:
            self._spec, self._seen_at = spec, self._clock.monotonic()

    async def _over(self, lease: Object, left: float) -> bool:
        """Whether the lease was released, deleted or stood still for ``left`` seconds; not, if the server ended the watch."""
        loop = asyncio.get_running_loop()
        version = lease["metadata"]["resourceVersion"]
        fields = f"metadata.name={self._name}"
        watch = self._kube.watch(LEASES, namespace=self._namespace, fields=fields, resource_version=version)
        try:
            async with asyncio.timeout(left) as limit, aclosing(watch):
                async for change, seen in watch:
                    if change == "BOOKMARK":
                        continue
                    if change == "DELETED":
                        return True
                    self._observe(seen)
                    left = remaining(self._spec, seen_at=self._seen_at, now=self._clock.monotonic(), identity=self._identity)
                    if left <= 0:
                        return True
                    limit.reschedule(loop.time() + left)
        except TimeoutError:
            return True
        return False

    async def _taken(self, lease: Object | None) -> Object:
        last = await self._last_epoch() if self._last_epoch is not None else 0
        before = {} if lease is None else self._spec
        spec = granted(before, identity=self._identity, duration=self._duration, last=last, at=self._now())
        try:
            if lease is None:
                metadata = {"name": self._name, "namespace": self._namespace}
                new = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
                return await self._written(self._kube.create(LEASES, new), within=self._renew)
            return await self._written(self._kube.replace(LEASES, lease | {"spec": spec}), within=self._renew)
        except asyncio.CancelledError:
            await self._release(spec["leaseTransitions"])
            raise

    async def _written(self, write: Coroutine[Any, Any, Object], *, within: float) -> Object:
        began = self._clock.monotonic()
        async with asyncio.timeout(within):
            lease = await write
        self._until = began + self._renew
        self._observe(lease)
        return lease

    async def _term(self, lease: Object, lead: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Leads until the lease is lost, ``lead`` ends or we are cancelled. Nothing of ``lead`` runs when it returns."""
        self.epoch = epoch = int(lease["spec"]["leaseTransitions"])
        _log.info("leading", lease=self._name, identity=self._identity, epoch=epoch)
        leading = asyncio.create_task(lead(epoch), name=f"leader-{self._name}")
        keeping = asyncio.create_task(self._kept(lease, epoch), name=f"lease-{self._name}")
        try:
            await asyncio.wait({leading, keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Who is cancelled once more would leave the term to go on by itself.
            await to_its_end(self._ended(epoch, leading, keeping), name=f"end of leader-{self._name}")
        for task in (leading, keeping):
            if not task.cancelled():
                task.result()

    async def _ended(self, epoch: int, *term: asyncio.Task[None]) -> None:
        for task in term:
            task.cancel()
        await asyncio.wait(term)
        self.epoch = None
        _log.info("leading no longer", lease=self._name, identity=self._identity, epoch=epoch)
        await self._release(epoch)

    async def _kept(self, lease: Object, epoch: int) -> None:
        """Renews the lease until it is lost. After a failure it is read first: the write may have happened."""
        known: Object | None = lease
        reason = ""
        while (left := self._until - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(self._retry, left))
            within = min(self._renew / 2, self._until - self._clock.monotonic())
            try:
                async with asyncio.timeout(within):
                    known = known or await self._looked_at()
                if known is None or not self._ours(known, epoch):
                    reason = f"it is now {self.holder or 'nobody'}'s"
                    break
                renewed = known | {"spec": known["spec"] | {"renewTime": self._now()}}
                known = await self._written(self._kube.replace(LEASES, renewed), within=within)
            except (KubeError, TimeoutError) as error:
                known, reason = None, str(error) or "no answer in time"
        _log.warning("the lease is lost", lease=self._name, epoch=epoch, reason=reason)

    async def _release(self, epoch: int) -> None:
        """Gives up the lease if it is still ours, for others not to wait for its end."""
        try:
            async with asyncio.timeout(self._renew / 2):
                lease = await self._looked_at()
                if lease is None or not self._ours(lease, epoch):
                    return
                spec = lease["spec"] | {"renewTime": self._now(), "leaseDurationSeconds": 1}
                del spec["holderIdentity"]
                await self._kube.replace(LEASES, lease | {"spec": spec})
        except (KubeError, TimeoutError) as error:
            _log.info("the lease was not released", lease=self._name, error=str(error) or "no answer in time")

    def _ours(self, lease: Object, epoch: int) -> bool:
        spec = lease.get("spec") or {}
        return spec.get("holderIdentity") == self._identity and spec.get("leaseTransitions") == epoch

    def _now(self) -> str:
        return (_EPOCH + timedelta(microseconds=self._clock.now())).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    async def _pause(self) -> None:
        await asyncio.sleep(self._retry * random.uniform(1.0, 1.0 + _JITTER))


def remaining(spec: Object, *, seen_at: float, now: float, identity: str) -> float:
    """Seconds for which a lease holds ``identity`` off; none if nobody has it, or we do by a write whose answer was lost.

    ``seen_at`` is when this ``spec`` was first seen, by the same monotonic clock as ``now``.
    """
    holder = spec.get("holderIdentity")
    if not holder or holder == identity:
        return 0.0
    return float(seen_at + (spec.get("leaseDurationSeconds") or 0) - now)


def granted(before: Object, *, identity: str, duration: float, last: int, at: str) -> Object:
    """The spec of ``identity``'s term after ``before``. ``last`` is the greatest epoch known, ``at`` the time (RFC 3339)."""
    return before | {
        "holderIdentity": identity,
        "leaseDurationSeconds": math.ceil(duration),
        "acquireTime": at,
        "renewTime": at,
        "leaseTransitions": max(before.get("leaseTransitions") or 0, last) + 1,
    }
