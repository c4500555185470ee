"""A pod's volumes as directories of this node, and where a container sees them.

What a service account's token would open is not this node's to give: the mount that API servers add to every pod for it
is left out, and a volume that asks for one, as any volume of a kind that needs a driver, is an error of the pod.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.testing.kubelet.environment import (
    ConfigError,
    Object,
    Sources,
    containers,
    expanded,
    pod_field,
    resource_field,
)

_TOKEN = PurePosixPath("/var/run/secrets/kubernetes.io/serviceaccount")
_KINDS = ("emptyDir", "configMap", "secret", "projected", "downwardAPI", "hostPath")
_FIXED = ("configMap", "secret", "projected", "downwardAPI")
"""What containers can only read."""


class MountError(FailedPrecondition):
    """A volume cannot be set up now: the pod waits, and an event says why."""


@dataclass(frozen=True, slots=True)
class Mount:
    """``source`` of this machine, seen by the container at ``target``."""

    source: Path
    target: PurePosixPath
    read_only: bool


def used(pod: Object) -> list[Object]:
    """The pod's volumes that a container mounts, but for the service account's token."""
    names = {mount["name"] for container in containers(pod) for mount in _mounts(container)}
    return [volume for volume in pod["spec"].get("volumes") or () if volume["name"] in names]


def mapped(pod: Object) -> bool:
    """Whether a container is to see something else at a path than the machine does."""
    paths = {volume["name"]: (volume.get("hostPath") or {}).get("path") for volume in used(pod)}
    every = [mount for container in containers(pod) for mount in _mounts(container)]
    return any(mount.get("readOnly") or paths.get(mount["name"]) != mount["mountPath"] for mount in every)


def set_up(volume: Object, directory: Path, *, pod: Object, sources: Sources, capacity: Mapping[str, str]) -> Path:
    """Make ``volume`` in ``directory``, unless it is there. Returns its place. Raises MountError."""
    kind = next((kind for kind in volume if kind != "name"), "emptyDir")
    if kind not in _KINDS:
        raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : this node has no driver for {kind}')
    content = volume.get(kind) or {}
    if kind == "hostPath":
        return _host_path(volume["name"], content)
    place: Path = directory / volume["name"]
    place.mkdir(parents=True, exist_ok=True)
    if kind == "emptyDir":
        place.chmod(0o777)
        return place
    try:
        parts = content.get("sources") or () if kind == "projected" else [{kind: content}]
        for part in parts:
            _project(part, place, pod=pod, sources=sources, capacity=capacity, mode=content.get("defaultMode", 0o644))
    except ConfigError as error:
        raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error.message}') from error
    return place


def mounts(container: Object, places: Mapping[str, Path], *, pod: Object, env: Mapping[str, str]) -> list[Mount]:
    """What ``container`` mounts, parents before what lies in them. ``places`` are the volumes' directories."""
    kinds = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    found = []
    for mount in _mounts(container):
        source = places[mount["name"]]
        if below := expanded(mount.get("subPathExpr", ""), env) or mount.get("subPath", ""):
            source = _below(source, below)
        read_only = bool(mount.get("readOnly")) or any(kind in kinds[mount["name"]] for kind in _FIXED)
        target = PurePosixPath(os.path.normpath("/" + mount["mountPath"].lstrip("/")))
        if Path(target) != source or read_only:
            found.append(Mount(source, target, read_only))
    return sorted(found, key=lambda mount: mount.target.parts)


def remove(directory: Path) -> None:
    """Remove what a pod left on this node."""
    shutil.rmtree(directory, ignore_errors=True)  # a file that the program protected from us goes with the node's directory


def _mounts(container: Object) -> list[Object]:
    return [mount for mount in container.get("volumeMounts") or () if PurePosixPath(mount["mountPath"]) != _TOKEN]


def _below(source: Path, path: str) -> Path:
    """A subPath, which is made as a directory if it is not there."""
    if ".." in PurePosixPath(path).parts or path.startswith("/"):
        raise MountError(f"subPath {path!r} leads out of its volume")
    found = source / path
    if not found.exists():
        found.mkdir(parents=True)
    return found


def _host_path(name: str, content: Object) -> Path:
    path, kind = Path(content["path"]), content.get("type", "")
    if kind == "DirectoryOrCreate" or (not kind and not path.exists()):
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    fits = path.is_dir() if kind.startswith("Directory") else path.is_file() if kind.startswith("File") else path.exists()
    if not fits:
        what = kind.removesuffix("OrCreate").lower() or "path"
        raise MountError(f'MountVolume.SetUp failed for volume "{name}" : hostPath type check failed: {path} is not a {what}')
    return path


def _project(part: Object, place: Path, *, pod: Object, sources: Sources, capacity: Mapping[str, str], mode: int) -> None:
    for kind, content in part.items():
        if kind == "downwardAPI":
            for item in content.get("items") or ():
                if reference := item.get("fieldRef"):
                    text = pod_field(pod, reference["fieldPath"])
                else:
                    text = resource_field(pod, item["resourceFieldRef"], container=None, capacity=capacity)
                _write(place / item["path"], text.encode(), item.get("mode", mode))
        elif kind in ("configMap", "secret"):
            _project_data(kind, content, place, sources=sources, mode=content.get("defaultMode", mode))
        else:
            raise ConfigError(f"this node does not give out {kind}")


def _project_data(kind: str, content: Object, place: Path, *, sources: Sources, mode: int) -> None:
    name = content.get("secretName") or content["name"]
    data = sources.get("Secret" if kind == "secret" else "ConfigMap", content, name=name)
    if data is None:
        return
    items = content.get("items")
    every: list[Object] = [{"key": key, "path": key} for key in data]
    for item in every if items is None else items:
        if item["key"] in data:
            _write(place / item["path"], data[item["key"]], item.get("mode", mode))
        elif not content.get("optional"):
            raise ConfigError(f"references non-existent {kind} key: {item['key']}")


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
