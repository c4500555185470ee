"""Images that know nothing of Flyte, in a pod."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import flyte
import pytest
from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2, task_definition_pb2

from flyte_unified.plugins.container import wants_inputs
from flyte_unified.plugins.pods.config import DataSide
from tests.unit.plugins.contexts import built, context_of, env_of, pod_of, refused, spec_of

with warnings.catch_warnings():  # the SDK defines its models in a way that pydantic has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from flyte.extras import ContainerTask


def raw_task(**more: Any) -> task_definition_pb2.TaskSpec:
    task = ContainerTask(
        name="sum",
        image="alpine:3",
        command=["/bin/sh", "-c", "echo {{.inputs.x}} > /var/outputs/y"],
        inputs={"x": int},
        outputs={"y": int},
        **more,
    )
    flyte.TaskEnvironment.from_task("raw", task)
    return spec_of(task)


DATA = DataSide(image="flyte-unified:1")


def test_an_image_without_a_runtime_is_served_from_beside():
    """Inputs before it, outputs after it, by containers that alone have the store's keys."""
    described = raw_task()
    assert wants_inputs(described.task_template)
    value = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=7)))
    inputs = common_pb2.Inputs(literals=[common_pb2.NamedLiteral(name="x", value=value)])
    pod = pod_of(replace(context_of(described), inputs=inputs), data=DATA, store={"FLYTE_AWS_SECRET_ACCESS_KEY": "key"})
    found = pod.manifest["spec"]
    (main,), (uploader, downloader) = found["containers"], found["initContainers"]
    assert main["args"] == ["/bin/sh", "-c", "echo 7 > /var/outputs/y"]
    assert "FLYTE_AWS_SECRET_ACCESS_KEY" not in env_of(main)
    assert [mount["mountPath"] for mount in main["volumeMounts"]] == ["/var/inputs", "/var/outputs"]
    assert env_of(downloader) == env_of(uploader) == {"FLYTE_AWS_SECRET_ACCESS_KEY": "key"}
    assert downloader["command"] == ["flyte-unified", "data"]
    assert downloader["args"][:3] == ["download", "--to=/var/inputs", "--from=s3://bucket/runs/r1/inputs/inputs.pb"]
    assert uploader["restartPolicy"] == "Always"
    assert "restartPolicy" not in downloader
    assert "--to=s3://bucket/runs/r1/a0/1" in uploader["args"]
    assert uploader["lifecycle"]["postStart"]["exec"]["command"][0] == "sh"
    assert found["terminationGracePeriodSeconds"] == 3600
    assert pod.manifest["metadata"]["annotations"]["flyte.org/uploader"] == uploader["name"]


@pytest.mark.parametrize(
    ("args", "raw"),
    [
        (["a0", "--x"], False),
        (["/usr/local/bin/a0"], False),
        (["pyflyte-execute", "--inputs"], False),
        (["uv", "run", "a0"], False),
        (["bash", "-c", "source env && a0 --x"], False),
        (["python", "-m", "flyte._bin.runtime"], False),
        (["torchrun", "--nproc=2", "a0"], False),
        (["python", "train.py"], True),
        (["bash", "-c", "echo 'open"], True),
        ([], True),
    ],
)
def test_which_images_have_a_runtime(args: list[str], raw: bool):
    """Told by their command line, whatever stands around the runtime."""
    found = built({"container": {"image": "i", "args": args}}, data=DATA)
    assert ("initContainers" in found) is raw
    if raw:
        assert "pods.data_image" in refused({"container": {"image": "i", "args": args}})
        assert [container["name"] for container in found["initContainers"]] == ["flyte-data-upload"], "it has no inputs"


def test_the_store_s_keys_are_a_reference():
    """A Secret object's entries: for what reaches the store, and nothing else."""
    source = [{"secretRef": {"name": "store-keys"}}]
    found = built(data=DATA, store_secret="store-keys")
    assert found["containers"][0]["envFrom"] == source
    found = pod_of(context_of(raw_task()), data=DATA, store_secret="store-keys").manifest["spec"]
    assert "envFrom" not in found["containers"][0]
    assert [container["envFrom"] for container in found["initContainers"]] == [source, source]
