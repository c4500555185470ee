"""The port to where apps run, and what other rooms may use of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from flyte_unified.apps.model import App, AppKey, Told
from flyte_unified.core.sites import Site
from flyte_unified.dataproxy.api import Line

__all__ = ["App", "AppKey", "AppLauncher", "Observe", "Output", "Told"]

Observe = Callable[[AppKey, str, Told], Awaitable[None]]
"""What is to be said of one deployment of an app; nobody is told if another one is wanted by now."""


class Output(NamedTuple):
    """Lines of one replica; none of them says that there is such a replica."""

    replica: str
    lines: Sequence[Line] = ()


class AppLauncher(Protocol):
    """One place where apps run. It is told what is wanted, level by level, and tells what there is."""

    @property
    def cluster(self) -> str:
        """The name of the place."""

    async def start(self, apps: Sequence[App], observe: Observe) -> None:
        """Takes up what runs already, and sees to the rest."""

    def wanted(self, app: App) -> None:
        """From now on the app shall be like this."""

    def unwanted(self, key: AppKey) -> None:
        """It is deleted: what runs of it is ended, and what it left is removed."""

    def site(self, key: AppKey) -> Site:
        """Where a request to it goes."""

    def follow(self, key: AppKey, replica: str) -> AsyncGenerator[Output]:
        """What its replicas wrote and write, or one of them, until there is none and none is about to be.

        Raises NotFound for a replica that there is not.
        """

    async def stop(self, *, grace: float) -> None:
        """Ends what can't outlive the server, within ``grace`` seconds; the next start begins it again."""

    async def close(self) -> None:
        """At once; what runs is found by the next start."""
