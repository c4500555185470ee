"""flyteidl2.settings.SettingsService (flyteidl2/settings/settings_service.proto)."""

from __future__ import annotations

from flyteidl2.settings import settings_definition_pb2 as idl
from flyteidl2.settings import settings_service_pb2 as service

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.settings_service.service import ScopedSettings
from flyte_unified.settings_service.store import Record


class SettingsHandlers:
    """Levels that nothing is set at are told with version 0."""

    def __init__(self, *, settings: ScopedSettings) -> None:
        self._settings = settings

    async def get_settings(self, message: service.GetSettingsRequest, ctx: CallContext) -> service.GetSettingsResponse:
        settings, own = await self._settings.resolve(message.key)
        record = service.SettingsRecord(key=_key(own, message.key.org), settings=settings, version=own.version)
        return service.GetSettingsResponse(settingsRecord=record)

    async def get_settings_for_edit(
        self, message: service.GetSettingsForEditRequest, ctx: CallContext
    ) -> service.GetSettingsForEditResponse:
        levels = await self._settings.levels(message.key)
        return service.GetSettingsForEditResponse(
            requestedKey=message.key, levels=[_record(level, message.key.org) for level in levels]
        )

    async def create_settings(self, message: service.CreateSettingsRequest, ctx: CallContext) -> service.CreateSettingsResponse:
        _require(message)
        created = await self._settings.create(message.key, message.settings)
        return service.CreateSettingsResponse(settingsRecord=_record(created, message.key.org))

    async def update_settings(self, message: service.UpdateSettingsRequest, ctx: CallContext) -> service.UpdateSettingsResponse:
        _require(message)
        updated = await self._settings.update(message.key, message.settings, version=message.version)
        return service.UpdateSettingsResponse(settingsRecord=_record(updated, message.key.org))


def _require(message: service.CreateSettingsRequest | service.UpdateSettingsRequest) -> None:
    """An empty message would be the settings of everything, all unset."""
    for field in ("key", "settings"):
        if not message.HasField(field):
            raise InvalidArgument(f"{field} is missing")


def _record(record: Record, org: str) -> service.SettingsRecord:
    settings = idl.Settings.FromString(record.settings)
    return service.SettingsRecord(key=_key(record, org), settings=settings, version=record.version)


def _key(record: Record, org: str) -> idl.SettingsKey:
    return idl.SettingsKey(org=org, domain=record.scope.domain, project=record.scope.project)
