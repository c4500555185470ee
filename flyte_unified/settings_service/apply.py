"""What settings mean for a run: they stand below all that the run itself says, and become part of it when it is created.

A run that has begun goes on as it began, whatever is set meanwhile.
"""

from __future__ import annotations

from typing import Any

from flyteidl2.core import tasks_pb2
from flyteidl2.settings import settings_definition_pb2 as idl
from flyteidl2.task import run_pb2

from flyte_unified.plugins.container import MIRRORED
from flyte_unified.settings_service.resolve import VALUE

_RESOURCES = {
    "cpu": tasks_pb2.Resources.CPU,
    "gpu": tasks_pb2.Resources.GPU,
    "memory": tasks_pb2.Resources.MEMORY,
    "storage": tasks_pb2.Resources.EPHEMERAL_STORAGE,
}


def complete(spec: run_pb2.RunSpec, settings: idl.Settings) -> None:
    """Gives ``spec`` what it does not say."""
    spec.ClearField("default_settings")  # the settings' alone: no run lifts the most that it may have, nor takes over another's
    if not settings.ByteSize():  # nothing is set, as with most
        return
    spec.queue = spec.queue or _text(settings.run.default_queue)
    if not spec.max_action_concurrency and settings.run.max_action_concurrency.state == VALUE:
        spec.max_action_concurrency = settings.run.max_action_concurrency.int_value
    spec.run_base_dir = spec.run_base_dir or _text(settings.run.run_base_dir)
    if not spec.raw_data_storage.raw_data_prefix and (prefix := _text(settings.storage.raw_data_path)):
        spec.raw_data_storage.raw_data_prefix = prefix
    if not spec.security_context.run_as.k8s_service_account and (account := _text(settings.security.service_account)):
        spec.security_context.run_as.k8s_service_account = account
    for name, value in _entries(settings.labels).items():
        if name not in spec.labels.values:
            spec.labels.values[name] = value
    mirror = settings.task_resource.mirror_limits_request
    mirrored = {MIRRORED: "true"} if mirror.state == VALUE and mirror.bool_value else {}
    for name, value in (_entries(settings.annotations) | mirrored).items():
        if name not in spec.annotations.values:
            spec.annotations.values[name] = value
    said = {entry.key for entry in spec.envs.values}
    for name, value in sorted(_entries(settings.environment_variables).items()):
        if name not in said:
            spec.envs.values.add(key=name, value=value)
    _complete_defaults(spec, settings)


def _complete_defaults(spec: run_pb2.RunSpec, settings: idl.Settings) -> None:
    """For tasks that say nothing themselves: what of the run's own IDL has a place for it."""
    resources = settings.task_resource
    defaults = run_pb2.DefaultSettings(
        pod_template_name=_text(settings.pod_template_name),
        task_resource_defaults=run_pb2.TaskResourceDefaults(requests=_amounts(resources.min), max=_amounts(resources.max)),
    )
    if resources.default_accelerator.state == VALUE:
        defaults.task_resource_defaults.default_accelerator.CopyFrom(resources.default_accelerator.accelerator_value)
    if not defaults.task_resource_defaults.ByteSize():
        defaults.ClearField("task_resource_defaults")
    if defaults.ByteSize():
        spec.default_settings.CopyFrom(defaults)


def _text(setting: idl.StringSetting) -> str:
    return str(setting.string_value) if setting.state == VALUE else ""


def _entries(setting: idl.StringMapSetting) -> dict[str, str]:
    return dict(setting.map_value.entries) if setting.state == VALUE else {}


def _amounts(bound: idl.TaskResourceDefaults) -> list[Any]:
    found = ((name, getattr(bound, field)) for field, name in _RESOURCES.items())
    return [
        tasks_pb2.Resources.ResourceEntry(name=name, value=setting.quantity_value)
        for name, setting in found
        if setting.state == VALUE
    ]
