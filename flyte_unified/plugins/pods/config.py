"""How pods are built and read, where that is the operator's to say.

Nothing here is looked up in a cluster: templates and secrets come in as functions over what the manager has at hand.
Times are in seconds, quantities as Kubernetes writes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flyteidl2.core import tasks_pb2

from flyte_unified.core.errors import InvalidArgument

Json = Mapping[str, Any]

SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_TOLERATION = re.compile(r"(?P<key>[^=:]+)(=(?P<value>[^:]*))?(:(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?")


class SecretRef(NamedTuple):
    """One entry of a Secret object in the pod's namespace."""

    name: str
    key: str


class Selector(NamedTuple):
    """The labels by which a provider marks its accelerators. ``partition`` may be empty: it marks no parts of a device."""

    device: str
    partition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One class of devices: what a container asks for, and where such nodes are found."""

    resource: str
    selectors: tuple[Selector, ...] = ()
    """A node matches by any of them."""


NVIDIA = Accelerator(
    resource="nvidia.com/gpu",
    selectors=(
        Selector("nvidia.com/gpu.product"),
        Selector("cloud.google.com/gke-accelerator", "cloud.google.com/gke-gpu-partition-size"),
        Selector("k8s.amazonaws.com/accelerator", "k8s.amazonaws.com/gpu-partition-size"),
    ),
)
TPU = Accelerator(
    resource="google.com/tpu",
    selectors=(Selector("cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology"),),
)

ACCELERATORS: Mapping[int, Accelerator] = {
    tasks_pb2.GPUAccelerator.NVIDIA_GPU: NVIDIA,
    tasks_pb2.GPUAccelerator.GOOGLE_TPU: TPU,
    tasks_pb2.GPUAccelerator.AMAZON_NEURON: Accelerator(
        resource="aws.amazon.com/neuron", selectors=(Selector("k8s.amazonaws.com/accelerator"),)
    ),
    tasks_pb2.GPUAccelerator.AMD_GPU: Accelerator(
        resource="amd.com/gpu", selectors=(Selector("amd.com/gpu.product-name"), Selector("k8s.amazonaws.com/accelerator"))
    ),
    tasks_pb2.GPUAccelerator.HABANA_GAUDI: Accelerator(
        resource="habana.ai/gaudi", selectors=(Selector("k8s.amazonaws.com/accelerator"),)
    ),
}
"""By the numbers of flyteidl2.core.GPUAccelerator.DeviceClass."""

DEVICES: Mapping[str, tuple[str, ...]] = {
    "nvidia-a10": ("NVIDIA-A10",),
    "nvidia-a10g": ("NVIDIA-A10G",),
    "nvidia-a100-80gb": ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"),
    "nvidia-h100": ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "nvidia-h100-80gb"),
    "nvidia-h200": ("NVIDIA-H200", "nvidia-h200-141gb"),
    "nvidia-l4": ("NVIDIA-L4",),
    "nvidia-l40s": ("NVIDIA-L40S",),
    "nvidia-tesla-a100": ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"),
    "nvidia-tesla-h100": ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "nvidia-h100-80gb"),
    "nvidia-tesla-p100": ("Tesla-P100-PCIE-16GB", "Tesla-P100-SXM2-16GB"),
    "nvidia-tesla-t4": ("Tesla-T4",),
    "nvidia-tesla-v100": ("Tesla-V100-SXM2-16GB", "Tesla-V100-SXM2-32GB", "Tesla-V100-PCIE-16GB"),
}
"""What NVIDIA's feature discovery (and newer GKE) call the devices that the SDK names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long trouble may last that may still pass. Seconds; 0 for ``pending``: for ever."""

    image_pull: float = 180.0
    create_container: float = 180.0
    pending: float = 0.0
    """From a pod's creation to its primary container's start."""
    lost: float = 120.0
    """How long after the end of its grace a deleted pod may be without a word from its node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSide:
    """The containers that fetch inputs and store outputs beside an image that knows nothing of Flyte."""

    image: str = ""
    """One that has ``flyte-unified``; empty: such tasks are refused."""
    command: tuple[str, ...] = ("flyte-unified", "data")
    cpu: str = "500m"
    memory: str = "512Mi"
    input_path: str = "/var/flyte/inputs"
    """Where inputs are for a task that doesn't say; Flyte's defaults."""
    output_path: str = "/var/flyte/outputs"
    timeout: float = 3600.0
    """How long storing outputs may take."""


def no_template(namespace: str, name: str) -> None:
    """A cluster without PodTemplates."""


def default_secret(project: str, domain: str, group: str, key: str) -> SecretRef:
    """``group`` is a Secret object's name and ``key`` its entry; without group, the object that ``secret_name`` names."""
    return SecretRef(group, key) if group else SecretRef(secret_name(project, domain, key), SECRET_ENTRY)


