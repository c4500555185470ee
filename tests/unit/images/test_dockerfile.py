"""From layers to a Dockerfile: each kind of layer, how secrets reach it, and what cannot stand there."""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.core import security_pb2
from flyteidl2.imagebuilder import definition_pb2 as idl

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.images import variable
from flyte_unified.images.dockerfile import dockerfile, secrets
from flyte_unified.images.prepare import address, mounts

TOKEN = security_pb2.Secret(key="token", env_var="TOKEN", mount_requirement=security_pb2.Secret.ENV_VAR)
FILE = security_pb2.Secret(group="ours", key="cert", mount_requirement=security_pb2.Secret.FILE)
CACHE = "--mount=type=cache,sharing=locked,target=/root/.cache/uv"
PIP = "uv pip install --python /opt/venv/bin/python"


def spec(*layers: dict[str, Any], base: str = "python:3.12-slim", python: str = "3.12") -> idl.ImageSpec:
    return idl.ImageSpec(base_image=base, python_version=python, layers=[idl.Layer(**layer) for layer in layers])


def lines(*layers: dict[str, Any]) -> list[str]:
    """What the layers add."""
    return dockerfile(spec(*layers), uv="uv:1").text.splitlines()[6:]


def bind(source: str, target: str) -> str:
    return f"--mount=type=bind,rw,source={source},target={target}"


def test_every_image_has_an_environment_to_install_into() -> None:
    """The base image's, or a new one of the image's Python; uv comes from an image of its own."""
    assert dockerfile(spec(), uv="uv:1").text.splitlines() == [
        "FROM uv:1 AS uv",
        "FROM python:3.12-slim",
        "USER root",
        "COPY --from=uv /uv /usr/local/bin/uv",
        (
            "ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH UV_PYTHON=/opt/venv/bin/python UV_LINK_MODE=copy "
            "POETRY_VIRTUALENVS_CREATE=false"
        ),
        "RUN [ -x /opt/venv/bin/python ] || uv venv --python 3.12 /opt/venv",
    ]


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        ({"pip_packages": {"packages": ["numpy<3", "a b"]}}, [f"RUN {CACHE} {PIP} 'numpy<3' 'a b'"]),
        (
            {"pip_packages": {"packages": ["numpy"], "options": {"index_url": "https://i/s", "pre": True, "extra_args": "-q"}}},
            [f"RUN {CACHE} {PIP} --index-url https://i/s --prerelease=allow -q numpy"],
        ),
        (
            {"requirements": {"file": "r/requirements.txt"}},
            [f"RUN {CACHE} {bind('r/requirements.txt', '/tmp/requirements.txt')} {PIP} --requirements /tmp/requirements.txt"],
        ),
        (
            {"python_wheels": {"dir": "dist", "package_name": "mine"}},
            [
                (
                    f"RUN {CACHE} {bind('dist', '/tmp/dist')} {PIP} --find-links /tmp/dist mine && "
                    f"{PIP} --find-links /tmp/dist --no-deps --no-index --reinstall mine"
                )
            ],
        ),
        (
            {"uv_project": {"pyproject": "w/p", "uvlock": "w/p/uv.lock", "source_dir": "w"}},
            [f"RUN {CACHE} {bind('w', '/tmp/project')} uv sync --active --inexact --no-editable --project /tmp/project/p"],
        ),
        (
            {"poetry_project": {"pyproject": "p/pyproject.toml", "poetry_lock": "l/poetry.lock", "extra_args": "--no-root"}},
            [
                (
                    f"RUN {CACHE} {bind('p', '/tmp/project')} {bind('l/poetry.lock', '/tmp/project/poetry.lock')} "
                    "uv tool run poetry install --no-interaction -C /tmp/project --no-root"
                )
            ],
        ),
        (
            {"poetry_project": {"pyproject": "p", "extra_args": ""}},
            [
                (
                    f"RUN {CACHE} {bind('p', '/tmp/project')} uv tool run poetry install --no-interaction -C /tmp/project "
                    f"--no-root && {PIP} --no-deps /tmp/project"
                )
            ],
        ),
        (
            {"apt_packages": {"packages": ["git", "curl"]}},
            ["RUN apt-get update && apt-get install -y --no-install-recommends git curl && rm -rf /var/lib/apt/lists/*"],
        ),
        ({"env": {"env_variables": {"B": 'say "$A" `b`', "A": ""}}}, ['ENV A=""', 'ENV B="say \\"$A\\" `b`"']),
        ({"workdir": {"workdir": "/app"}}, ["WORKDIR /app"]),
        ({"copy_config": {"src": "my notes", "dst": "in/"}}, ['COPY ["my notes", "in/"]']),
        ({"commands": {"cmd": ["make", "a\nEND b"]}}, ["RUN make", "RUN <<END_", "a", "END b", "END_"]),
    ],
)
def test_what_each_kind_of_layer_becomes(layer: dict[str, Any], wanted: list[str]) -> None:
    """In the order of the layers, each a step of its own."""
    assert lines(layer) == wanted


