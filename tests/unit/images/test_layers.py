"""From layers to steps: what uv is told for each kind of layer, and what is refused, with the way out."""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.core import security_pb2
from flyteidl2.imagebuilder import definition_pb2 as idl

from flyte_unified.core.errors import FailedPrecondition, InvalidArgument
from flyte_unified.core.images import expanded
from flyte_unified.images.layers import Copy, Need, Places, Run, Step, Take, plan

PLACES = Places(uv="uv", environment="/env", context="/context")
TOKEN = security_pb2.Secret(key="token", env_var="TOKEN")
INSTALL = ("uv", "pip", "install", "--python", "/env/bin/python")
SYNC = ("uv", "sync", "--active", "--inexact", "--no-editable", "--python", "/env/bin/python", "--project")


def spec(*layers: dict[str, Any]) -> idl.ImageSpec:
    return idl.ImageSpec(base_image="ghcr.io/flyteorg/flyte:py3.12-v2.12.1", layers=[idl.Layer(**layer) for layer in layers])


def steps(*layers: dict[str, Any], allow_commands: bool = False) -> list[Step]:
    return [step for _, step in plan(spec(*layers), PLACES, allow_commands=allow_commands).steps]


OPTIONS = idl.PipOptions(
    index_url="https://a/simple", extra_index_urls=["https://b"], pre=True, extra_args="--no-deps -c 'a b'"
)
OPTED = ("--index-url", "https://a/simple", "--extra-index-url", "https://b", "--prerelease=allow", "--no-deps", "-c", "a b")


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        ({"pip_packages": {"packages": ["numpy<3", "tqdm"]}}, [Run(argv=(*INSTALL, "numpy<3", "tqdm"))]),
        ({"pip_packages": {"packages": ["numpy"], "options": OPTIONS}}, [Run(argv=(*INSTALL, *OPTED, "numpy"))]),
        ({"pip_packages": {"packages": [], "secret_mounts": [TOKEN]}}, []),
        (
            {"requirements": {"file": "sub/requirements.txt"}},
            [Run(argv=(*INSTALL, "--requirements", "/context/sub/requirements.txt"), directory="/context/sub")],
        ),
        (
            {"python_wheels": {"dir": "dist", "package_name": "mine"}},
            [
                Run(argv=(*INSTALL, "--find-links", "/context/dist", "mine")),
                Run(
                    argv=(*INSTALL, "--find-links", "/context/dist", "--no-deps", "--no-index", "--reinstall", "mine"),
                ),
            ],
        ),
        (
            {"uv_project": {"pyproject": "p", "uvlock": "p/uv.lock", "options": {"extra_args": "--no-install-project"}}},
            [Run(argv=(*SYNC, "/context/p", "--no-install-project"), directory="/context/p")],
        ),
        (
            {"uv_project": {"pyproject": "p", "uvlock": "locks/uv.lock"}},
            [Take("/context/locks/uv.lock", "/context/p/uv.lock"), Run(argv=(*SYNC, "/context/p"), directory="/context/p")],
        ),
        (
            {"poetry_project": {"pyproject": "p/pyproject.toml", "poetry_lock": "p/poetry.lock", "extra_args": " --no-root"}},
            [
                Run(
                    argv=("uv", "tool", "run", "poetry", "install", "--no-interaction", "--no-root"),
                    directory="/context/p",
                )
            ],
        ),
        (
            {"poetry_project": {"pyproject": "p", "poetry_lock": "p/poetry.lock", "extra_args": "--with dev"}},
            [
                Run(
                    argv=("uv", "tool", "run", "poetry", "install", "--no-interaction", "--no-root", "--with", "dev"),
                    directory="/context/p",
                ),
                Run(argv=(*INSTALL, "--no-deps", "/context/p")),
            ],
        ),
        ({"apt_packages": {"packages": ["git", "curl=7"]}}, [Need(("git", "curl=7"))]),
    ],
)
def test_what_each_kind_of_layer_installs(layer: dict[str, Any], wanted: list[Step]) -> None:
    """As in the SDK's own images: the same installer, the same order, the same options."""
    assert steps(layer) == wanted


