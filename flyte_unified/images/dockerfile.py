"""From an image's layers (flyteidl2/imagebuilder/definition.proto) to a Dockerfile for BuildKit, as the SDK's own has it. Pure.

Everything is installed into the environment of Flyte's base images, ``/opt/venv``, which is made where a base has none.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flyteidl2.core import security_pb2
from flyteidl2.imagebuilder import definition_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.images import variable
from flyte_unified.images.layers import LOGIN, apart, exactly, installs_root, options, poetry_arguments
from flyte_unified.plugins import secrets as names

_PYTHON = "/opt/venv/bin/python"
_PROJECT = "/tmp/project"
_REQUIREMENTS = "/tmp/requirements.txt"
_CACHE = "--mount=type=cache,sharing=locked,target=/root/.cache/uv"
_SECRET = "--mount=type=secret,required"
_INSTALL = ("uv", "pip", "install", "--python", _PYTHON)
_START = """\
FROM {uv} AS uv
FROM {base}
USER root
COPY --from=uv /uv /usr/local/bin/uv
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH UV_PYTHON={python} UV_LINK_MODE=copy POETRY_VIRTUALENVS_CREATE=false
RUN [ -x {python} ] || uv venv --python {version} /opt/venv"""

_Hide = Callable[[str], str]
"""From a text that the image's history must not have to the id of a secret that is that text."""


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """``hidden`` are secrets that it takes beside those of the layers, by their ids: addresses with passwords."""

    text: str
    hidden: dict[str, str]


def dockerfile(spec: definition_pb2.ImageSpec, *, uv: str) -> Dockerfile:
    """``uv`` is an image that has it as ``/uv``. Raises InvalidArgument."""
    version = spec.python_version or "3"
    base = _START.format(uv=uv, base=_line(spec.base_image), python=_PYTHON, version=_line(version))
    hidden: dict[str, str] = {}

    def hide(text: str) -> str:
        hidden[name := f"hidden{len(hidden)}"] = text
        return name

    text = "\n".join([base, *(line for layer in spec.layers for line in _lines(layer, hide))]) + "\n"
    return Dockerfile(text, hidden)


def secrets(spec: definition_pb2.ImageSpec) -> list[security_pb2.Secret]:
    """Those of all layers, each once."""
    found: dict[str, security_pb2.Secret] = {}
    for layer in spec.layers:
        if (kind := layer.WhichOneof("layer")) is not None:
            for secret in getattr(getattr(layer, kind), "secret_mounts", ()):
                found[variable(secret)] = secret
    return list(found.values())


def _lines(layer: definition_pb2.Layer, hide: _Hide) -> Iterator[str]:
    match layer.WhichOneof("layer"):
        case "env":
            for name, value in sorted(layer.env.env_variables.items()):
                yield f"ENV {_line(name)}={_quoted(value)}"
        case "workdir":
            yield f"WORKDIR {_line(layer.workdir.workdir)}"
        case "copy_config":
            yield f"COPY {json.dumps([_within(layer.copy_config.src), layer.copy_config.dst or '.'])}"
        case "apt_packages":
            apt = layer.apt_packages
            install = shlex.join(["apt-get", "install", "-y", "--no-install-recommends", *apt.packages])
            yield _run(f"apt-get update && {install} && rm -rf /var/lib/apt/lists/*", apt.secret_mounts)
        case "commands":
            for command in layer.commands.cmd:
                yield _run(command, layer.commands.secret_mounts)
        case None:
            raise InvalidArgument("a layer of the image is of a kind that this server does not know")
        case kind:
            yield from _INSTALLS[kind](getattr(layer, kind), hide)


def _pip(layer: definition_pb2.PipPackages, hide: _Hide) -> Iterator[str]:
    """With secrets the shell puts their variables in."""
    secret = [each for each in layer.packages if LOGIN.search(each) and not (layer.secret_mounts and "$" in each)]
    shown = map(_in_shell if layer.secret_mounts else shlex.quote, (each for each in layer.packages if each not in secret))
    install, mounts = _uv(hide, *_INSTALL, *options(layer.options))
    words = [install, *shown]
    if secret:
        words += ["--requirements", _REQUIREMENTS]
        mounts.append(f"{_SECRET},id={hide(chr(10).join(secret))},target={_REQUIREMENTS}")
    if layer.packages:
        yield _run(" ".join(words), layer.secret_mounts, _CACHE, *mounts)


def _requirements(layer: definition_pb2.Requirements, hide: _Hide) -> Iterator[str]:
    install, mounts = _uv(hide, *_INSTALL, *options(layer.options), "--requirements", _REQUIREMENTS)
    yield _run(install, layer.secret_mounts, _CACHE, *mounts, _bind(layer.file, _REQUIREMENTS))


