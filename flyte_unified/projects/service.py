"""Which projects there are, and whether one may be used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from flyteidl2.common import list_pb2
from flyteidl2.project import project_service_pb2 as idl

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.core.ids import scope_part
from flyte_unified.core.paging import Order, listing
from flyte_unified.db.api import Database, Notice
from flyte_unified.projects import filters, store
from flyte_unified.projects.domains import Domains
from flyte_unified.projects.store import Project, State

SYSTEM = "system"
"""Where tasks of the system itself live: the SDK looks there for the one that builds images."""

_MAX_LIMIT = 1000
_TOPIC = "project"


class Projects:
    """One for a server. ``domains`` and ``seed`` (projects) are what is there from the start."""

    def __init__(self, *, database: Database, clock: Clock, domains: Sequence[str], seed: Sequence[str] = ()) -> None:
        self._database = database
        self._clock = clock
        self._seed = seed
        self._states: dict[str, State] = {}
        self._changes = 0
        self.domains = Domains(database=database, clock=clock, seed=domains, system=SYSTEM)

    async def start(self) -> None:
        """Creates the projects of the seed, and the system's own, and the domains. Those that exist stay as they are."""
        await self.domains.start()
        for project in dict.fromkeys((*self._seed, SYSTEM)):
            state = State.SYSTEM_GENERATED if project == SYSTEM else State.ACTIVE
            new = self._project(idl.Project(id=project, state=state.value))
            await self._database.write(partial(store.add, new))

    async def check(self, project: str, domain: str) -> None:
        """Passes when work may start there.

        Raises NotFound for an unknown project or domain, FailedPrecondition for an archived project.
        """
        await self.domains.check(domain)
        state = self._states.get(project)
        if state is None:
            changes = self._changes
            state = (await self.get(project)).state
            if changes == self._changes:  # else what was read may be over already
                self._states[project] = state
        if state.archived:
            mend = f"`flyte update project {project} --unarchive` brings it back"
            raise FailedPrecondition(f"project {project!r} is archived; {mend}")

    async def create(self, wanted: idl.Project) -> None:
        """Raises AlreadyExists; InvalidArgument naming the field."""
        new = self._project(wanted)
        if not await self._database.write(lambda: store.add(new)):
            raise AlreadyExists(f"project.id: there is a project {new.id!r} already")

    async def update(self, wanted: idl.Project) -> None:
        """Replaces all of it but the domains. Raises NotFound; InvalidArgument naming the field."""
        new = self._project(wanted)

        notice = Notice(_TOPIC, new.id)
        if not await self._database.write(
            lambda: store.change(new), then=lambda _: self.noticed(notice), changed=lambda found: [notice] if found else []
        ):
            raise _unknown(new.id)

    def noticed(self, notice: Notice | None) -> None:
        """What changed, here or on another replica; None: anything may have."""
        self.domains.noticed(notice)
        if notice is None:
            self._states.clear()
        elif notice.topic == _TOPIC:
            self._states.pop(notice.key, None)
        self._changes += 1

    async def get(self, project: str) -> Project:
        """Raises NotFound."""
        found = await self._database.read(lambda: store.get(project))
        if found is None:
            raise _unknown(project)
        return found

    async def page(self, *, limit: int, token: str, wanted: str, sort: list_pb2.Sort) -> tuple[list[Project], str]:
        """One page of the list, and the token of the next. ``wanted`` are filters; without any, archived ones are hidden.

        Raises InvalidArgument naming the field.
        """
        request = list_pb2.ListRequest(
            limit=limit or _MAX_LIMIT, token=token, filters=filters.parse(wanted) or _NOT_ARCHIVED, sort_by=sort
        )
        asked = listing(request, store.KIND, default=[Order("created_at")], key=["id"], max_limit=_MAX_LIMIT)
        return await self._database.read(lambda: store.page(asked))

    def _project(self, wanted: idl.Project) -> Project:
        now = self._clock.now()
        try:
            state = State(wanted.state)
        except ValueError:
            raise InvalidArgument(f"project.state: there is no state {wanted.state}") from None
        return Project(
            id=scope_part(wanted.id, field="project.id"),
            name=wanted.name or wanted.id,
            description=wanted.description,
            labels=dict(wanted.labels.values),
            state=state,
            created_at=now,
            updated_at=now,
        )


_NOT_ARCHIVED = [
    list_pb2.Filter(function=list_pb2.Filter.VALUE_NOT_IN, field="state", values=[str(state.value) for state in store.ARCHIVED])
]


def _unknown(project: str) -> NotFound:
    return NotFound(f"there is no project {project!r}; `flyte create project` makes one")
