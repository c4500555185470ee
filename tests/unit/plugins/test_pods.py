"""A task's pod, from what the SDK sends and what the operator configures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flyte
import pytest
from flyteidl2.core import tasks_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from google.protobuf import json_format
from kubernetes.client import (
    V1Container,
    V1ContainerPort,
    V1EnvVar,
    V1EnvVarSource,
    V1PodSpec,
    V1SecretKeySelector,
    V1Toleration,
)

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.names import object_name
from flyte_unified.plugins.api import Refusal
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import PodConfig, pair, toleration
from tests.unit.plugins.contexts import CONTAINER, KEY, built, context_of, env_of, pod_of, refused, spec, spec_of, task_in


def test_the_pod_of_a_task():
    """All that a cluster is told of a plain task of the SDK's."""
    environment = flyte.TaskEnvironment("etl", image="team/app:1", env_vars={"GREETING": "hello {{.runName}}"})
    pod = pod_of(context_of(spec_of(task_in(environment)), attempt=2), store={"FLYTE_AWS_ENDPOINT": "http://minio:9000"})
    metadata, found = pod.manifest["metadata"], pod.manifest["spec"]
    assert pod.primary == "primary"
    assert metadata["labels"] == {
        "organization": "flyte",
        "project": "flytesnacks",
        "domain": "development",
        "flyte.org/managed": "true",
        "run": "r1",
        "action": "a0",
        "attempt": "2",
        "task-name": "etl.double",
    }
    assert metadata["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "primary_container_name": "primary",
        "kubectl.kubernetes.io/default-container": "primary",
    }
    (container,) = found.pop("containers")
    assert found == {"restartPolicy": "Never", "enableServiceLinks": False}
    assert container["image"] == "team/app:1"
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    amounts = {"cpu": "1", "memory": "1Gi"}
    assert container["resources"] == {"requests": amounts, "limits": amounts}
    assert "command" not in container
    assert container["args"][:5] == [
        "a0",
        "--inputs",
        "s3://bucket/runs/r1/inputs/inputs.pb",
        "--outputs-path",
        "s3://bucket/runs/r1/a0/2",
    ]
    assert "s3://bucket/runs/r1/a0/1/_flytecheckpoints" in container["args"]
    env = env_of(container)
    assert env["GREETING"] == "hello r1"
    assert env["FLYTE_AWS_ENDPOINT"] == "http://minio:9000"
    assert (env["ACTION_NAME"], env["RUN_NAME"], env["FLYTE_ATTEMPT_NUMBER"]) == ("a0", "r1", "1")
    assert env["_F_PN"] == object_name(KEY, 2)
    assert env["_U_EP_OVERRIDE"] == "http://flyte.flyte.svc:8090/t/run-token"
    assert env["_U_USE_ACTIONS"] == "1"


def test_the_environment_in_its_order():
    """The operator's below the task's, that below the run's, and what the SDK's runtime needs above all."""
    task = {
        "container": CONTAINER | {"env": [{"key": k, "value": "task"} for k in ("A", "B", "C", "RUN_NAME", "_U_USE_ACTIONS")]}
    }
    run = {"envs": {"values": [{"key": "C", "value": "run"}, {"key": "D", "value": "$(RUN_NAME)"}]}}
    found = built(task, run, environment={"A": "config", "E": "config"}, store={"B": "store", "F": "store"})
    env = env_of(found["containers"][0])
    assert [env[k] for k in "ABCDEF"] == ["task", "task", "run", "$(RUN_NAME)", "config", "store"]
    assert (env["RUN_NAME"], env["_U_USE_ACTIONS"]) == ("r1", "task")
    order = list(env)
    assert order.index("RUN_NAME") < order.index("D"), "only a variable before it can be referred to"


