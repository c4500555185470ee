"""Images that know nothing of Flyte: a container before them fetches their inputs, one beside them stores their outputs.

The one beside is Kubernetes' own kind of sidecar (an init container with ``restartPolicy: Always``, in clusters since 1.29). It
starts before the task, and kubelet sends it SIGTERM exactly when the task's containers have ended, with the pod's grace to
store what they left. To share the process namespace instead would show the task its helper's environment, the store's keys
included, change what PID 1 is for it, and leave a race for containers that end before anybody looked.

The exit code is known to nobody inside of the pod, so it is judged outside: see ``state``.
"""

from __future__ import annotations

import base64
import posixpath
import shlex
from collections.abc import Mapping
from typing import Any

from flyteidl2.core import tasks_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.plugins.api import TaskContext
from flyte_unified.plugins.container import RUNTIMES
from flyte_unified.plugins.pods.config import DataSide, Json
from flyte_unified.plugins.pods.reading import OURS
from flyte_unified.plugins.pods.scheduling import mount

DOWNLOADER = f"{OURS}download"
UPLOADER = f"{OURS}upload"

_INPUTS, _OUTPUTS = "flyte-inputs", "flyte-outputs"
_STATE, _STATE_PATH = "flyte-data", "/run/flyte"
_READY = f"{_STATE_PATH}/ready"
_WAIT = ["sh", "-c", f"until [ -e {_READY} ]; do sleep 0.05; done"]
"""Before the uploader can hear SIGTERM the task must not begin: it might be over by then."""
_MODULES = frozenset({"flyte._bin.runtime", "flytekit.bin.entrypoint"})


def data_config(template: tasks_pb2.TaskTemplate) -> tasks_pb2.DataLoadingConfig:
    """How the task wants its data."""
    return template.container.data_config if template.HasField("container") else template.k8s_pod.data_config


def is_raw(template: tasks_pb2.TaskTemplate, primary: Mapping[str, Any]) -> bool:
    """Whether the container is without an SDK's runtime, by its command line: ``a0`` itself, or within a shell's command."""
    if data_config(template).enabled:
        return True
    words = (word for text in (*(primary.get("command") or ()), *(primary.get("args") or ())) for word in _words(str(text)))
    return not any(posixpath.basename(word) in RUNTIMES or word in _MODULES for word in words)


def add(spec: dict[str, Any], primary: dict[str, Any], context: TaskContext, *, data: DataSide, store: Json) -> None:
    """The containers that move data, and the volumes that they share with the primary one. Raises InvalidArgument.

    ``store`` is the ``env`` and ``envFrom`` by which they reach it.
    """
    if not data.image:
        raise InvalidArgument(
            f"container {primary.get('name')!r} runs an image without Flyte's runtime; "
            "such tasks need pods.data_image, an image with flyte-unified in it"
        )
    template = context.spec.task_template
    asked = data_config(template)
    interface = template.interface
    before = []
    if interface.inputs.variables:
        path = asked.input_path or data.input_path
        mount(spec, primary, {"name": _INPUTS, "emptyDir": {}}, path, field="data_config.input_path")
        before.append(_ours(DOWNLOADER, _download(context, asked, path), _INPUTS, path, data=data, store=store))
    path = asked.output_path or data.output_path
    mount(spec, primary, {"name": _OUTPUTS, "emptyDir": {}}, path, field="data_config.output_path")
    uploader = _ours(UPLOADER, _upload(context, path), _OUTPUTS, path, data=data, store=store)
    mount(spec, uploader, {"name": _STATE, "emptyDir": {}}, _STATE_PATH, field="data_config")
    uploader |= {"restartPolicy": "Always", "lifecycle": {"postStart": {"exec": {"command": _WAIT}}}}
    spec["initContainers"] = [uploader, *before, *(spec.get("initContainers") or ())]
    spec["terminationGracePeriodSeconds"] = max(int(data.timeout), spec.get("terminationGracePeriodSeconds") or 0)


def _download(context: TaskContext, asked: tasks_pb2.DataLoadingConfig, path: str) -> list[str]:
    return ["download", f"--to={path}", *told_of_inputs(context, asked), f"--errors={context.output_prefix}"]


def told_of_inputs(context: TaskContext, asked: tasks_pb2.DataLoadingConfig) -> list[str]:
    """What ``flyte-unified data`` has to know of them."""
    config = tasks_pb2.DataLoadingConfig
    return [
        f"--from={context.action.input_uri}",
        f"--format={config.LiteralMapFormat.Name(asked.format)}",
        f"--layout={config.FileInputLayout.Name(asked.file_input_layout)}",
    ]


def _upload(context: TaskContext, path: str) -> list[str]:
    return ["upload", f"--from={path}", *told_of_outputs(context), f"--ready={_READY}"]


def told_of_outputs(context: TaskContext) -> list[str]:
    """The same. Their types go along, as nothing in the files tells them."""
    outputs = context.spec.task_template.interface.outputs.SerializeToString(deterministic=True)
    encoded = base64.b64encode(outputs).decode()
    return [f"--to={context.output_prefix}", f"--raw={context.raw_prefix}", f"--outputs={encoded}"]


def _ours(name: str, args: list[str], volume: str, path: str, *, data: DataSide, store: Json) -> dict[str, Any]:
    amounts = {"cpu": data.cpu, "memory": data.memory}
    return {
        "name": name,
        "image": data.image,
        "command": list(data.command),
        "args": args,
        **store,
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": [{"name": volume, "mountPath": path}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote: a program's text, no command line
        return text.split()
