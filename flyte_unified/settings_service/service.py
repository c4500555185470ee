"""Settings of all projects, of a domain, of a project in a domain: what is set where, and what holds.

Who writes says which version they have seen, and is refused when another was faster. A call that is repeated finds its own
version and is answered as the first time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from flyteidl2.app import app_definition_pb2
from flyteidl2.settings import settings_definition_pb2 as idl
from flyteidl2.task import run_pb2

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.core.ids import scope_part
from flyte_unified.core.queues import Queues
from flyte_unified.db.api import Database, Notice, Work
from flyte_unified.settings_service import apply, checks, store
from flyte_unified.settings_service.resolve import DOMAIN, ORG, PROJECT, VALUE, resolved
from flyte_unified.settings_service.store import Record, Scope

_TOPIC = "settings"
_LEVELS = (ORG, DOMAIN, PROJECT)
_NEVER = 1 << 62
"""No version comes to this; a request's may be beyond what a database takes."""


class ScopedSettings:
    """``queues`` are those that may be set.

    ``require_domain``, which is told the field, and ``require_project`` raise NotFound for what does not exist.
    """

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        require_domain: Callable[[str, str], Awaitable[None]],
        require_project: Callable[[str, str], Awaitable[None]],
        queues: Queues,
    ) -> None:
        self._database = database
        self._clock = clock
        self._require_domain = require_domain
        self._require_project = require_project
        self._queues = queues
        self._resolved: dict[Scope, idl.Settings] = {}
        self._changes = 0

    async def levels(self, key: idl.SettingsKey) -> list[Record]:
        """What is set at each level of a scope, the widest first. Raises NotFound; InvalidArgument naming the field."""
        return await self._read(await self._scope(key))

    async def resolve(self, key: idl.SettingsKey) -> tuple[idl.Settings, Record]:
        """What holds at a scope, and what is set there."""
        levels = await self.levels(key)
        return _resolved(levels), levels[-1]

    async def create(self, key: idl.SettingsKey, settings: idl.Settings) -> Record:
        """Raises AlreadyExists; NotFound for the scope; InvalidArgument naming the field."""
        scope, content = await self._scope(key), checks.stored(settings, self._queues)
        added = await self._write(lambda: store.add(scope, content, at=self._clock.now()), scope)
        (present,) = await self._database.read(lambda: store.get([scope]))
        if not added and (present.version, present.settings) != (1, content):
            raise AlreadyExists(f"key: settings of {_words(scope)} exist in version {present.version}; update them")
        return present

    async def update(self, key: idl.SettingsKey, settings: idl.Settings, *, version: int) -> Record:
        """Replaces all of a scope's own. Raises NotFound; FailedPrecondition where ``version`` is not the present one."""
        scope, content = await self._scope(key), checks.stored(settings, self._queues)
        if version == 0:
            raise InvalidArgument("version must be set, to the one that was read; CreateSettings makes the first")
        seen = min(version, _NEVER)
        await self._write(lambda: store.change(scope, content, version=seen, at=self._clock.now()), scope)
        (present,) = await self._database.read(lambda: store.get([scope]))
        if present.version == 0:
            raise NotFound(f"key: there are no settings of {_words(scope)} yet; create them")
        if (present.version, present.settings) != (version + 1, content):
            raise FailedPrecondition(
                f"version: {version} was read, and {present.version} is the present one: somebody else changed the settings "
                f"of {_words(scope)}; read them again"
            )
        return present

    async def complete(self, spec: run_pb2.RunSpec, project: str, domain: str) -> None:
        """Gives a new run what it does not say itself."""
        scope = Scope(project, domain)
        settings = self._resolved.get(scope)
        if settings is None:
            changes = self._changes
            settings = _resolved(await self._read(scope))
            if changes == self._changes:  # else what was read may be over already
                self._resolved[scope] = settings
        apply.complete(spec, settings)

    async def admit(self, app: app_definition_pb2.Spec, project: str, domain: str) -> None:
        """Raises FailedPrecondition for an app that the settings let nobody deploy."""
        if not app.security_context.allow_anonymous:
            return
        scope = Scope(project, domain)
        closed = _resolved(await self._read(scope)).app.disallow_anonymous
        if closed.state == VALUE and closed.bool_value:
            raise FailedPrecondition(
                "app.spec.security_context.allow_anonymous: app.disallow_anonymous in the settings of "
                f"{_words(scope.levels[closed.scope_level])} forbids it; deploy the app with requires_auth=True"
            )

    def noticed(self, notice: Notice | None) -> None:
        """What changed, here or on another replica; None: anything may have."""
        if notice is None or notice.topic == _TOPIC:
            self._resolved.clear()
            self._changes += 1

    async def _read(self, scope: Scope) -> list[Record]:
        return await self._database.read(lambda: store.get(scope.levels))

    async def _write(self, work: Callable[[], Work[bool]], scope: Scope) -> bool:
        notice = Notice(_TOPIC, "/".join(scope))
        return await self._database.write(
            work, then=lambda _: self.noticed(notice), changed=lambda found: [notice] if found else []
        )

    async def _scope(self, key: idl.SettingsKey) -> Scope:
        if key.project and not key.domain:
            raise InvalidArgument("key.domain is empty: a project's settings belong to one of its domains")
        if not key.domain:
            return Scope("", "")
        domain = scope_part(key.domain, field="key.domain")
        await self._require_domain(domain, "key.domain")
        if not key.project:
            return Scope("", domain)
        project = scope_part(key.project, field="key.project")
        await self._require_project(project, domain)
        return Scope(project, domain)


def _resolved(levels: Sequence[Record]) -> idl.Settings:
    return resolved((level, idl.Settings.FromString(record.settings)) for level, record in zip(_LEVELS, levels, strict=False))


def _words(scope: Scope) -> str:
    if scope.project:
        return f"project {scope.project!r}, domain {scope.domain!r}"
    return f"domain {scope.domain!r}" if scope.domain else "every project"
