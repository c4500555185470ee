"""``build-image`` as a pod: what is to be set before there can be one, and what the settings make of it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.task import run_pb2

from flyte_unified.images.task import build_image
from flyte_unified.plugins.api import Pod, Refusal, Work
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import DataSide, PodConfig
from flyte_unified.plugins.pods.images import ImageConfig, ImagePods
from tests.unit.plugins.contexts import context_of

DATA = DataSide(image="flyte-unified:1")
CONFIG = ImageConfig(registry="registry.example.com/flyte", buildkit="moby/buildkit:v0.34.2-rootless", uv="uv:1")


def described(config: ImageConfig = CONFIG, *, data: DataSide = DATA, **run: Any) -> Work:
    _, spec = build_image("system", "production", cached=True)
    pods = ImagePods(Pods(PodConfig(data=data, store={"FLYTE_AWS_ENDPOINT": "http://minio"})), config, data)
    return pods.describe(context_of(spec, run_spec=run_pb2.RunSpec(**run)))


def builder(work: Work) -> dict[str, Any]:
    assert isinstance(work, Pod), work
    (container,) = work.manifest["spec"]["containers"]
    return dict(container)


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


@pytest.mark.parametrize(
    ("config", "data", "setting"),
    [(replace(CONFIG, registry=""), DATA, "images.registry"), (CONFIG, DataSide(), "pods.data_image")],
)
def test_what_is_not_set_is_named(config: ImageConfig, data: DataSide, setting: str) -> None:
    """A build fails at once, by the name of the setting."""
    work = described(config, data=data)
    assert isinstance(work, Refusal)
    assert (work.code, work.message.partition(" ")[0]) == ("ImagesNotConfigured", setting)


def test_the_dockerfile_is_made_by_a_container_of_ours() -> None:
    """It reads the inputs where they are, and tells an error where the attempt's are looked for."""
    work = described()
    assert isinstance(work, Pod)
    (preparing,) = [each for each in work.manifest["spec"]["initContainers"] if each["name"].endswith("dockerfile")]
    assert preparing["command"] == ["flyte-unified", "data", "dockerfile"]
    assert preparing["args"] == [
        "--from=s3://bucket/runs/r1/inputs/inputs.pb",
        "--errors=s3://bucket/runs/r1/a0/1",
        "--to=/var/flyte/build",
        "--registry=registry.example.com/flyte",
        "--uv=uv:1",
    ]
    assert environment(preparing)["FLYTE_AWS_ENDPOINT"] == "http://minio"


def test_a_registry_may_want_a_login() -> None:
    """The Secret's entry lies where BuildKit looks for it."""
    work = described(replace(CONFIG, registry_secret="login"))
    mounted = {each["name"]: each["mountPath"] for each in builder(work)["volumeMounts"]}
    assert mounted["flyte-registry"] == environment(builder(work))["DOCKER_CONFIG"]
    assert isinstance(work, Pod)
    (volume,) = [each for each in work.manifest["spec"]["volumes"] if each["name"] == "flyte-registry"]
    assert volume["secret"] == {"secretName": "login", "items": [{"key": ".dockerconfigjson", "path": "config.json"}]}


@pytest.mark.parametrize(
    ("config", "run", "name", "value"),
    [
        (CONFIG, {}, "NO_CACHE", ""),
        (CONFIG, {"overwrite_cache": True}, "NO_CACHE", "--no-cache"),
    ],
)
def test_what_else_buildkit_is_told(config: ImageConfig, run: dict[str, Any], name: str, value: str) -> None:
    """A build that is to start from nothing."""
    assert environment(builder(described(config, **run)))[name] == value


def test_resources_are_those_of_the_settings() -> None:
    """Requested, and the limit."""
    assert builder(described(replace(CONFIG, cpu="4", memory="8Gi")))["resources"] == {
        "requests": {"cpu": "4", "memory": "8Gi"},
        "limits": {"cpu": "4", "memory": "8Gi"},
    }


def test_what_a_container_may_is_buildkits_need() -> None:
    """An ordinary user without profiles of the node: by field, and by the annotation of Kubernetes before 1.30."""
    work = described()
    security = builder(work)["securityContext"]
    assert isinstance(work, Pod)
    assert (security["runAsUser"], security["seccompProfile"]["type"]) == (1000, "Unconfined")
    assert security["appArmorProfile"]["type"] == "Unconfined"
    annotations = work.manifest["metadata"]["annotations"]
    assert annotations["container.apparmor.security.beta.kubernetes.io/primary"] == "unconfined"


@pytest.mark.parametrize(
    ("insecure", "known"), [(True, 'debug = true\n\n[registry."registry.example.com"]\nhttp = true'), (False, "")]
)
def test_a_registry_may_speak_plain_http(tmp_path: Path, insecure: bool, known: str) -> None:
    """Base images are pulled from it, too; all others have TLS. What BuildKit's image says of registries holds as well."""
    container = builder(described(replace(CONFIG, insecure=insecure)))
    for name in ("image", "secrets"):
        (tmp_path / name).touch()
    program = tmp_path / "buildctl-daemonless.sh"
    program.write_text("#!/bin/sh\nfor flag in $BUILDKITD_FLAGS; do cat ${flag#--config=} 2>/dev/null; done; echo $*")
    own_config = tmp_path / ".config/buildkit/buildkitd.toml"
    own_config.parent.mkdir(parents=True)
    own_config.write_text("debug = true\n")
    program.chmod(0o755)
    command = [word.replace("/var/flyte/build", str(tmp_path)) for word in container["command"]]
    own = {"PATH": f"{tmp_path}:{os.defpath}", "HOME": str(tmp_path), "OUTPUTS": str(tmp_path)}
    done = subprocess.run(command, env={**environment(container), **own}, capture_output=True, text=True, check=True)
    told, _, words = done.stdout.strip().rpartition("\n")
    assert told.strip() == known
    assert "insecure" not in words