SECRET_ENTRY = "value"
"""The one entry of a Secret object that holds one value of Flyte's."""


def secret_name(project: str, domain: str, key: str) -> str:
    """The name of the Secret object for one value; empty ``domain`` or ``project``: of a wider scope."""
    return f"flyte-secret-{hashlib.sha256('/'.join((project, domain, key)).encode()).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodConfig:
    """All that ``Pods`` needs beside the attempt."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Of every task's containers, below what task and run say."""
    store: Mapping[str, str] = field(default_factory=dict, repr=False)
    """How the store is reached (FLYTE_AWS_*), below that. A container whose data others move for it doesn't get it."""
    store_secret: str = ""
    """A Secret object in the pods' namespace whose entries are more of such variables: the keys, as no pod should show them."""
    templates: Callable[[str, str], Json | None] = no_template
    """From namespace and name to a PodTemplate object as JSON."""
    default_template: str = ""
    """The PodTemplate of tasks that name none; passed over where it doesn't exist."""
    template_namespace: str = ""
    """Where templates are looked for that are not in the pod's own namespace."""
    secrets: Callable[[str, str, str, str], SecretRef] = default_secret
    """From project, domain, group and key to where the value is."""
    cpu: str = "1"
    memory: str = "1Gi"
    """What a task asks for that says nothing."""
    accelerators: Mapping[int, Accelerator] = field(default_factory=lambda: ACCELERATORS)
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: DEVICES)
    """Other values by which a device may be labelled."""
    interruptible: bool = False
    """Of tasks and runs that say nothing."""
    interruptible_failures: int = 3
    """System failures after which an interruptible action goes on where it isn't interrupted. 0: it stays where it may be."""
    interruptible_selector: Mapping[str, str] = field(default_factory=dict)
    interruptible_tolerations: tuple[Json, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Json, ...] = ()
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=lambda: {SAFE_TO_EVICT: "false"})
    pod_security: Json = field(default_factory=dict)
    """The pod's securityContext, where neither task nor template has one."""
    container_security: Json = field(default_factory=dict)
    """The primary container's, the same."""
    grace: int | None = None
    """terminationGracePeriodSeconds of pods that don't say."""
    data: DataSide = DataSide()


def toleration(text: str) -> dict[str, str]:
    """``key=value:Effect`` as ``kubectl taint`` writes it; value and effect may be left out. Raises InvalidArgument."""
    match = _TOLERATION.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"toleration {text!r}: write key=value:NoSchedule, key:NoExecute or key")
    value = {"operator": "Exists"} if match["value"] is None else {"operator": "Equal", "value": match["value"]}
    return {"key": match["key"], **value} | ({"effect": match["effect"]} if match["effect"] else {})


def pair(text: str) -> tuple[str, str]:
    """``key=value``. Raises InvalidArgument."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InvalidArgument(f"{text!r}: write key=value")
    return key, value


def is_object_name(text: str) -> bool:
    """Whether a Secret or a ServiceAccount may be called so (RFC 1123 subdomain)."""
    return _NAME.fullmatch(text) is not None
