"""flyteidl2.org.DomainService (flyteidl2/org/domain_service.proto). A domain's settings are SettingsService's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from flyteidl2.org import domain_definition_pb2
from flyteidl2.org import domain_service_pb2 as idl

from flyte_unified.core.clock import timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.projects.domains import Domains
from flyte_unified.projects.store import Domain


class DomainsHandlers:
    """``users`` names what is in a domain and not in the database."""

    def __init__(self, *, domains: Domains, users: Callable[[str], Awaitable[Sequence[str]]]) -> None:
        self._domains = domains
        self._users = users

    async def list_domains(self, message: idl.ListDomainsRequest, ctx: CallContext) -> idl.ListDomainsResponse:
        return idl.ListDomainsResponse(domains=[_message(each, message.org) for each in await self._domains.all()])

    async def get_domain(self, message: idl.GetDomainRequest, ctx: CallContext) -> idl.GetDomainResponse:
        return idl.GetDomainResponse(domain=_message(await self._domains.get(message.id), message.org))

    async def create_domain(self, message: idl.CreateDomainRequest, ctx: CallContext) -> idl.CreateDomainResponse:
        made = await self._domains.create(message.id, message.friendly_name)
        return idl.CreateDomainResponse(domain=_message(made, message.org))

    async def update_domain(self, message: idl.UpdateDomainRequest, ctx: CallContext) -> idl.UpdateDomainResponse:
        renamed = await self._domains.rename(message.id, message.friendly_name)
        return idl.UpdateDomainResponse(domain=_message(renamed, message.org))

    async def delete_domain(self, message: idl.DeleteDomainRequest, ctx: CallContext) -> idl.DeleteDomainResponse:
        domain = await self._domains.get(message.id)
        await self._domains.delete(domain.id, users=await self._users(domain.id))
        return idl.DeleteDomainResponse()


def _message(domain: Domain, org: str) -> domain_definition_pb2.Domain:
    return domain_definition_pb2.Domain(
        id=domain.id, org=org, friendly_name=domain.name, created_at=timestamp(domain.created_at)
    )
