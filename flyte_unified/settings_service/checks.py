"""What may be set: checked when it is set, so that no run fails over it later."""

from __future__ import annotations

from flyteidl2.settings import settings_definition_pb2 as idl

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.quantities import quantity
from flyte_unified.core.queues import Queues
from flyte_unified.plugins.pods import metadata
from flyte_unified.plugins.pods.config import is_object_name
from flyte_unified.settings_service.resolve import VALUE, leaves

_MOST = (1 << 32) - 1
"""What a run's spec has room for"""
_OBJECTS = frozenset({"security.service_account", "pod_template_name"})


def stored(settings: idl.Settings, queues: Queues) -> bytes:
    """What is kept of ``settings``: those that are set or unset. Raises InvalidArgument naming the setting that is wrong."""
    kept = idl.Settings()
    kept.CopyFrom(settings)
    for name, setting in leaves(kept):
        setting.ClearField("scope_level")  # an answer's, not a request's
        if setting.state == VALUE:
            _check(name, setting)
        elif setting.state not in idl.SettingState.values():
            raise InvalidArgument(f"settings.{name}.state: there is no state {setting.state}")
    if settings.run.default_queue.state == VALUE:
        queues.check(settings.run.default_queue.string_value, field="settings.run.default_queue")
    return bytes(kept.SerializeToString(deterministic=True))


def _check(name: str, setting: object) -> None:
    field = f"settings.{name}"
    match setting:
        case idl.QuantitySetting():
            _check_amount(quantity(setting.quantity_value, field=field), field)
        case idl.Int64Setting() if not 0 <= setting.int_value <= _MOST:
            raise InvalidArgument(f"{field} is {setting.int_value}; 0 or more are expected, and at most {_MOST}")
        case idl.StringSetting() if name in _OBJECTS and not is_object_name(setting.string_value):
            raise InvalidArgument(f"{field}: {setting.string_value[:128]!r} is no name of an object in Kubernetes")
        case idl.StringSetting() if name == "app.app_dns_strategy" and setting.string_value != "shared":
            raise InvalidArgument(f"{field}: {setting.string_value[:128]!r} is none of the ways to name apps here: 'shared'")
        case idl.StringMapSetting() if name == "labels":
            metadata.labels((field, setting.map_value.entries))
        case idl.StringMapSetting() if name == "annotations":
            metadata.notes((field, setting.map_value.entries))
        case idl.StringMapSetting():
            for key, value in setting.map_value.entries.items():
                if not key or "=" in key or "\0" in key + value:
                    raise InvalidArgument(f"{field}: {key[:128]!r} can be no environment variable")


def _check_amount(amount: float, field: str) -> None:
    if field.endswith(".gpu"):
        if not amount.is_integer():
            raise InvalidArgument(f"{field} is {amount:g}; a whole number of devices is expected")
    elif not amount and field.startswith("settings.task_resource.max."):
        raise InvalidArgument(f"{field} is 0, and no task can do with nothing; ~unset is for no bound")