def test_secrets_are_mounted_for_their_step_alone() -> None:
    """As a variable, which the shell puts into packages, or as files where the SDK says; never in the image."""
    layer = {"packages": ["git+https://$TOKEN@example.com/mine", "tqdm==$TOKEN`"], "secret_mounts": [TOKEN, FILE]}
    (line,) = lines({"pip_packages": layer})
    mounts = [
        f"--mount=type=secret,required,id={variable(TOKEN)},env=TOKEN",
        f"--mount=type=secret,required,id={variable(FILE)},mode=0444,target=/etc/flyte/secrets/cert",
        f"--mount=type=secret,required,id={variable(FILE)},mode=0444,target=/etc/flyte/secrets/ours/cert",
    ]
    assert line == f'RUN {CACHE} {" ".join(mounts)} {PIP} "git+https://$TOKEN@example.com/mine" "tqdm==$TOKEN\\`"'
    assert secrets(spec({"pip_packages": layer}, {"commands": {"cmd": ["x"], "secret_mounts": [TOKEN]}})) == [TOKEN, FILE]


def test_a_password_in_an_address_is_not_in_the_image() -> None:
    """An image's history has the commands of its steps: what nobody is to read reaches uv as secrets of the build."""
    index, other = "https://kim:s3cr3t@example.com/simple", "https://example.com/other"
    options = {"index_url": index, "extra_args": f"-q --index {other} --index={other}/2 --find-links=/srv"}
    kinds: dict[str, dict[str, Any]] = {
        "pip_packages": {"packages": [f"mine @ {index}/mine.whl"]},
        "requirements": {"file": "requirements.txt"},
        "python_wheels": {"dir": "dist", "package_name": "mine"},
        "uv_project": {"pyproject": "p"},
    }
    for kind, fields in kinds.items():
        made = dockerfile(spec({kind: {**fields, "options": options}}), uv="uv:1")
        assert "s3cr3t" not in made.text
        assert "example.com" not in made.text
        assert "id=hidden0,env=UV_INDEX_URL" in made.text
        assert list(made.hidden.values())[:2] == [index, f"{other} {other}/2"]
    layer = {"packages": ["tqdm", f"mine @ {index}/mine.whl"], "secret_mounts": [TOKEN]}
    made = dockerfile(spec({"pip_packages": layer}), uv="uv:1")
    assert f'{PIP} "tqdm" --requirements /tmp/requirements.txt' in made.text
    assert made.hidden == {"hidden0": f"mine @ {index}/mine.whl"}


@pytest.mark.parametrize(
    "layer",
    [
        {"workdir": {"workdir": "/app\nRUN evil"}},
        {"env": {"env_variables": {"A": "1\nRUN evil"}}},
        {"env": {"env_variables": {"A\nB": "1"}}},
        {"requirements": {"file": "a,target=/etc"}},
        {"requirements": {"file": "../../etc/passwd"}},
        {"copy_config": {"src": "/etc/passwd", "dst": "."}},
        {},
    ],
)
def test_what_cannot_stand_there_is_refused(layer: dict[str, Any]) -> None:
    """A layer is one step, and reads what the client sent."""
    with pytest.raises(InvalidArgument):
        lines(layer)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("snow:1", "registry.example.com/flyte/snow:1"), ("ghcr.io/acme/snow:1", "ghcr.io/acme/snow:1")],
)
def test_an_image_goes_to_the_registry_that_it_names(name: str, wanted: str) -> None:
    """Else to the one of the settings."""
    assert address(name, "registry.example.com/flyte/") == wanted


@pytest.mark.parametrize("name", ["reg.org/a,push=false:1", "reg.org/a b:1", "a\nb", "", "reg.org/$(id)", "env'"])
def test_a_name_says_nothing_else_to_buildkit(name: str) -> None:
    """It stands among the exporter's options, which commas part."""
    with pytest.raises(InvalidArgument, match="no name for an image"):
        address(name, "registry:5000")


def test_a_secret_says_nothing_else_to_buildkit() -> None:
    """Its path stands on a shell's command line, unquoted, as there are any number of them."""
    assert mounts([FILE]) == {variable(FILE): "/etc/flyte/secrets/cert"}
    for key in ("a --output type=local", "a,src=/etc/passwd", "*", "a;b"):
        with pytest.raises(InvalidArgument, match="no name for a file"):
            mounts([security_pb2.Secret(key=key, mount_requirement=security_pb2.Secret.FILE)])