def test_the_pod_that_a_task_brings():
    """The SDK's PodTemplate: other containers, ports, references and the numbers of a pod come through as they were."""
    template = flyte.PodTemplate(
        primary_container_name="main",
        labels={"team": "ml ops"},
        annotations={"note": "any text, with blanks"},
        pod_spec=V1PodSpec(
            containers=[
                V1Container(name="proxy", image="proxy:2", args=["--for", "{{.runName}}"]),
                V1Container(
                    name="main",
                    ports=[V1ContainerPort(container_port=8080)],
                    env=[
                        V1EnvVar(name="TOKEN", value_from=V1EnvVarSource(secret_key_ref=V1SecretKeySelector(name="n", key="k")))
                    ],
                ),
            ],
            tolerations=[V1Toleration(key="mine", operator="Exists", toleration_seconds=30)],
            termination_grace_period_seconds=17,
            restart_policy="Always",
        ),
    )
    environment = flyte.TaskEnvironment("etl", image="team/app:1", resources=flyte.Resources(cpu=2), pod_template=template)
    pod = pod_of(context_of(spec_of(task_in(environment))), grace=60, tolerations=({"key": "ours", "operator": "Exists"},))
    found = pod.manifest["spec"]
    proxy, main = found["containers"]
    assert pod.primary == "main"
    assert pod.manifest["metadata"]["labels"]["team"] == "ml-ops"
    assert pod.manifest["metadata"]["annotations"]["note"] == "any text, with blanks"
    assert main["ports"] == [{"containerPort": 8080}]
    assert isinstance(main["ports"][0]["containerPort"], int)
    assert env_of(main)["TOKEN"] == {"secretKeyRef": {"name": "n", "key": "k"}}
    assert main["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}
    assert proxy["args"] == ["--for", "r1"]
    assert "resources" not in proxy
    assert env_of(proxy)["ACTION_NAME"] == "a0"
    assert [t["key"] for t in found["tolerations"]] == ["mine", "ours"]
    assert found["tolerations"][0]["tolerationSeconds"] == 30
    assert (found["terminationGracePeriodSeconds"], found["restartPolicy"]) == (17, "Never")


TEMPLATE = {
    "apiVersion": "v1",
    "kind": "PodTemplate",
    "metadata": {"name": "gpu-nodes", "namespace": "flyte"},
    "template": {
        "metadata": {"labels": {"from": "template", "team": "template"}, "annotations": {"a": "template"}},
        "spec": {
            "hostNetwork": True,
            "serviceAccountName": "of-template",
            "nodeSelector": {"disk": "ssd", "zone": "a"},
            "volumes": [{"name": "cache", "emptyDir": {}}],
            "containers": [
                {"name": "noop", "image": "placeholder"},
                {"name": "default", "image": "placeholder", "env": [{"name": "X", "value": "default"}], "workingDir": "/work"},
                {
                    "name": "primary",
                    "image": "placeholder",
                    "command": ["/entrypoint"],
                    "env": [{"name": "X", "value": "primary"}, {"name": "Y", "value": "{{.actionName}}"}],
                    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                    "resources": {"limits": {"memory": "9Gi", "example.com/fpga": 1}},
                },
            ],
        },
    },
}


def templates(namespace: str, name: str) -> dict[str, Any] | None:
    return TEMPLATE if (namespace, name) == ("flyte", "gpu-nodes") else None


@pytest.mark.parametrize("named", [True, False])
def test_a_pod_template_lies_below(named: bool):
    """Its ``default`` and ``primary`` containers are bases, placeholders vanish, and what the task says wins."""
    metadata = {"podTemplateName": "gpu-nodes"} if named else {}
    config: dict[str, Any] = {"templates": templates, "default_template": "" if named else "gpu-nodes"}
    task = {"container": CONTAINER | {"resources": {"requests": [{"name": "MEMORY", "value": "2Gi"}]}}, "metadata": metadata}
    pod = pod_of(context_of(spec(**task)), **config, labels={"team": "config", "cost": "x"}, service_account="of-config")
    found = pod.manifest["spec"]
    (container,) = found["containers"]
    assert (container["name"], container["image"], container["workingDir"]) == ("primary", "team/app:1", "/work")
    assert container["command"] == ["/entrypoint"]
    assert env_of(container)["X"] == "primary"
    assert env_of(container)["Y"] == "a0"
    assert container["volumeMounts"] == [{"name": "cache", "mountPath": "/cache"}]
    assert container["resources"] == {
        "requests": {"memory": "2Gi", "cpu": "1", "example.com/fpga": "1"},
        "limits": {"memory": "9Gi", "cpu": "1", "example.com/fpga": "1"},
    }
    assert found["hostNetwork"] is True
    assert found["serviceAccountName"] == "of-template"
    labels = pod.manifest["metadata"]["labels"]
    assert (labels["from"], labels["team"], labels["cost"]) == ("template", "template", "x")
    assert TEMPLATE["template"]["spec"]["containers"][2]["env"][1]["value"] == "{{.actionName}}", "the template is another's"


def test_templates_that_are_not_there():
    """One that the task names is missed; the operator's default may come later. Another namespace may have them for all."""
    assert refused({"metadata": {"podTemplateName": "none"}}, templates=templates) == (
        "metadata.pod_template_name: there is no PodTemplate 'none' in flyte"
    )
    assert built(default_template="none", templates=templates)["restartPolicy"] == "Never"
    lookup = {("shared", "gpu-nodes"): TEMPLATE}
    found = built(
        {"metadata": {"podTemplateName": "gpu-nodes"}}, templates=lambda *key: lookup.get(key), template_namespace="shared"
    )
    assert found["hostNetwork"] is True


def test_resources():
    """A limit is the request where there is none, a request no more than its limit, and of nothing nothing is said."""

    def of(requests: Mapping[str, str], limits: Mapping[str, str], **config: str) -> Mapping[str, Any]:
        kinds = {"requests": requests, "limits": limits}
        asked = {k: [{"name": name, "value": value} for name, value in v.items()] for k, v in kinds.items()}
        return built({"container": CONTAINER | {"resources": asked}}, **config)["containers"][0]["resources"]

    assert of({"CPU": "500m"}, {"MEMORY": "4Gi"}) == {
        "requests": {"cpu": "500m", "memory": "4Gi"},
        "limits": {"cpu": "500m", "memory": "4Gi"},
    }
    assert of({"CPU": "4", "MEMORY": "1Gi"}, {"CPU": "2"})["requests"]["cpu"] == "2"
    assert of({"CPU": "1", "MEMORY": "1Gi"}, {"CPU": "2"}) == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    }
    assert of({"GPU": "0", "EPHEMERAL_STORAGE": "5Gi", "STORAGE": "1Gi"}, {}, cpu="250m", memory="64Mi") == {
        "requests": {"cpu": "250m", "memory": "64Mi", "ephemeral-storage": "5Gi"},
        "limits": {"cpu": "250m", "memory": "64Mi", "ephemeral-storage": "5Gi"},
    }
    bad = {"container": CONTAINER | {"resources": {"requests": [{"name": "MEMORY", "value": "lots"}]}}}
    assert refused(bad) == "resources.requests.memory: 'lots' is no quantity; write 500m, 2 or 1Gi"


