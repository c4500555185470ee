"""Which nodes a task's pod may run on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flyte
import pytest
from flyteidl2.task import run_pb2
from google.protobuf.wrappers_pb2 import BoolValue

from flyte_unified.plugins.pods.config import pair, toleration
from tests.unit.plugins.contexts import CONTAINER, built, context_of, pod_of, refused, spec, spec_of, task_in

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def terms(found: Mapping[str, Any]) -> list[dict[str, list[str]]]:
    """By label the values, of each alternative."""
    alternatives = found["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    return [{e["key"]: e.get("values", [e["operator"]]) for e in term["matchExpressions"]} for term in alternatives]


def test_an_accelerator_is_found_on_any_provider():
    """By the labels of GKE, of EKS and of NVIDIA's own discovery; nodes that keep others away are tolerated."""
    environment = flyte.TaskEnvironment("ml", image="team/app:1", resources=flyte.Resources(gpu="T4:2", shm="auto"))
    found = pod_of(context_of(spec_of(task_in(environment)))).manifest["spec"]
    (container,) = found["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"] == "2"
    assert "gpu" not in container["resources"]["limits"]
    assert [set(term) for term in terms(found)] == [
        {"nvidia.com/gpu.product"},
        {"cloud.google.com/gke-accelerator"},
        {"k8s.amazonaws.com/accelerator"},
    ]
    assert terms(found)[0]["nvidia.com/gpu.product"] == ["nvidia-tesla-t4", "Tesla-T4"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in found["tolerations"]
    assert found["volumes"] == [{"name": "flyte-shm", "emptyDir": {"medium": "Memory"}}]
    assert container["volumeMounts"] == [{"name": "flyte-shm", "mountPath": "/dev/shm"}]


def test_a_part_of_an_accelerator():
    """Only where a provider labels parts; a whole one is told from them; what the task requires itself stays required."""
    own = {
        "affinity": {
            "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}}
        },
        "containers": [{"name": "main", "image": "team/app:1", "args": ["a0"], "resources": {"limits": {"gpu": 1}}}],
    }
    pod = {"k8sPod": {"podSpec": own}, "config": {"primary_container_name": "main"}}
    gpu = {"device": "nvidia-tesla-a100", "partitionSize": "1g.5gb"}
    found = built(pod | {"extendedResources": {"gpuAccelerator": gpu}})
    assert [set(term) for term in terms(found)] == [
        {"zone", "cloud.google.com/gke-accelerator", "cloud.google.com/gke-gpu-partition-size"},
        {"zone", "k8s.amazonaws.com/accelerator", "k8s.amazonaws.com/gpu-partition-size"},
    ]
    whole = built(pod | {"extendedResources": {"gpuAccelerator": {"device": "nvidia-tesla-a100", "unpartitioned": True}}})
    assert terms(whole)[1]["cloud.google.com/gke-gpu-partition-size"] == ["DoesNotExist"]
    tpu = {"device": "tpu-v5p-slice", "partitionSize": "2x2x1", "deviceClass": "GOOGLE_TPU"}
    asked = {"container": CONTAINER | {"resources": {"limits": [{"name": "GPU", "value": "4"}]}}}
    found = built(asked | {"extendedResources": {"gpuAccelerator": tpu}})
    assert found["containers"][0]["resources"]["limits"]["google.com/tpu"] == "4"
    assert terms(found) == [
        {"cloud.google.com/gke-tpu-accelerator": ["tpu-v5p-slice"], "cloud.google.com/gke-tpu-topology": ["2x2x1"]}
    ]
    gaudi = {"device": "habana-gaudi-dl1", "partitionSize": "half", "deviceClass": "HABANA_GAUDI"}
    assert "no node label tells" in refused(asked | {"extendedResources": {"gpuAccelerator": gaudi}})
    assert "affinity" not in built({"extendedResources": {"gpuAccelerator": gpu}}), "it asks for none"


def test_shared_memory_needs_its_place():
    """What the task's own pod has there already is told, not overwritten."""
    shared = {"extendedResources": {"sharedMemory": {"mountPath": "/dev/shm", "mountName": "flyte-shm", "sizeLimit": "3Gi"}}}
    assert built(shared)["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "3Gi"}
    main = {"name": "main", "image": "i", "args": ["a0"], "volumeMounts": [{"name": "v", "mountPath": "/dev/shm"}]}
    own = {"k8sPod": {"podSpec": {"containers": [main]}, "primaryContainerName": "main"}}
    assert (
        refused(own | shared) == "extended_resources.shared_memory: container 'main' has something mounted at /dev/shm already"
    )
    volume = {
        "k8sPod": {
            "podSpec": {"containers": [{**main, "volumeMounts": []}], "volumes": [{"name": "flyte-shm", "hostPath": {}}]}
        }
    }
    assert "has a volume named 'flyte-shm' already" in refused(volume | shared)
    shared["extendedResources"]["sharedMemory"]["sizeLimit"] = "half"
    assert refused(shared).startswith("extended_resources.shared_memory.size_limit")


@pytest.mark.parametrize(
    ("task", "run", "default", "failures", "expected"),
    [
        (None, None, False, 0, False),
        (None, None, True, 0, True),
        (True, None, False, 0, True),
        (False, None, True, 0, False),
        (False, True, False, 0, True),
        (True, False, True, 0, False),
        (True, None, False, 2, True),
        (True, None, False, 3, False),
    ],
)
def test_nodes_that_may_vanish(task: bool | None, run: bool | None, default: bool, failures: int, expected: bool):
    """The run's word over the task's over the operator's; after enough losses, nodes that stay."""
    described = spec()
    if task is not None:
        described.task_template.metadata.interruptible = task
    run_spec = run_pb2.RunSpec(interruptible=BoolValue(value=run) if run is not None else None)
    context = context_of(described, run_spec=run_spec, attempt=failures + 1, system_failures=failures)
    spot = dict([pair("cloud.example.com/spot=true")])
    found = pod_of(
        context,
        interruptible=default,
        interruptible_selector=spot,
        interruptible_tolerations=(toleration("cloud.example.com/spot=true:NoSchedule"),),
        node_selector={"pool": "tasks"},
    ).manifest["spec"]
    assert found["nodeSelector"] == ({"pool": "tasks"} | spot if expected else {"pool": "tasks"})
    assert ("tolerations" in found) is expected


def test_an_action_may_stay_where_it_is_interrupted():
    """With 0 it never leaves such nodes, however often they are lost."""
    context = context_of(spec(), attempt=9, system_failures=8)
    found = pod_of(context, interruptible=True, interruptible_failures=0, interruptible_selector={"spot": "true"}).manifest[
        "spec"
    ]
    assert found["nodeSelector"] == {"spot": "true"}
