"""Images with layers in a cluster: what a pod with BuildKit is given, and what becomes of what it builds.

BuildKit itself is played by a script: it shows what it was called with, and what is in its directory.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from flyte_unified.kube.kinds import PODS, Object
from tests.cluster.local import LocalCluster
from tests.sdk.conftest import PROGRAMS, Client
from tests.unit.images.workbench import snowdrops

REGISTRY = "registry.example.com/flyte"
_BUILDKIT = """#!/bin/sh
echo "called $*"
cat Dockerfile
find context -type f
cat /etc/flyte/secrets/* 2>/dev/null || true
grep -q never Dockerfile || exit 0
printf '%s\\n' ------ ' > RUN touch' ------ 'error: failed to solve: never did not complete'
exit 1
"""


@pytest.fixture(scope="module")
def place(cluster: LocalCluster, client: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with what it needs beside it, on a cluster whose BuildKit is a script."""
    programs = tmp_path_factory.mktemp("buildkit")
    (programs / "python").symlink_to(sys.executable)
    script = programs / "buildctl-daemonless.sh"
    script.write_text(_BUILDKIT)
    script.chmod(0o755)
    cluster.kubelet.images.pythons["moby/buildkit:*"] = programs / "python"
    place = tmp_path_factory.mktemp("imaged")
    shutil.copy(PROGRAMS / "imaged.py", place)
    (place / "notes.txt").write_text("cold")
    snowdrops(place / "wheels")
    return place


def built(client: Client, place: Path) -> tuple[str, str]:
    """The address that ``flyte build`` tells, and the run that it was built by."""
    output = client.flyte("build", "imaged.py", "snow", cwd=place)
    address, run = re.search(rf"{REGISTRY}/snow:\w+", output), re.search(r"runs/(r\w+)", output)
    assert address and run, output
    return address[0], run[1]


@pytest.fixture(scope="module")
def first(client: Client, place: Path) -> tuple[str, str]:
    return built(client, place)


def test_buildkit_is_given_a_dockerfile_and_the_files(client: Client, first: tuple[str, str]) -> None:
    """It is told to push to the registry of the settings; its words are the run's log."""
    address, run = first
    log = client.flyte("get", "logs", run)
    assert "--frontend dockerfile.v0 --local context=context --local dockerfile=." in log
    assert f"name={address},push=true" in log.replace("\n", "")
    assert 'ENV COLOUR="white"' in log
    assert "notes.txt" in log


def test_an_image_is_built_once(client: Client, place: Path, first: tuple[str, str]) -> None:
    """To build it again is to find its address in the cache."""
    address, run = built(client, place)
    assert address == first[0]
    assert run != first[1]
    assert "CACHE_HIT" in client.flyte("get", "action", run, "a0")


def test_the_pod_is_an_ordinary_users(cluster: LocalCluster, first: tuple[str, str]) -> None:
    """BuildKit without rights, and between a container that prepares and one that stores."""

    async def pods() -> list[Object]:
        pages = cluster.kube.pages(PODS, namespace=cluster.namespace, labels=f"run={first[1]}")
        return [pod async for page, _ in pages for pod in page]

    (pod,) = cluster.do(pods)
    (builder,) = pod["spec"]["containers"]
    assert builder["image"] == "moby/buildkit:v0.34.2-rootless"
    assert builder["securityContext"]["runAsUser"] == 1000
    assert "privileged" not in str(pod["spec"])
    names = [container["name"] for container in pod["spec"]["initContainers"]]
    assert [name.rpartition("-")[2] for name in names] == ["upload", "download", "dockerfile"]


def test_a_build_that_fails_says_why(client: Client, place: Path, first: tuple[str, str]) -> None:
    """The run's error is BuildKit's own account, not the progress before it, nor that there is no image now."""
    run = re.search(r"runs/(r\w+)", client.flyte("build", "imaged.py", "commanded", cwd=place, fails=True))
    assert run
    told = client.flyte("get", "action", run[1], "a0").replace("\n", "")
    assert "'code': 'ContainerExited'" in told
    assert "the container exited with code 1: ------\\n > RUN touch" in told.partition("errorInfo")[2]
    assert "failed to solve" in client.flyte("get", "logs", run[1])
