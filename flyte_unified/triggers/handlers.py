"""flyteidl2.trigger.TriggerService (flyteidl2/trigger/trigger_service.proto)."""

from __future__ import annotations

from flyteidl2.common import identifier_pb2
from flyteidl2.trigger import trigger_definition_pb2
from flyteidl2.trigger import trigger_service_pb2 as idl

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import printable
from flyte_unified.identity.api import Identities
from flyte_unified.ledger.api import TaskId
from flyte_unified.projects.api import Projects
from flyte_unified.tasks.api import Tasks
from flyte_unified.triggers.model import Trigger
from flyte_unified.triggers.service import Triggers, key_of
from flyte_unified.triggers.store import Listed


class TriggersHandlers:
    """The org of a request is echoed and nothing more."""

    def __init__(self, *, triggers: Triggers, tasks: Tasks, projects: Projects, identities: Identities) -> None:
        self._triggers = triggers
        self._tasks = tasks
        self._projects = projects
        self._identities = identities

    async def deploy_trigger(self, message: idl.DeployTriggerRequest, ctx: CallContext) -> idl.DeployTriggerResponse:
        key = key_of(message.name)
        version = printable(message.spec.task_version, field="spec.task_version")
        await self._projects.check(key.project, key.domain)
        try:
            task = await self._tasks.of_task(TaskId(key.project, key.domain, key.task, version))
        except NotFound as error:
            raise NotFound(f"spec.task_version: {error.message}") from error
        found = await self._triggers.deploy(message, task, by=self._identities.of(ctx).subject)
        return idl.DeployTriggerResponse(trigger=self._details(found, message.name.org))

    async def get_trigger_details(
        self, message: idl.GetTriggerDetailsRequest, ctx: CallContext
    ) -> idl.GetTriggerDetailsResponse:
        found = await self._triggers.get(message.name)
        return idl.GetTriggerDetailsResponse(trigger=self._details(found, message.name.org))

    async def get_trigger_revision_details(
        self, message: idl.GetTriggerRevisionDetailsRequest, ctx: CallContext
    ) -> idl.GetTriggerRevisionDetailsResponse:
        found = Listed(await self._triggers.revision(message.id), None)
        return idl.GetTriggerRevisionDetailsResponse(trigger=self._details(found, message.id.name.org))

    async def list_triggers(self, message: idl.ListTriggersRequest, ctx: CallContext) -> idl.ListTriggersResponse:
        found, token = await self._triggers.page(message)
        org = message.org or message.project_id.organization or message.task_id.org or message.task_name.org
        return idl.ListTriggersResponse(triggers=[self._light(each, org) for each in found], token=token)

    async def get_trigger_revision_history(
        self, message: idl.GetTriggerRevisionHistoryRequest, ctx: CallContext
    ) -> idl.GetTriggerRevisionHistoryResponse:
        found, token = await self._triggers.history(message.name, message.request)
        revisions = [
            trigger_definition_pb2.TriggerRevision(
                id=_identifier(each, message.name.org),
                metadata=self._metadata(each),
                status=_status(each, None),
                action=int(each.change),
                created_at=timestamp(each.updated_at),
            )
            for each in found
        ]
        return idl.GetTriggerRevisionHistoryResponse(triggers=revisions, token=token)

    async def update_triggers(self, message: idl.UpdateTriggersRequest, ctx: CallContext) -> idl.UpdateTriggersResponse:
        await self._triggers.update(message.names, active=message.active, by=self._identities.of(ctx).subject)
        return idl.UpdateTriggersResponse()

    async def delete_triggers(self, message: idl.DeleteTriggersRequest, ctx: CallContext) -> idl.DeleteTriggersResponse:
        await self._triggers.delete(message.names, by=self._identities.of(ctx).subject)
        return idl.DeleteTriggersResponse()

    def _details(self, listed: Listed, org: str) -> trigger_definition_pb2.TriggerDetails:
        trigger = listed.trigger
        return trigger_definition_pb2.TriggerDetails(
            id=_identifier(trigger, org),
            metadata=self._metadata(trigger),
            spec=trigger.spec_message(),
            status=_status(trigger, listed.triggered_at),
            automation_spec=trigger.automation_message(),
            description=trigger.description,
        )

    def _light(self, listed: Listed, org: str) -> trigger_definition_pb2.Trigger:
        trigger = listed.trigger
        return trigger_definition_pb2.Trigger(
            id=_identifier(trigger, org),
            metadata=self._metadata(trigger),
            status=_status(trigger, listed.triggered_at),
            active=trigger.active,
            automation_spec=trigger.automation_message(),
        )

    def _metadata(self, trigger: Trigger) -> trigger_definition_pb2.TriggerMetadata:
        return trigger_definition_pb2.TriggerMetadata(
            deployed_by=self._identities.enriched(trigger.deployed_by),
            updated_by=self._identities.enriched(trigger.updated_by),
        )


def _identifier(trigger: Trigger, org: str) -> identifier_pb2.TriggerIdentifier:
    key = trigger.key
    name = identifier_pb2.TriggerName(org=org, project=key.project, domain=key.domain, name=key.name, task_name=key.task)
    return identifier_pb2.TriggerIdentifier(name=name, revision=trigger.revision)


def _status(trigger: Trigger, triggered_at: Micros | None) -> trigger_definition_pb2.TriggerStatus:
    return trigger_definition_pb2.TriggerStatus(
        deployed_at=timestamp(trigger.deployed_at),
        updated_at=timestamp(trigger.updated_at),
        triggered_at=timestamp(triggered_at) if triggered_at is not None else None,
        deleted_at=timestamp(trigger.deleted_at) if trigger.deleted_at is not None else None,
    )
