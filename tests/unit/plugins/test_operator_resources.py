"""Tasks as operators' resources: what of the task arrives where in them."""

from __future__ import annotations

import base64
import json
from typing import Any

import flyte
import pytest
from flyte.clustered import ClusteredTaskEnvironment, ClusterFailurePolicy, TorchRun
from flyteidl2.plugins import dask_pb2, spark_pb2
from flyteidl2.plugins.kubeflow import common_pb2, pytorch_pb2
from flyteidl2.task import task_definition_pb2
from google.protobuf import json_format

from flyte_unified.plugins.operators.config import OperatorConfig
from tests.unit.plugins.contexts import CONTAINER, env_of, spec_of, task_in
from tests.unit.plugins.operator_tasks import COMMAND, SPARK, built, main, ray, resource_of, task, tolerates


def test_a_spark_application():
    """The entrypoint with the task's command as arguments; Spark's own configuration over the operator's."""
    conf = {"spark.executor.instances": "3", "spark.executor.cores": "2", "spark.driver.memory": "2g"}
    job = spark_pb2.SparkJob(**SPARK, sparkConf=conf, hadoopConf={"fs.x": "y"})
    made = resource_of(task("spark", job), OperatorConfig(spark_conf={"spark.ui.port": "4041", "spark.driver.memory": "1g"}))
    found = made.manifest["spec"]
    assert (made.manifest["apiVersion"], made.manifest["kind"], made.plural) == (
        "sparkoperator.k8s.io/v1beta2",
        "SparkApplication",
        "sparkapplications",
    )
    assert (found["type"], found["mode"], found["pythonVersion"]) == ("Python", "cluster", "3")
    assert (found["mainApplicationFile"], found["arguments"]) == (SPARK["mainApplicationFile"], COMMAND)
    assert (found["image"], found["restartPolicy"]) == ("team/app:1", {"type": "Never"})
    assert (found["driver"]["memory"], found["executor"]["instances"], found["executor"]["cores"]) == ("2g", 3, 2)
    assert found["hadoopConf"] == {"fs.x": "y"}
    assert found["sparkConf"] == conf | {
        "spark.ui.port": "4041",
        "spark.pyspark.python": SPARK["executorPath"],
        "spark.pyspark.driver.python": SPARK["executorPath"],
        "spark.kubernetes.executor.limit.cores": "2",
        "spark.kubernetes.driver.podTemplateContainerName": "spark-kubernetes-driver",
        "spark.kubernetes.executor.podTemplateContainerName": "spark-kubernetes-executor",
    }
    assert made.pod_labels("job") == {"sparkoperator.k8s.io/app-name": "job", "spark-role": "driver"}
    assert made.container == "spark-kubernetes-driver"