def test_packages_that_refer_to_a_secret_stand_in_a_file() -> None:
    """uv puts variables into a requirements file; an argument would show the secret to everybody on the machine."""
    layer = {"packages": ["git+https://$TOKEN@example.com/mine", "tqdm"], "secret_mounts": [TOKEN]}
    (step,) = steps({"pip_packages": layer})
    assert step == Run(
        argv=(*INSTALL, "--requirements"), lines=("git+https://${TOKEN}@example.com/mine", "tqdm"), secrets=(TOKEN,)
    )


@pytest.mark.parametrize(
    ("layers", "target"),
    [
        (({"copy_config": {"src": "a.txt", "dst": "."}},), "./"),
        (({"copy_config": {"src": "a.txt", "dst": "data/"}},), "data/"),
        (({"copy_config": {"src": "a.txt", "dst": "data/b.txt"}},), "data/b.txt"),
        (({"copy_config": {"src": "a.txt", "dst": "/root/data/b.txt"}},), "data/b.txt"),
        (({"workdir": {"workdir": "/app"}}, {"copy_config": {"src": "a.txt", "dst": "b.txt"}}), "b.txt"),
        (({"copy_config": {"src": "a.txt", "dst": "/app/b.txt"}}, {"workdir": {"workdir": "/app"}}), "b.txt"),
        (
            ({"workdir": {"workdir": "/app"}}, {"workdir": {"workdir": "in"}}, {"copy_config": {"src": "a.txt", "dst": "b"}}),
            "b",
        ),
    ],
)
def test_copied_files_are_relative_to_where_tasks_run(layers: tuple[dict[str, Any], ...], target: str) -> None:
    """Wherever in a container that would be: the working directory of the image is the task's own."""
    assert steps(*layers) == [Copy("/context/a.txt", target)]


def test_variables_are_put_into_one_another() -> None:
    """In order, as in a Dockerfile; what nobody knows stays as it is."""
    layers: list[dict[str, Any]] = [{"env": {"env_variables": {"A": "1"}}}, {"env": {"env_variables": {"B": "${A}2:$PATH:$X"}}}]
    variables = plan(spec(*layers), PLACES, allow_commands=False).variables
    assert expanded(variables, {"PATH": "/bin"}) == {"A": "1", "B": "12:/bin:$X"}


def test_a_base_image_of_somebody_else_is_mentioned() -> None:
    """What it holds beside Python is not in a virtual environment."""
    foreign = idl.ImageSpec(base_image="python:3.12-slim")
    assert "python:3.12-slim" in plan(foreign, PLACES, allow_commands=False).notes[0]
    assert not plan(spec(), PLACES, allow_commands=False).notes


def test_commands_run_only_where_they_may() -> None:
    """They would run on the machine itself; the refusal names the setting."""
    layer = {"commands": {"cmd": ["make install"], "secret_mounts": [TOKEN]}}
    assert steps(layer, allow_commands=True) == [Run(argv=("/bin/sh", "-c", "make install"), secrets=(TOKEN,))]
    with pytest.raises(FailedPrecondition, match=r"'make install'.*images\.allow_commands"):
        steps(layer)


def test_a_user_of_a_containers_own_is_not_made() -> None:
    """The SDK's images without the SDK, as of scripts, begin with one."""
    assert steps({"commands": {"cmd": ["id flyte || (useradd --system flyte && chown flyte /srv)"]}}) == []


@pytest.mark.parametrize("target", ["/etc/app.conf", "/home/flyte/x", "../x"])
def test_files_elsewhere_in_the_file_system_are_refused(target: str) -> None:
    """They would be the machine's own; the way out is a relative path."""
    with pytest.raises(FailedPrecondition, match=r"below the working directory \(/root\).*relative path"):
        steps({"copy_config": {"src": "a", "dst": target}})


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd"])
def test_nothing_is_read_beside_what_the_client_sent(path: str) -> None:
    """An image's description is only text from somewhere."""
    with pytest.raises(InvalidArgument, match="no path within"):
        steps({"copy_config": {"src": path, "dst": "."}})


def test_a_layer_of_another_day_is_refused() -> None:
    """Better than an image without it."""
    with pytest.raises(InvalidArgument, match="does not know"):
        steps({})
