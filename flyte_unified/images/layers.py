"""From an image's layers (flyteidl2/imagebuilder/definition.proto) to the steps that make a virtual environment like it. Pure.

A virtual environment has Python packages, variables and files beside the task. What takes an operating system of one's own is
the machine's: a package of it is there or the build says how to get it, and commands run on the machine itself, so only where
the settings allow it.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flyteidl2.core import security_pb2
from flyteidl2.imagebuilder import definition_pb2

from flyte_unified.core.errors import FailedPrecondition, InvalidArgument
from flyte_unified.core.images import default

HOME = "/root"
"""Where a container begins, and what copied files are relative to, unless a layer says another directory."""

_SYNC = ("sync", "--active", "--inexact", "--no-editable")
_ROOTLESS = "--no-root"
_USER = re.compile(r"\buseradd\b[^;&|]*\bflyte\b")
_VARIABLE = re.compile(r"\$(\w+)")
LOGIN = re.compile(r"(?<=://)(?!git@)[^/@\s]+@")
"""What an address may begin with that nobody else is to read."""
_ADDRESSES = {
    **dict.fromkeys(("--index-url", "-i"), "UV_INDEX_URL"),
    "--extra-index-url": "UV_EXTRA_INDEX_URL",
    "--default-index": "UV_DEFAULT_INDEX",
    "--index": "UV_INDEX",
    **dict.fromkeys(("--find-links", "-f"), "UV_FIND_LINKS"),
}
"""Options of uv, and the variables that say the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the build takes from and puts to."""

    uv: str
    environment: str
    context: str
    """The directory of what the client sent along."""

    @property
    def python(self) -> str:
        return f"{self.environment}/bin/python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A program. What has a password, or may refer to a secret, can't stand in ``ps``: ``lines`` are for a file whose path is
    added to ``argv``, ``variables`` for its environment.
    """

    argv: tuple[str, ...]
    directory: str = ""
    """Empty: where the image's files are."""
    lines: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    secrets: tuple[security_pb2.Secret, ...] = ()


@dataclass(frozen=True, slots=True)
class Take:
    """A file that has to lie in a project's directory."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Need:
    """Packages of the operating system."""

    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """A file, or what is in a directory, for the directory that tasks run in. ``target`` is relative to it.

    A file goes into a ``target`` that ends in a slash.
    """

    source: str
    target: str


Step = Run | Take | Need | Copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``steps`` each with the kind of layer that it is for."""

    steps: Sequence[tuple[str, Step]]
    variables: Sequence[tuple[str, str]]
    """In order: a later one may refer to those before as ``$NAME``."""
    notes: Sequence[str]
    """For the log: where the environment is another thing than the image would be."""


def plan(spec: definition_pb2.ImageSpec, places: Places, *, allow_commands: bool) -> Plan:
    """What is to be done for ``spec``. Raises FailedPrecondition for what can't be had here, naming the way out."""
    steps: list[tuple[str, Step]] = []
    variables: list[tuple[str, str]] = []
    final = workdir(spec)
    directory = HOME
    for layer in spec.layers:
        kind = layer.WhichOneof("layer")
        match kind:
            case "env":
                variables += sorted(layer.env.env_variables.items())
            case "workdir":
                directory = posixpath.join(directory, layer.workdir.workdir)
            case "copy_config":
                steps.append((kind, _copy(layer.copy_config, directory, final, places)))
            case "commands":
                steps += [(kind, step) for step in _commands(layer.commands, allow_commands)]
            case None:
                raise InvalidArgument("a layer of the image is of a kind that this server does not know")
            case _:
                steps += [(kind, step) for step in _INSTALLS[kind](getattr(layer, kind), places)]
    known = default(spec.base_image)
    notes = [] if known else [f"of the base image {spec.base_image} only the version of Python counts here"]
    return Plan(steps=steps, variables=variables, notes=notes)


def workdir(spec: definition_pb2.ImageSpec) -> str:
    """The directory in which the image's tasks would run in a container."""
    named = [layer.workdir.workdir for layer in spec.layers if layer.WhichOneof("layer") == "workdir"]
    return posixpath.normpath(posixpath.join(HOME, *named))


def _copy(layer: definition_pb2.CopyConfig, directory: str, final: str, places: Places) -> Copy:
    asked = posixpath.join(directory, layer.dst or ".")
    target = posixpath.normpath(asked)
    if target != final and not target.startswith(final.rstrip("/") + "/"):
        raise FailedPrecondition(
            f"{posixpath.basename(layer.src)} is to be copied to {target}, which on this machine is not the image's own: files "
            f"can be copied below the working directory ({final}), where tasks find them at relative paths. Copy to a relative "
            f"path, or name the directory: .with_workdir({posixpath.dirname(target)!r})"
        )
    into = "/" if layer.dst in ("", ".") or layer.dst.endswith(("/", "/.")) else ""
    return Copy(_within(places, layer.src), posixpath.relpath(target, final) + into)


def _commands(layer: definition_pb2.Commands, allowed: bool) -> Iterator[Step]:
    """But for the one by which the SDK's own images get a user, which nobody needs here."""
    commands = [command for command in layer.cmd if not _USER.search(command)]
    if commands and not allowed:
        raise FailedPrecondition(
            f"the command {commands[0]!r} would run on this machine itself, as you, and not in a container. If that is "
            "wanted, set images.allow_commands: true (FLYTE_UNIFIED_IMAGES_ALLOW_COMMANDS=true); else take the layer out"
        )
    for command in commands:
        yield Run(argv=("/bin/sh", "-c", command), secrets=tuple(layer.secret_mounts))