def test_sparks_pods():
    """Have the task's environment and no command; the driver never stands where it may be interrupted."""
    job = spark_pb2.SparkJob(**SPARK)
    job.executorPod.metadata.labels["tier"] = "batch"
    job.executorPod.primary_container_name = "main"
    own = {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": 1}}}], "nodeSelector": {"disk": "ssd"}}
    job.executorPod.pod_spec.update(own)
    found = built(task("spark", job), interruptible=True)
    driver, executor = found["driver"]["template"], found["executor"]["template"]
    for template, name in ((driver, "spark-kubernetes-driver"), (executor, "spark-kubernetes-executor")):
        container = main(template, name)
        assert not {"command", "args"} & container.keys()
        assert env_of(container)["RUN_NAME"] == "r1"
        assert env_of(container)["TEAM"] == "blue"
        assert template["metadata"]["annotations"]["primary_container_name"] == name
        assert template["spec"]["serviceAccountName"] == "spark"
    assert (tolerates(driver), tolerates(executor)) == (False, True)
    assert main(executor, "spark-kubernetes-executor")["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert (executor["spec"]["nodeSelector"], executor["metadata"]["labels"]["tier"]) == ({"disk": "ssd"}, "batch")
    assert "nodeSelector" not in driver["spec"] and "tier" not in driver["metadata"]["labels"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in executor["spec"]["tolerations"]


def test_a_spark_program_for_the_jvm():
    """A class instead of a file, and no arguments that it doesn't have."""
    job = spark_pb2.SparkJob(mainClass="com.example.Main", applicationType=spark_pb2.SparkApplication.SCALA)
    found = built(task("spark", job, container={"image": "team/app:1"}))
    assert (found["type"], found["mainClass"]) == ("Scala", "com.example.Main")
    assert not {"mainApplicationFile", "arguments", "pythonVersion"} & found.keys()


def test_a_ray_job():
    """The task's command is the entrypoint, quoted for a shell; head and workers run Ray's own."""
    container = CONTAINER | {"args": ["a0", "--name", "it's {{.runName}}"]}
    made = resource_of(task("ray", ray(runtimeEnvYaml="pip: [numpy]"), container=container), OperatorConfig(ray_ttl=60))
    found = made.manifest["spec"]
    assert found["entrypoint"] == "a0 --name 'it'\"'\"'s r1'"
    assert (found["submissionMode"], found["backoffLimit"]) == ("K8sJobMode", 0)
    assert (found["shutdownAfterJobFinishes"], found["ttlSecondsAfterFinished"]) == (True, 60)
    assert found["runtimeEnvYAML"] == "pip: [numpy]"
    cluster = found["rayClusterSpec"]
    head, [workers] = main(cluster["headGroupSpec"]["template"], "ray-head"), cluster["workerGroupSpecs"]
    worker = main(workers["template"], "ray-worker")
    assert not {"command", "args"} & (head.keys() | worker.keys())
    assert env_of(head)["RUN_NAME"] == env_of(worker)["RUN_NAME"] == "r1"
    assert [port["name"] for port in head["ports"]] == ["gcs-server", "dashboard", "client"]
    assert cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"
    assert {key: workers[key] for key in ("groupName", "replicas", "minReplicas", "maxReplicas")} == {
        "groupName": "gpus",
        "replicas": 2,
        "minReplicas": 1,
        "maxReplicas": 4,
    }
    assert (made.pod_labels("job"), made.container) == ({"job-name": "job"}, "ray-job-submitter")


def test_the_pod_that_submits_a_ray_job_has_nothing_of_the_task():
    """No environment, so no secret; small, on any node."""
    secret = {"securityContext": {"secrets": [{"key": "token", "mountRequirement": "ENV_VAR"}]}}
    found = built(task("ray", ray(), **secret))
    [container] = found["submitterPodTemplate"]["spec"]["containers"]
    assert container.keys() == {"name", "image", "resources"}
    assert "token" not in json.dumps(found["submitterPodTemplate"])
    assert "token" in json.dumps(found["rayClusterSpec"]["headGroupSpec"])


def test_rays_groups_have_pods_of_their_own():
    """Laid over the task's: resources, labels, containers beside, and an accelerator with the nodes that have it."""
    job = ray()
    head, workers = job.ray_cluster.head_group_spec, job.ray_cluster.worker_group_spec[0]
    head.ray_start_params.update({"dashboard-host": "127.0.0.1", "num-cpus": "0"})
    workers.extended_resources.gpu_accelerator.device = "nvidia-l4"
    workers.k8s_pod.metadata.labels["group"] = "gpus"
    beside = {"name": "sidecar", "image": "team/side:1"}
    asked = {"name": "ray-worker", "args": ["setup.sh"], "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "4"}}}
    workers.k8s_pod.pod_spec.update({"containers": [asked, beside]})
    cluster = built(task("ray", job))["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {
        "dashboard-host": "127.0.0.1",
        "disable-usage-stats": "true",
        "include-dashboard": "true",
        "num-cpus": "0",
    }
    template = cluster["workerGroupSpecs"][0]["template"]
    container = main(template, "ray-worker")
    assert (container["args"], container["resources"]["limits"]) == (
        ["setup.sh"],
        {"nvidia.com/gpu": "1", "cpu": "4", "memory": "1Gi"},
    )
    assert main(template, "sidecar")["image"] == "team/side:1"
    assert template["metadata"]["labels"]["group"] == "gpus"
    assert "NVIDIA-L4" in json.dumps(template["spec"]["affinity"])
    assert "affinity" not in cluster["headGroupSpec"]["template"]["spec"]


def test_a_ray_cluster_that_grows():
    """Bounds hold what is asked for; the autoscaler has what the task says."""
    cluster = {
        "enableAutoscaling": True,
        "workerGroupSpec": [{"groupName": "a", "replicas": 3}, {"groupName": "b", "replicas": 1, "minReplicas": 2}],
        "autoscalerOptions": {
            "upscalingMode": "UPSCALING_MODE_CONSERVATIVE",
            "idleTimeoutSeconds": 30,
            "env": [{"key": "K", "value": "v"}],
            "resources": {"limits": [{"name": "CPU", "value": "500m"}]},
        },
    }
    found = built(task("ray", ray(rayCluster=cluster, shutdownAfterJobFinishes=True, ttlSecondsAfterFinished=5)))
    assert found["ttlSecondsAfterFinished"] == 5
    assert found["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    assert found["rayClusterSpec"]["autoscalerOptions"] == {
        "upscalingMode": "Conservative",
        "idleTimeoutSeconds": 30,
        "env": [{"name": "K", "value": "v"}],
        "resources": {"limits": {"cpu": "500m"}},
    }
    groups = found["rayClusterSpec"]["workerGroupSpecs"]
    assert [(group["minReplicas"], group["maxReplicas"]) for group in groups] == [(0, 3), (1, 1)]


def test_rays_older_runtime_environment():
    """In base64; what it holds is YAML, too."""
    environment = base64.b64encode(b'{"pip": ["numpy"]}').decode()
    assert json.loads(built(task("ray", ray(runtimeEnv=environment)))["runtimeEnvYAML"]) == {"pip": ["numpy"]}


def test_a_dask_job():
    """The command is the runner's; scheduler and workers run Dask's, with images and resources of their own."""
    job = json_format.ParseDict(
        {
            "scheduler": {"image": "team/dask:2"},
            "workers": {
                "numberOfWorkers": 3,
                "resources": {"limits": [{"name": "CPU", "value": "1500m"}, {"name": "MEMORY", "value": "2Gi"}]},
            },
        },
        dask_pb2.DaskJob(),
    )
    made = resource_of(task("dask", job), interruptible=True)
    found, cluster = made.manifest["spec"], made.manifest["spec"]["cluster"]["spec"]
    runner = main(found["job"], "job-runner")
    scheduler, worker = main(cluster["scheduler"], "scheduler"), main(cluster["worker"], "dask-worker")
    assert (runner["args"], runner["image"]) == (COMMAND, "team/app:1")
    assert (scheduler["args"], scheduler["image"]) == (["dask", "scheduler"], "team/dask:2")
    named = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)"]
    assert worker["args"] == [*named, "--nthreads", "2", "--memory-limit", str(2 << 30)]
    assert (worker["image"], worker["resources"]["requests"]) == ("team/app:1", {"cpu": "1500m", "memory": "2Gi"})
    assert env_of(worker)["RUN_NAME"] == "r1"
    assert cluster["worker"]["replicas"] == 3
    policies = [part["spec"]["restartPolicy"] for part in (found["job"], cluster["scheduler"], cluster["worker"])]
    assert policies == ["Never", "Always", "Always"]
    assert [tolerates(part) for part in (found["job"], cluster["scheduler"], cluster["worker"])] == [False, False, True]
    assert [part["metadata"]["annotations"]["primary_container_name"] for part in (found["job"], cluster["worker"])] == [
        "job-runner",
        "dask-worker",
    ]
    service = cluster["scheduler"]["service"]
    assert [(port["name"], port["port"]) for port in service["ports"]] == [("tcp-comm", 8786), ("http-dashboard", 8787)]
    assert made.pod_labels("job") == {"dask.org/cluster-name": "job", "dask.org/component": "job-runner"}


def test_a_pytorch_job_with_a_master():
    """Of the older version: as many workers as it says, all alike."""
    made = resource_of(task("pytorch", {"workers": 2}))
    replicas = made.manifest["spec"]["pytorchReplicaSpecs"]
    assert {name: group["replicas"] for name, group in replicas.items()} == {"Master": 1, "Worker": 2}
    for group in replicas.values():
        assert main(group["template"], "pytorch")["args"] == COMMAND
        assert group["restartPolicy"] == "Never"
        assert "restartPolicy" not in group["template"]["spec"]
    assert made.manifest["spec"]["runPolicy"] == {"cleanPodPolicy": "Running"}
    assert made.pod_labels("job") == {"training.kubeflow.org/job-name": "job", "training.kubeflow.org/replica-type": "master"}
    assert made.container == "pytorch"


def test_an_elastic_pytorch_job():
    """Has workers only, within its bounds; their log is the first one's."""
    job = pytorch_pb2.DistributedPyTorchTrainingTask(
        worker_replicas=pytorch_pb2.DistributedPyTorchTrainingReplicaSpec(replicas=4),
        elastic_config=pytorch_pb2.ElasticConfig(
            rdzv_backend="c10d", min_replicas=2, max_replicas=4, nproc_per_node=8, max_restarts=3
        ),
        run_policy=common_pb2.RunPolicy(
            clean_pod_policy=common_pb2.CLEANPOD_POLICY_ALL,
            ttl_seconds_after_finished=60,
            active_deadline_seconds=600,
            backoff_limit=1,
        ),
    )
    made = resource_of(task("pytorch", job, taskTypeVersion=1))
    found = made.manifest["spec"]
    assert found["elasticPolicy"] == {
        "rdzvBackend": "c10d",
        "minReplicas": 2,
        "maxReplicas": 4,
        "nProcPerNode": 8,
        "maxRestarts": 3,
    }
    assert found["runPolicy"] == {
        "cleanPodPolicy": "All",
        "ttlSecondsAfterFinished": 60,
        "activeDeadlineSeconds": 600,
        "backoffLimit": 1,
    }
    assert list(found["pytorchReplicaSpecs"]) == ["Worker"]
    assert made.pod_labels("job")["training.kubeflow.org/replica-index"] == "0"


def test_roles_of_a_training_job_differ():
    """In image, resources and restarts, as ``common`` says or else the older fields."""
    gpu = {"limits": [{"name": "GPU", "value": "2"}]}
    custom = {
        "masterReplicas": {"image": "team/old:1", "restartPolicy": "RESTART_POLICY_ALWAYS"},
        "workerReplicas": {
            "replicas": 9,
            "common": {"replicas": 2, "image": "team/gpu:1", "resources": gpu, "restartPolicy": "RESTART_POLICY_ON_FAILURE"},
        },
    }
    replicas = built(task("pytorch", custom, taskTypeVersion=1))["pytorchReplicaSpecs"]
    master, worker = (main(replicas[name]["template"], "pytorch") for name in ("Master", "Worker"))
    assert (master["image"], worker["image"]) == ("team/old:1", "team/gpu:1")
    assert (replicas["Master"]["restartPolicy"], replicas["Worker"]["restartPolicy"]) == ("Always", "OnFailure")
    assert (replicas["Master"]["replicas"], replicas["Worker"]["replicas"]) == (1, 2)
    assert worker["resources"]["limits"] == {"nvidia.com/gpu": "2", "cpu": "1", "memory": "1Gi"}
    assert "nvidia.com/gpu" not in master["resources"]["limits"]
    assert "tolerations" not in replicas["Master"]["template"]["spec"]
    assert replicas["Worker"]["template"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("version", "custom", "config", "launcher", "worker"),
    [
        (0, {"numWorkers": 2, "numLauncherReplicas": 1, "slots": 4}, {}, COMMAND, None),
        (0, {"numWorkers": 2, "slots": 4}, {"worker_spec_command": "/usr/sbin/sshd -De"}, COMMAND, ["/usr/sbin/sshd", "-De"]),
        (1, {"workerReplicas": {"common": {"replicas": 2}}, "slots": 4}, {}, COMMAND, None),
        (
            1,
            {
                "workerReplicas": {"replicas": 2, "command": ["sshd"]},
                "launcherReplicas": {"command": ["mpirun", "a0", "{{.runName}}"]},
                "slots": 4,
            },
            {},
            ["mpirun", "a0", "r1"],
            ["sshd"],
        ),
    ],
)
def test_an_mpi_job(
    version: int, custom: dict[str, Any], config: dict[str, str], launcher: list[str], worker: list[str] | None
):
    """The launcher runs the task's command or its own; workers their own, or wait as the operator has them."""
    made = resource_of(task("mpi", custom, taskTypeVersion=version, config=config))
    found = made.manifest["spec"]
    replicas = found["mpiReplicaSpecs"]
    assert (found["slotsPerWorker"], replicas["Launcher"]["replicas"], replicas["Worker"]["replicas"]) == (4, 1, 2)
    assert main(replicas["Launcher"]["template"], "mpi")["args"] == launcher
    assert main(replicas["Worker"]["template"], "mpi").get("args") == worker
    assert made.pod_labels("job")["training.kubeflow.org/replica-type"] == "launcher"


@pytest.mark.parametrize(
    ("version", "custom", "counts", "leader"),
    [
        (0, {"workers": 2, "psReplicas": 1, "chiefReplicas": 1}, {"Chief": 1, "Worker": 2, "PS": 1}, "chief"),
        (0, {"workers": 1, "evaluatorReplicas": 1}, {"Worker": 1, "Evaluator": 1}, "worker"),
        (
            1,
            {"workerReplicas": {"common": {"replicas": 2}}, "psReplicas": {"replicas": 1}, "chiefReplicas": {"replicas": 1}},
            {"Chief": 1, "Worker": 2, "PS": 1},
            "chief",
        ),
    ],
)
def test_a_tensorflow_job(version: int, custom: dict[str, Any], counts: dict[str, int], leader: str):
    """Has the roles of which it asks for pods; the chief leads if there is one."""
    made = resource_of(task("tensorflow", custom, taskTypeVersion=version))
    replicas = made.manifest["spec"]["tfReplicaSpecs"]
    assert {name: group["replicas"] for name, group in replicas.items()} == counts
    assert {main(group["template"], "tensorflow")["image"] for group in replicas.values()} == {"team/app:1"}
    assert made.pod_labels("job")["training.kubeflow.org/replica-type"] == leader


def clustered(**more: Any) -> task_definition_pb2.TaskSpec:
    """As the SDK makes it."""
    known: dict[str, Any] = {"name": "env", "image": "team/app:1", "replicas": 4, "nproc_per_node": 2}
    return spec_of(task_in(ClusteredTaskEnvironment(**known | {"resources": flyte.Resources(gpu=2)} | more)))


def test_a_clustered_task():
    """One indexed job; its pods know who they are from what the SDK's launcher reads."""
    found = clustered(runtime=TorchRun(rdzv_backend="c10d"), env_vars={"MASTER_PORT": "1", "MINE": "2"})
    made = resource_of(found)
    jobs = made.manifest["spec"]
    [group] = jobs["replicatedJobs"]
    job = group["template"]["spec"]
    container = main(job["template"], made.container)
    assert (jobs["network"], jobs["successPolicy"]) == ({"enableDNSHostnames": True}, {"operator": "All"})
    assert (group["name"], group["replicas"], job["parallelism"], job["completions"]) == ("workers", 1, 4, 4)
    assert (job["completionMode"], job["backoffLimit"]) == ("Indexed", 0)
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert container["args"][0] == "clustered"
    known = env_of(container)
    assert {name: known[name] for name in ("NNODES", "NPROC_PER_NODE", "MASTER_PORT", "RDZV_BACKEND", "MINE", "RUN_NAME")} == {
        "NNODES": "4",
        "NPROC_PER_NODE": "2",
        "MASTER_PORT": "29500",
        "RDZV_BACKEND": "c10d",
        "MINE": "2",
        "RUN_NAME": "r1",
    }
    assert known["JOBSET_NAME"]["fieldRef"]["fieldPath"] == "metadata.labels['jobset.sigs.k8s.io/jobset-name']"
    assert not {"failurePolicy", "ttlSecondsAfterFinished"} & jobs.keys()
    assert made.pod_labels("job") == {
        "jobset.sigs.k8s.io/jobset-name": "job",
        "batch.kubernetes.io/job-completion-index": "0",
    }


def test_a_clustered_task_that_begins_again():
    """As often as it says; for nothing when the cluster took a pod away."""
    jobs = built(
        clustered(
            failure_policy=ClusterFailurePolicy(max_restarts=2, restart_on_host_maintenance=True),
            ttl_seconds_after_finished=60,
        )
    )
    job = jobs["replicatedJobs"][0]["template"]["spec"]
    assert jobs["ttlSecondsAfterFinished"] == 60
    assert jobs["failurePolicy"]["maxRestarts"] == 2
    [rule] = jobs["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"])
    assert job["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    assert env_of(main(job["template"], "primary"))["JOBSET_MAX_RESTARTS"] == "2"
    jobs = built(clustered(failure_policy=ClusterFailurePolicy(max_restarts=1, restart_on_host_maintenance=False)))
    assert jobs["failurePolicy"] == {"maxRestarts": 1}
    assert "podFailurePolicy" not in jobs["replicatedJobs"][0]["template"]["spec"]


def test_a_tasks_own_pod_is_the_base_of_every_role():
    """With its volumes, and over the PodTemplate that it names."""
    own = {
        "primaryContainerName": "app",
        "podSpec": {"containers": [{"name": "app", **CONTAINER}], "volumes": [{"name": "scratch", "emptyDir": {}}]},
    }
    found = built(task("dask", {}, k8sPod=own, metadata={"podTemplateName": "base"}))
    for part, name in (
        (found["job"], "job-runner"),
        (found["cluster"]["spec"]["scheduler"], "scheduler"),
        (found["cluster"]["spec"]["worker"], "dask-worker"),
    ):
        assert part["spec"]["volumes"] == [{"name": "scratch", "emptyDir": {}}]
        assert part["spec"]["hostNetwork"] is True
        assert env_of(main(part, name))["BASE"] == "1"


def test_resources_have_the_attempts_labels_and_links():
    """People find them as they find pods."""
    link = {"name": "Docs", "uri": "https://example.com/{{.runName}}"}
    made = resource_of(task("dask", {}, metadata={"logLinks": [link]}))
    assert made.manifest["metadata"]["labels"].items() >= {"run": "r1", "action": "a0", "attempt": "1"}.items()
    assert [found.uri for found in made.links] == ["https://example.com/r1"]


def test_custom_of_a_newer_sdk():
    """Fields that nobody here has heard of are passed over."""
    assert built(task("pytorch", {"workers": 1, "colour": "blue"}))["pytorchReplicaSpecs"]["Worker"]["replicas"] == 1
