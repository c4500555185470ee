"""Which domains there are: every project has them all.

The settings name those of the beginning. What was deleted stays so, though they may still name it; what they name anew is made
at the next start, as no command of the SDK makes a domain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flyte_unified.core.clock import Clock, Micros
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.db.api import Database, Notice
from flyte_unified.projects import store
from flyte_unified.projects.store import Domain

_TOPIC = "domain"
_ID = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MAX_ID = 63
_MAX_NAME = 255


class Domains:
    """One for a server. ``system`` is the project that the system itself has things in, whatever the domain."""

    def __init__(self, *, database: Database, clock: Clock, seed: Sequence[str], system: str) -> None:
        self._database = database
        self._clock = clock
        self._seed = seed
        self._system = system
        self._known: tuple[Domain, ...] | None = None
        self._changes = 0

    async def start(self) -> None:
        """Creates those of the seed that never were."""
        now = self._clock.now()
        for index, name in enumerate(dict.fromkeys(self._seed)):
            new = Domain(id=name, name=name, created_at=Micros(now + index), updated_at=now)
            await self._database.write(lambda new=new: store.add_domain(new))  # type: ignore[misc]  # mypy: its default
        self._forget()

    async def all(self) -> tuple[Domain, ...]:
        """In the order in which they were made."""
        if self._known is not None:
            return self._known
        changes = self._changes
        found = await self._database.read(store.all_domains)
        if changes == self._changes:  # else what was read may be over already
            self._known = found
        return found

    async def check(self, domain: str, field: str = "domain") -> None:
        """Raises NotFound for one that is not there, telling the ``field`` that names it."""
        known = [each.id for each in await self.all()]
        if domain not in known:  # word of one that another server has made may be on its way
            self._forget()
            known = [each.id for each in await self.all()]
        if domain not in known:
            raise NotFound(f"{field}: there is no domain {domain!r}; known are {', '.join(known)}")

    async def get(self, domain: str) -> Domain:
        """Raises NotFound; InvalidArgument for what can't be one."""
        await self.check(_checked(domain), "id")
        return next(each for each in await self.all() if each.id == domain)

    async def create(self, domain: str, name: str) -> Domain:
        """Raises AlreadyExists; InvalidArgument naming the field."""
        now = self._clock.now()
        new = Domain(id=_checked(domain), name=_name(name) or domain, created_at=now, updated_at=now)
        notice = Notice(_TOPIC, new.id)
        made = await self._database.write(
            lambda: store.revive_domain(new),
            then=lambda _: self._forget(),
            changed=lambda made: [notice] if made else [],
        )
        if not made:
            raise AlreadyExists(f"id: there is a domain {new.id!r} already")
        return new

    async def rename(self, domain: str, name: str) -> Domain:
        """Without a name it stays as it is. Raises NotFound; InvalidArgument naming the field."""
        _checked(domain)
        if _name(name):
            notice = Notice(_TOPIC, domain)
            await self._database.write(
                lambda: store.rename_domain(domain, name, at=self._clock.now()),
                then=lambda _: self._forget(),
                changed=lambda done: [notice] if done else [],
            )
        return await self.get(domain)

    async def delete(self, domain: str, *, users: Sequence[str] = ()) -> None:
        """``users``: what is in it beside the database. Raises NotFound; FailedPrecondition naming what is in it."""
        if [each.id for each in await self.all()] == [_checked(domain)]:
            raise FailedPrecondition(f"domain {domain!r} is the last one, and every run is in a domain")
        await self.check(domain, "id")
        if not users:
            notice = Notice(_TOPIC, domain)
            found = await self._database.write(
                lambda: store.remove_domain(domain, system=self._system, at=self._clock.now()),
                then=lambda _: self._forget(),
                changed=lambda found: [] if found else [notice],
            )
            users = [f"{what} of project {project!r}" if project else what for what, project in found.items()]
        if users:
            raise FailedPrecondition(f"domain {domain!r} is in use: there are {', '.join(users)} in it")

    def noticed(self, notice: Notice | None) -> None:
        """What changed on another replica; None: anything may have."""
        if notice is None or notice.topic == _TOPIC:
            self._forget()

    def _forget(self) -> None:
        self._known = None
        self._changes += 1


def _checked(domain: str) -> str:
    if not domain:
        raise InvalidArgument("id is empty")
    if len(domain) > _MAX_ID or not _ID.fullmatch(domain):
        raise InvalidArgument(
            f"id: {domain[:64]!r} is no domain: lower-case letters, digits and '-', none of it at an end, {_MAX_ID} at most"
        )
    return domain


def _name(name: str) -> str:
    if len(name) > _MAX_NAME or "\0" in name:
        raise InvalidArgument(f"friendly_name has {len(name)} characters; at most {_MAX_NAME} are allowed, and no NUL")
    return name
