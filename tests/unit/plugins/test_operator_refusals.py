"""Tasks that can't become operators' resources."""

from __future__ import annotations

import pytest
from flyteidl2.task import task_definition_pb2

from tests.unit.plugins.operator_tasks import SPARK, ray, refused, task


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (task("spark", {}), "mainApplicationFile and mainClass"),
        (task("spark", SPARK | {"sparkConf": {"spark.executor.instances": "many"}}), "sparkConf[spark.executor.instances]"),
        (task("ray", ray(), container={"image": "team/app:1"}), "needs a command"),
        (task("ray", {"rayCluster": {"workerGroupSpec": [{"replicas": 1}]}}), "workerGroupSpec[0].groupName"),
        (
            task("ray", {"rayCluster": {"workerGroupSpec": [{"groupName": "a"}, {"groupName": "a"}]}}),
            "workerGroupSpec[1].groupName",
        ),
        (
            task("ray", {"rayCluster": {"workerGroupSpec": [{"groupName": "a", "replicas": -1}]}}),
            "workerGroupSpec[0].replicas is -1",
        ),
        (task("ray", {"runtimeEnv": "???"}), "custom.runtimeEnv"),
        (task("ray", {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": -5}), "ttlSecondsAfterFinished"),
        (
            task("ray", {"rayCluster": {"headGroupSpec": {"k8sPod": {"podSpec": {"containers": [{"image": "x"}]}}}}}),
            "headGroupSpec.k8sPod.pod_spec.containers",
        ),
        (
            task("ray", {"rayCluster": {"headGroupSpec": {"k8sPod": {"podSpec": {"containers": [{"name": ["x"]}]}}}}}),
            "headGroupSpec.k8sPod.pod_spec.containers",
        ),
        (
            task("ray", {"rayCluster": {"headGroupSpec": {"k8sPod": {"podSpec": {"nodeSelector": "all"}}}}}),
            "a pod of the task",
        ),
        (task("dask", {"workers": {"numberOfWorkers": -1}}), "numberOfWorkers"),
        (
            task("dask", {"workers": {"resources": {"limits": [{"name": "CPU", "value": "lots"}]}}}),
            "resources.limits.cpu",
        ),
        (task("pytorch", {}), "custom.workers is 0"),
        (task("pytorch", {"workers": "two"}), "workers"),
        (task("pytorch", {}, taskTypeVersion=1), "custom.workerReplicas.replicas is 0"),
        (task("pytorch", {"workers": 1}, taskTypeVersion=2), "task_type_version"),
        (task("pytorch", {"workers": 1, "elasticConfig": {"minReplicas": 2, "maxReplicas": 4}}), "custom.elasticConfig"),
        (
            task("pytorch", {"workerReplicas": {"replicas": 1}, "runPolicy": {"backoffLimit": -1}}, taskTypeVersion=1),
            "custom.runPolicy.backoffLimit",
        ),
        (task("mpi", {"numWorkers": 0}), "custom.numWorkers"),
        (task("mpi", {"numWorkers": 1}, config={"worker_spec_command": "a 'b"}), "config.worker_spec_command"),
        (task("tensorflow", {"chiefReplicas": 1}), "custom.workers"),
        (task("tensorflow", {"workers": 1, "psReplicas": -1}), "custom.psReplicas"),
        (task("clustered-task", {}), "custom.replicas is 0"),
        (task("clustered-task", {"replicas": 1}), "custom.nprocPerNode is 0"),
        (task("clustered-task", {"replicas": 200_000, "nprocPerNode": 1}), "at most 100000"),
        (task("clustered-task", {"replicas": 1, "nprocPerNode": 1, "interconnect": "EFA"}), "custom.interconnect"),
        (
            task("clustered-task", {"replicas": 1, "nprocPerNode": 1, "failurePolicy": {"maxRestarts": -1}}),
            "custom.failurePolicy.maxRestarts",
        ),
        (task("clustered-task", {"replicas": 1, "nprocPerNode": 1, "ttlSecondsAfterFinished": 4_000_000_000}), "ttlSeconds"),
        (task("dask", {}, container={"args": ["a0"]}), "no image"),
        (task("dask", {}, metadata={"podTemplateName": "x"}, k8sPod={"podSpec": {}}), "primary_container_name"),
    ],
)
def test_a_task_that_cannot_become_a_resource(found: task_definition_pb2.TaskSpec, says: str):
    """Is refused, and its author is told which field is wrong."""
    assert says in refused(found)