def _wheels(layer: definition_pb2.PythonWheels, hide: _Hide) -> Iterator[str]:
    """What the package needs, then the very wheel, whatever an index has under its name."""
    install, mounts = _uv(hide, *_INSTALL, *options(layer.options), "--find-links", "/tmp/dist")
    package = shlex.quote(layer.package_name)
    exact = f"{install} {' '.join(exactly(layer.options))} {package}"
    yield _run(f"{install} {package} && {exact}", layer.secret_mounts, _CACHE, *mounts, _bind(layer.dir, "/tmp/dist"))


def _uv_project(layer: definition_pb2.UVProject, hide: _Hide) -> Iterator[str]:
    """A project may refer to others beside it, below ``source_dir``."""
    source = _within(layer.source_dir or layer.pyproject)
    project = posixpath.normpath(posixpath.join(_PROJECT, posixpath.relpath(_within(layer.pyproject), source)))
    mounts = [_bind(source, _PROJECT)]
    if layer.uvlock and _within(layer.uvlock) != posixpath.join(_within(layer.pyproject), "uv.lock"):
        mounts.append(_bind(layer.uvlock, f"{project}/uv.lock"))
    sync, hidden = _uv(
        hide, "uv", "sync", "--active", "--inexact", "--no-editable", "--project", project, *options(layer.options)
    )
    yield _run(sync, layer.secret_mounts, _CACHE, *hidden, *mounts)


def _poetry_project(layer: definition_pb2.PoetryProject, hide: _Hide) -> Iterator[str]:
    directory = _within(layer.pyproject)
    if posixpath.basename(directory) == "pyproject.toml":
        directory = posixpath.dirname(directory)
    mounts = [_bind(directory, _PROJECT)]
    if layer.poetry_lock and _within(layer.poetry_lock) != posixpath.join(directory, "poetry.lock"):
        mounts.append(_bind(layer.poetry_lock, f"{_PROJECT}/poetry.lock"))
    extra = layer.extra_args
    install = shlex.join(
        ["uv", "tool", "run", "poetry", "install", "--no-interaction", "-C", _PROJECT, *poetry_arguments(extra)]
    )
    if installs_root(extra):
        install += f" && {shlex.join(_INSTALL)} --no-deps {_PROJECT}"
    yield _run(install, layer.secret_mounts, _CACHE, *mounts)


_INSTALLS = {
    "pip_packages": _pip,
    "requirements": _requirements,
    "python_wheels": _wheels,
    "uv_project": _uv_project,
    "poetry_project": _poetry_project,
}


def _uv(hide: _Hide, *words: str) -> tuple[str, list[str]]:
    """A command, and what is to be mounted for it."""
    shown, variables = apart(words)
    return shlex.join(shown), [f"{_SECRET},id={hide(value)},env={name}" for name, value in variables.items()]


def _run(command: str, secret_mounts: Sequence[security_pb2.Secret], *mounts: str) -> str:
    """More than one line goes as a document, which no line in it can end."""
    words = " ".join(["RUN", *mounts, *(mount for secret in secret_mounts for mount in _secret(secret))])
    if "\n" not in command:
        return f"{words} {command}"
    end = "END"
    while end in command:
        end += "_"
    return f"{words} <<{end}\n{command}\n{end}"


def _secret(secret: security_pb2.Secret) -> Iterator[str]:
    """Where the program of a layer finds a secret: variables, or files where the SDK says that they are."""
    mount = f"{_SECRET},id={variable(secret)}"
    if names.is_file(secret):
        yield from (f"{mount},mode=0444,target={_line(posixpath.join(names.DIRECTORY, path))}" for path in names.paths(secret))
    else:
        yield from (f"{mount},env={_line(name)}" for name in names.names(secret))


def _bind(source: str, target: str) -> str:
    """A copy for the one step: what it writes is gone afterwards."""
    return f"--mount=type=bind,rw,source={_line(_within(source), also=', ')},target={_line(target, also=', ')}"


def _within(path: str) -> str:
    """Raises InvalidArgument for a path that leads out of what the client sent."""
    found = posixpath.normpath(path)
    if found.startswith(("/", "../")) or found == "..":
        raise InvalidArgument(f"{path!r} is no path within the image's files")
    return found


def _quoted(text: str) -> str:
    """In double quotes, where ``$NAME`` is put in."""
    return '"' + (text and _line(text)).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _in_shell(text: str) -> str:
    """The same for a shell, to which a backtick would be a command."""
    return _quoted(text).replace("`", "\\`")


def _line(text: str, *, also: str = "") -> str:
    """Raises InvalidArgument for what would end an instruction or one of its words."""
    if not text or re.search(rf"[\x00-\x1f{also}]", text):
        raise InvalidArgument(f"{text!r} cannot stand in a Dockerfile")
    return text
