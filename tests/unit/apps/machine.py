"""A machine without processes, for supervisors in virtual time; and apps for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.common import identity_pb2

from flyte_unified.apps import model
from flyte_unified.apps.local.supervisor import End, Replica, Rules, Supervisor
from flyte_unified.apps.model import App, AppKey, Told
from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.core.sites import Upstream

KEY = AppKey("p", "d", "hello")
RULES = Rules(idle=60, start=30, wake=20, request=300, backoff=1, backoff_max=8)
NOBODY = identity_pb2.EnrichedIdentity()


def asked(word: str = "", *, least: int = 0, revision: int = 0) -> idl.App:
    message = idl.App(metadata=idl.Meta(id=idl.Identifier(project="p", domain="d", name="hello"), revision=revision))
    message.spec.container.command.extend(["serve", word])
    message.spec.autoscaling.replicas.min = least
    message.spec.desired_state = idl.Spec.DESIRED_STATE_ACTIVE
    return message


def app(word: str = "", *, least: int = 0) -> App:
    return model.created(KEY, asked(word, least=least), by="me", creator=NOBODY, now=Micros(1))


def changed(known: App, message: idl.App) -> App:
    return model.updated(known, message, reason="", actor=NOBODY, now=Micros(2))


class Machine:
    """Processes listen ``after`` seconds, or end at once with ``fails``."""

    def __init__(self, *, after: float = 3.0) -> None:
        self.after = after
        self.fails: End | FlyteUnifiedError | OSError | None = None
        self.launched: list[float] = []
        self.ended: list[Replica] = []
        self.said: list[tuple[float, str, str]] = []
        self.told: list[Told] = []
        self.retired = False
        self.supervisor: Supervisor

    async def launch(self, app: App) -> Replica:
        loop = asyncio.get_running_loop()
        self.launched.append(loop.time())
        if isinstance(self.fails, (FlyteUnifiedError, OSError)):
            raise self.fails
        replica = Replica(app.key, app.deployment[:12], "here", 8080, f"hello-{len(self.launched)}")
        if self.fails is not None:
            loop.call_soon(self.supervisor.ended, replica, self.fails)
        return replica

    async def listening(self, replica: Replica) -> Upstream:
        await asyncio.sleep(self.after)
        return Upstream(host="127.0.0.1", port=len(self.launched), patience=1)

    async def end(self, replica: Replica) -> None:
        self.ended.append(replica)
        asyncio.get_running_loop().call_later(0.5, self.supervisor.ended, replica, End("signal 15"))

    async def clear(self, replica: Replica) -> None:
        pass

    async def retire(self, app: App) -> None:
        self.retired = True

    async def last_words(self, replica: Replica) -> str:
        return "last words"

    async def say(self, app: App, told: Told) -> None:
        phase = idl.Status.DeploymentStatus.Name(told.phase).removeprefix("DEPLOYMENT_STATUS_")
        self.said.append((asyncio.get_running_loop().time(), phase, idl.Status.Substate.Name(told.substate)))
        self.told.append(told)


@asynccontextmanager
async def supervised(wanted: App, machine: Machine, rules: Rules = RULES) -> AsyncIterator[Supervisor]:
    machine.supervisor = supervisor = Supervisor(wanted, machine=machine, rules=rules)
    supervisor.begin()
    try:
        yield supervisor
    finally:
        await supervisor.close()
