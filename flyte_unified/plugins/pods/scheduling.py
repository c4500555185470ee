"""Which nodes a pod may and must run on: accelerators, nodes that may vanish, the operator's own selectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyteidl2.core import tasks_pb2
from flyteidl2.task import run_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.quantities import quantity
from flyte_unified.plugins.api import TaskContext
from flyte_unified.plugins.pods.config import Accelerator, PodConfig, Selector
from flyte_unified.plugins.pods.merge import added

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_SHM, _SHM_PATH = "flyte-shm", "/dev/shm"


def interruptible(context: TaskContext, config: PodConfig) -> bool:
    """Whether the attempt may run where it can be interrupted: the run's word, else the task's, else the operator's.

    After so many system failures as the operator allows, an action goes on where it isn't.
    """
    metadata = context.spec.task_template.metadata
    if context.run_spec.HasField("interruptible"):
        wanted = context.run_spec.interruptible.value
    elif metadata.HasField("interruptible"):
        wanted = metadata.interruptible
    else:
        wanted = config.interruptible
    return wanted and not 0 < config.interruptible_failures <= context.action.system_failures


def place(spec: dict[str, Any], *, config: PodConfig, may_vanish: bool) -> None:
    """The operator's selectors and tolerations, below the task's own."""
    selector = dict(config.node_selector) | dict(spec.get("nodeSelector") or {})
    tolerations = [*(spec.get("tolerations") or ()), *config.tolerations]
    if may_vanish:
        selector |= config.interruptible_selector
        tolerations += config.interruptible_tolerations
    if selector:
        spec["nodeSelector"] = selector
    if tolerations:
        spec["tolerations"] = added(tolerations, ())


def extended(asked: tasks_pb2.ExtendedResources, given: run_pb2.TaskResourceDefaults) -> tasks_pb2.ExtendedResources:
    """What a task asks for; the run's accelerator where it names none."""
    if asked.gpu_accelerator.ByteSize() or not given.HasField("default_accelerator"):
        return asked
    completed = tasks_pb2.ExtendedResources()
    completed.CopyFrom(asked)
    completed.gpu_accelerator.CopyFrom(given.default_accelerator)
    return completed


def accelerator(extended: tasks_pb2.ExtendedResources, config: PodConfig) -> Accelerator:
    """What ``gpu`` means for a task. Raises InvalidArgument for a class that the operator has not."""
    kind = extended.gpu_accelerator.device_class
    if (found := config.accelerators.get(kind)) is None:
        raise InvalidArgument(f"extended_resources.gpu_accelerator.device_class: there are no accelerators of class {kind}")
    return found


def accelerate(spec: dict[str, Any], extended: tasks_pb2.ExtendedResources, *, config: PodConfig) -> None:
    """Nodes that have the task's accelerator; nothing for a pod that asks for none."""
    found = accelerator(extended, config)
    if not any(found.resource in (c.get("resources") or {}).get("limits", {}) for c in spec["containers"]):
        return
    tolerations: list[Mapping[str, Any]] = [{"key": found.resource, "operator": "Exists", "effect": "NoSchedule"}]
    asked = extended.gpu_accelerator
    if asked.device:
        values = list(dict.fromkeys((asked.device, *config.devices.get(asked.device.lower(), ()))))
        terms = [term for selector in found.selectors if (term := _requirements(selector, values, asked))]
        if not terms:
            raise InvalidArgument(f"extended_resources.gpu_accelerator: no node label tells {asked.device!r} or its partitions")
        _require(spec, terms)
        tolerations += [_tolerates(selector.device, asked.device) for selector in found.selectors]
        if asked.partition_size:
            tolerations += [_tolerates(s.partition, asked.partition_size) for s in found.selectors if s.partition]
    spec["tolerations"] = added(spec.get("tolerations") or (), tolerations)


def share_memory(spec: dict[str, Any], container: dict[str, Any], shared: tasks_pb2.SharedMemory) -> None:
    """A volume in memory, larger than the 64 MB that a container has at /dev/shm. Raises InvalidArgument."""
    name, path = shared.mount_name or _SHM, shared.mount_path or _SHM_PATH
    empty: dict[str, Any] = {"medium": "Memory"}
    if shared.size_limit:
        quantity(shared.size_limit, field="extended_resources.shared_memory.size_limit")
        empty["sizeLimit"] = shared.size_limit
    mount(spec, container, {"name": name, "emptyDir": empty}, path, field="extended_resources.shared_memory")


def mount(
    spec: dict[str, Any],
    container: dict[str, Any],
    volume: Mapping[str, Any],
    path: str,
    *,
    field: str,
    read_only: bool = False,
) -> None:
    """One volume of ours in one container; a volume that is there already as we would make it is mounted again.

    Raises InvalidArgument naming ``field`` where the task's own pod has something else there.
    """
    volumes, mounts = list(spec.get("volumes") or ()), list(container.get("volumeMounts") or ())
    same = next((known for known in volumes if known.get("name") == volume["name"]), None)
    if same is not None and same != volume:
        raise InvalidArgument(f"{field}: the pod has a volume named {volume['name']!r} already")
    if any(known.get("mountPath") == path for known in mounts):
        raise InvalidArgument(f"{field}: container {container.get('name')!r} has something mounted at {path} already")
    spec["volumes"] = volumes if same is not None else [*volumes, volume]
    container["volumeMounts"] = [
        *mounts,
        {"name": volume["name"], "mountPath": path} | ({"readOnly": True} if read_only else {}),
    ]


def _requirements(selector: Selector, values: Sequence[str], asked: tasks_pb2.GPUAccelerator) -> list[dict[str, Any]]:
    """What a node of this provider has to be labelled with; nothing where its labels can't tell."""
    required: list[dict[str, Any]] = [{"key": selector.device, "operator": "In", "values": list(values)}]
    if asked.partition_size:
        if not selector.partition:
            return []
        required.append({"key": selector.partition, "operator": "In", "values": [asked.partition_size]})
    elif asked.unpartitioned and selector.partition:
        required.append({"key": selector.partition, "operator": "DoesNotExist"})
    return required


def _require(spec: dict[str, Any], terms: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Any of ``terms``, beside what the pod requires already: of both lists, a node has to match one."""
    affinity = dict(spec.get("affinity") or {})
    node = dict(affinity.get("nodeAffinity") or {})
    before = (node.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    node[_REQUIRED] = {
        "nodeSelectorTerms": [
            {**known, "matchExpressions": [*known.get("matchExpressions", ()), *term]} for known in before for term in terms
        ]
    }
    spec["affinity"] = affinity | {"nodeAffinity": node}


def _tolerates(label: str, value: str) -> dict[str, str]:
    return {"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"}