def test_tolerations_and_pairs_as_people_write_them():
    """As ``kubectl taint`` has it; what is neither is told."""
    assert toleration("a=b:NoExecute") == {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"}
    assert toleration("a") == {"key": "a", "operator": "Exists"}
    assert toleration("a:NoSchedule") == {"key": "a", "operator": "Exists", "effect": "NoSchedule"}
    assert pair("a=b=c") == ("a", "b=c")
    for text in ("", "=x", "a:Never"):
        with pytest.raises(InvalidArgument):
            toleration(text)
    for text in ("", "a", "=b"):
        with pytest.raises(InvalidArgument):
            pair(text)


def test_who_a_pod_is():
    """The run's service account, else the task's, else the operator's; pull secrets and security contexts only where unsaid."""
    account = {"securityContext": {"runAs": {"k8sServiceAccount": "of-task"}}}
    run = {"securityContext": {"runAs": {"k8sServiceAccount": "of-run"}}}
    assert built(account, run, service_account="ours")["serviceAccountName"] == "of-run"
    assert built(account, service_account="ours")["serviceAccountName"] == "of-task"
    assert built(service_account="ours")["serviceAccountName"] == "ours"
    assert "serviceAccountName" not in built()
    bad = refused({"securityContext": {"runAs": {"k8sServiceAccount": "Not A Name"}}})
    assert bad == "security_context.run_as.k8s_service_account: 'Not A Name' can't be a ServiceAccount's name"
    config: dict[str, Any] = {
        "image_pull_secrets": ("registry",),
        "pod_security": {"runAsUser": 1000},
        "container_security": {"allowPrivilegeEscalation": False},
        "image_pull_policy": "Always",
        "grace": 20,
    }
    found = built(**config)
    assert found["imagePullSecrets"] == [{"name": "registry"}]
    assert (found["securityContext"], found["terminationGracePeriodSeconds"]) == ({"runAsUser": 1000}, 20)
    assert found["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False}
    assert found["containers"][0]["imagePullPolicy"] == "Always"
    own = {
        "containers": [{"name": "main", "image": "i", "args": ["a0"], "securityContext": {"privileged": True}}],
        "imagePullSecrets": [{"name": "own"}],
        "securityContext": {"runAsUser": 1},
    }
    found = built({"k8sPod": {"podSpec": own, "primaryContainerName": "main"}}, **config)
    assert (found["imagePullSecrets"], found["securityContext"]) == ([{"name": "own"}], {"runAsUser": 1})
    assert found["containers"][0]["securityContext"] == {"privileged": True}


def test_labels_of_a_run_and_a_task():
    """The run's over the task's, never ours; values are made to fit, a key that is none is told."""
    metadata = {"metadata": {"metadata": {"labels": {"a": "task", "b": "task"}, "annotations": {"x": "task"}}}}
    run = {"labels": {"values": {"b": "run", "run": "mine", "long": f"_{'x' * 80}"}}, "annotations": {"values": {"x": "run"}}}
    pod = pod_of(context_of(spec(**metadata), run_spec=json_format.ParseDict(run, run_pb2.RunSpec())))
    labels = pod.manifest["metadata"]["labels"]
    assert (labels["a"], labels["b"], labels["run"]) == ("task", "run", "r1")
    assert labels["long"] == "x" * 62
    assert pod.manifest["metadata"]["annotations"]["x"] == "run"
    assert refused({}, {"labels": {"values": {"not a key": "v"}}}).startswith("run_spec.labels: 'not a key' is no key")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ({"container": {"args": ["a0"]}}, "container 'primary' has no image"),
        ({"k8sPod": {"podSpec": {}}}, "k8s_pod.primary_container_name: '' is none of the pod's containers (none)"),
        (
            {"k8sPod": {"podSpec": {"containers": [{"name": "a"}, {"name": "b"}]}, "primaryContainerName": "c"}},
            "k8s_pod.primary_container_name: 'c' is none of the pod's containers ('a', 'b')",
        ),
        ({"k8sPod": {"podSpec": {"containers": [{"image": "i"}]}}}, "k8s_pod.primary_container_name"),
        ({"k8sPod": {}}, "k8s_pod.primary_container_name"),
    ],
)
def test_tasks_that_are_no_pod(template: Mapping[str, Any], told: str):
    """Refused by the field that is wrong."""
    assert told in refused(template)


def test_a_task_without_a_container():
    """Of another kind altogether."""
    described = task_definition_pb2.TaskSpec(task_template=tasks_pb2.TaskTemplate(type="snowflake"))
    work = Pods(PodConfig()).describe(context_of(described))
    assert isinstance(work, Refusal)
    assert "'snowflake' has neither container nor k8s_pod" in work.message


def test_the_pod_inside_of_an_operator_s_resource():
    """Other plugins take the parts: labels, and a spec whose primary container they may change."""
    template = Pods(PodConfig()).template(
        context_of(spec(container={"image": "spark:1", "args": ["main.py"]})), data_side=False
    )
    assert template.primary_container() is template.spec["containers"][0]
    assert "initContainers" not in template.spec
    assert template.labels["run"] == "r1"
