"""The pods without which operators' resources can't begin, and what keeps them.

An operator says of a pod that finds no node or no image no more than that it has made it. So these pods are looked at here,
and judged as a task's own pod is, until the operator says that the work runs; then it knows best.
"""

from __future__ import annotations

from collections.abc import Callable

from flyte_unified.core.clock import Micros
from flyte_unified.core.phases import Phase
from flyte_unified.kube.client import Kube
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import PODS, Object, key_of
from flyte_unified.launchers.pods.reader import trim
from flyte_unified.plugins.api import State
from flyte_unified.plugins.operators.kinds import LEADER, MANAGED, PART_OF
from flyte_unified.plugins.pods.config import Patience
from flyte_unified.plugins.pods.reading import read
from flyte_unified.plugins.pods.waiting import progress


class Leaders:
    """``on_change`` is told which resource to look at again (namespace, name); ``patience`` bounds what may pass."""

    def __init__(self, kube: Kube, *, namespace: str, patience: Patience, on_change: Callable[[str, str], None]) -> None:
        self._patience = patience
        self._on_change = on_change
        self._pods: dict[tuple[str, str], dict[str, Object]] = {}
        self._refusals: dict[tuple[str, str], State] = {}
        self._informer = Informer(
            kube, PODS, namespace=namespace, labels=f"{MANAGED}={LEADER},{PART_OF}", on_event=self._changed, trim=_trim
        )

    async def start(self) -> None:
        """Raises KubeError for what waiting does not mend."""
        await self._informer.start()

    async def close(self) -> None:
        await self._informer.stop()

    def refused(self, namespace: str, name: str, message: str, at: Micros) -> None:
        """A quota leaves no room for a pod of the resource; its operator goes on trying."""
        self._refusals[namespace, name] = State(phase=Phase.WAITING_FOR_RESOURCES, since=at, reason=message)
        self._on_change(namespace, name)

    def forget(self, namespace: str, name: str) -> None:
        """The resource has ended."""
        self._refusals.pop((namespace, name), None)

    def holding_up(self, namespace: str, name: str, now: Micros) -> State | None:
        """What keeps the resource from beginning: of its leading pods that don't run the one that fails, or is least far."""
        pods = self._pods.get((namespace, name))
        if not pods:
            return self._refusals.get((namespace, name))
        waiting = [state for pod in pods.values() if (state := self._waiting(pod, now)) is not None]
        failing = next((state for state in waiting if state.exit is not None), None)
        return failing or min(waiting, key=lambda state: (state.phase, state.again or 1 << 62), default=None)

    def _waiting(self, pod: Object, now: Micros) -> State | None:
        facts = read(pod)
        if facts.over or facts.deleted is not None or facts.main is None or facts.main.ended is not None:
            return None
        state = progress(pod, facts, now=now, config=self._patience)
        return None if state.phase is Phase.RUNNING else state

    def _changed(self, change: str, pod: Object) -> None:
        namespace, name = key_of(pod)
        of = namespace, pod["metadata"]["labels"][PART_OF]
        pods = self._pods.setdefault(of, {})
        if change == "DELETED":
            pods.pop(name, None)
        else:
            pods[name] = pod
            self._refusals.pop(of, None)
        if not pods:
            del self._pods[of]
        self._on_change(*of)


def _trim(pod: Object) -> Object:
    kept = trim(pod)
    kept["metadata"]["labels"] = {PART_OF: pod["metadata"]["labels"][PART_OF]}
    return kept