def _apt(layer: definition_pb2.AptPackages, places: Places) -> Iterator[Step]:
    yield Need(tuple(layer.packages))


def _pip(layer: definition_pb2.PipPackages, places: Places) -> Iterator[Step]:
    """In a file, and never in an argument, uv puts variables into addresses."""
    lines = tuple(layer.packages)
    if layer.secret_mounts:
        lines = tuple(_VARIABLE.sub(r"${\1}", package) for package in lines)
    if lines and (layer.secret_mounts or any(map(LOGIN.search, lines))):
        yield _uv(layer, _install(places, layer.options, "--requirements"), lines=lines)
    elif lines:
        yield _uv(layer, _install(places, layer.options, *lines))


def _requirements(layer: definition_pb2.Requirements, places: Places) -> Iterator[Step]:
    file = _within(places, layer.file)
    yield _uv(layer, _install(places, layer.options, "--requirements", file), directory=posixpath.dirname(file))


def _wheels(layer: definition_pb2.PythonWheels, places: Places) -> Iterator[Step]:
    """What the package needs, then the very wheel, whatever an index has under its name."""
    found = ("--find-links", _within(places, layer.dir))
    yield _uv(layer, _install(places, layer.options, *found, layer.package_name))
    yield _uv(layer, _install(places, layer.options, *found, *exactly(layer.options), layer.package_name))


def _uv_project(layer: definition_pb2.UVProject, places: Places) -> Iterator[Step]:
    """Never editable: the project's files are gone when the build is over."""
    project = _within(places, layer.pyproject)
    if layer.uvlock and _within(places, layer.uvlock) != f"{project}/uv.lock":
        yield Take(_within(places, layer.uvlock), f"{project}/uv.lock")
    argv = (places.uv, *_SYNC, "--python", places.python, "--project", project, *options(layer.options))
    yield _uv(layer, argv, directory=project)


def _poetry_project(layer: definition_pb2.PoetryProject, places: Places) -> Iterator[Step]:
    """Poetry itself stays out of the environment. It installs into the one that is active, and the project not as we want it:
    as a path to files that are gone when the build is over.
    """
    project = _within(places, layer.pyproject)
    if posixpath.basename(project) == "pyproject.toml":
        project = posixpath.dirname(project)
    if layer.poetry_lock and _within(places, layer.poetry_lock) != f"{project}/poetry.lock":
        yield Take(_within(places, layer.poetry_lock), f"{project}/poetry.lock")
    argv = (places.uv, "tool", "run", "poetry", "install", "--no-interaction", *poetry_arguments(layer.extra_args))
    yield Run(argv=argv, directory=project, secrets=tuple(layer.secret_mounts))
    if installs_root(layer.extra_args):
        yield Run(argv=_install(places, definition_pb2.PipOptions(), "--no-deps", project), secrets=tuple(layer.secret_mounts))


_INSTALLS = {
    "apt_packages": _apt,
    "pip_packages": _pip,
    "requirements": _requirements,
    "python_wheels": _wheels,
    "uv_project": _uv_project,
    "poetry_project": _poetry_project,
}


def _uv(layer: Any, argv: Sequence[str], *, directory: str = "", lines: tuple[str, ...] = ()) -> Run:
    shown, variables = apart(argv)
    secrets = tuple(layer.secret_mounts)
    return Run(argv=tuple(shown), directory=directory, lines=lines, variables=tuple(variables.items()), secrets=secrets)


def _install(places: Places, asked: definition_pb2.PipOptions, *rest: str) -> tuple[str, ...]:
    return (places.uv, "pip", "install", "--python", places.python, *options(asked), *rest)


def options(asked: definition_pb2.PipOptions) -> list[str]:
    """As arguments of uv."""
    found = ["--index-url", asked.index_url] if asked.index_url else []
    for url in asked.extra_index_urls:
        found += ["--extra-index-url", url]
    return [*found, *(["--prerelease=allow"] if asked.pre else []), *shlex.split(asked.extra_args)]


def apart(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Arguments of uv, and variables: all addresses of indexes where there is a login in one of them.

    Arguments are shown by ``ps``, and those of an image's steps by its history.
    """
    if not any(map(LOGIN.search, arguments)):
        return list(arguments), {}
    shown, variables = list[str](), dict[str, list[str]]()
    words = iter(arguments)
    for word in words:
        option, joined, value = word.partition("=")
        if option in _ADDRESSES:
            variables.setdefault(_ADDRESSES[option], []).append(value if joined else next(words, ""))
        else:
            shown.append(word)
    return shown, {name: ("," if name == "UV_FIND_LINKS" else " ").join(found) for name, found in variables.items()}


def exactly(asked: definition_pb2.PipOptions) -> list[str]:
    """Arguments of uv that have it install the wheel that it finds, and nothing else. None may be said twice."""
    said = options(asked)
    return [argument for argument in ("--no-deps", "--no-index", "--reinstall") if argument not in said]


def poetry_arguments(extra: str) -> list[str]:
    """The project itself is never among what Poetry installs."""
    return [_ROOTLESS, *(argument for argument in shlex.split(extra) if argument != _ROOTLESS)]


def installs_root(extra: str) -> bool:
    return _ROOTLESS not in shlex.split(extra)


def _within(places: Places, path: str) -> str:
    """Raises InvalidArgument for a path that leads out of what the client sent."""
    found = posixpath.normpath(posixpath.join(places.context, path))
    if found != places.context and not found.startswith(places.context + "/"):
        raise InvalidArgument(f"{path!r} is no path within the image's files")
    return found
