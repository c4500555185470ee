"""Tasks that are a command line: the SDK's ``a0`` in a container or in a pod's primary container.

``describe`` is the laptop's plugin: a local process. What it shares with pods is public here: the template variables, what the
SDK's runtime needs in its environment, links, and the reading of a task's pod.

Sources: the SDK's task serialisation; flyteidl2/core/tasks.proto for the fields.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flyteidl2.core import execution_pb2, tasks_pb2
from flyteidl2.task import run_pb2
from google.protobuf import struct_pb2

from flyte_unified.core.clock import timestamp
from flyte_unified.core.literals import text
from flyte_unified.core.names import object_name
from flyte_unified.core.quantities import quantity
from flyte_unified.core.templates import render
from flyte_unified.plugins.api import Process, Refusal, Resources, TaskContext, Work
from flyte_unified.plugins.secrets import wanted

RUNTIMES = frozenset({"a0", "pyflyte-execute"})
"""The SDKs' own programs: they read inputs and leave outputs and errors as files."""
_CHECKPOINTS = "_flytecheckpoints"
APPS = "INTERNAL_APP_ENDPOINT_PATTERN"
"""Where the SDK looks how apps are reached."""
ACTIONS = "_U_USE_ACTIONS"
"""1 has the SDK call ActionsService, anything else the older QueueService and StateService: the user's to choose."""
DEBUG = "_F_E_VS"
"""1 has the SDK start code-server in place of the task (``flyte run --debug``)."""
MIRRORED = "flyte.org/mirror-limits-request"
"""A run's annotation: ``true`` has tasks' limits be what they request. A run's spec has no field for that setting."""
_GPUS = "nvidia.com/gpu"
"""How a task's own pod calls them."""
_INPUTS = re.compile(rb"\{\{\s*[.$]inputs\.", re.IGNORECASE)
_ORG = "local"
"""The SDK's runtime wants a name; the server ignores it."""


def describe(context: TaskContext) -> Work:
    """The process of a task whose command is the SDK's runtime; a refusal for any other."""
    work = command(context)
    if isinstance(work, Process) and work.environment.get(DEBUG) == "1":
        return Refusal(
            "DebugUnavailable",
            "debug mode serves an editor without a password on every network of this machine, so it is not for a laptop; "
            "run the task under a debugger of your own: flyte run --local",
        )
    if isinstance(work, Refusal) or (work.arguments and posixpath.basename(work.arguments[0]) in RUNTIMES):
        return work
    return Refusal(
        "UnsupportedTaskType",
        f"task {context.spec.task_template.id.name!r} starts the SDK's runtime by another program "
        f"({work.arguments[0] if work.arguments else 'no command'}); on a laptop its command has to begin with it",
    )


def command(context: TaskContext) -> Process | Refusal:
    """The process of a task that has a command of its own, whatever it is."""
    template = context.spec.task_template
    if template.HasField("container"):
        container = template.container
        image, arguments = container.image, [*container.command, *container.args]
        environment = {entry.key: entry.value for entry in container.env}
        requests, limits = _entries(container.resources.requests), _entries(container.resources.limits)
    elif template.HasField("k8s_pod"):
        found = primary(template)
        if found is None:
            return Refusal("BadTaskSpecification", "the task's pod has no primary container")
        image, arguments = str(found.get("image", "")), [*_strings(found.get("command")), *_strings(found.get("args"))]
        environment = _pod_environment(found)
        asked = _mapping(found.get("resources"))
        requests, limits = _texts(asked.get("requests")), _texts(asked.get("limits"))
    else:
        return Refusal("BadTaskSpecification", f"a task of type {template.type!r} without container or pod can't run here")
    environment |= {entry.key: entry.value for entry in context.run_spec.envs.values}
    known = variables(context)
    return Process(
        arguments=render(arguments, known),
        environment=environment,
        system=system(context, actions=environment.get(ACTIONS, "1")),
        resources=_resources(requests, limits, context.run_spec),
        image=image,
        links=links(context, known),
        secrets=tuple(wanted(template.security_context, context.run_spec.security_context)),
    )


def mirrored(run: run_pb2.RunSpec) -> bool:
    """Whether limits are what is requested, whatever a task says of them."""
    return bool(run.annotations.values.get(MIRRORED) == "true")


def wants_inputs(template: tasks_pb2.TaskTemplate) -> bool:
    """Whether the task's command line or environment says values of its inputs: ``{{.inputs.x}}``."""
    return (
        _INPUTS.search((template.container if template.HasField("container") else template.k8s_pod).SerializeToString())
        is not None
    )


def variables(context: TaskContext) -> dict[str, str]:
    """Template variables of one attempt, keys in lower case."""
    action = context.action
    start = timestamp(context.run.start_time).ToJsonString()
    return {
        "input": action.input_uri,
        "inputprefix": posixpath.dirname(action.input_uri),
        "outputprefix": context.output_prefix,
        "rawoutputdataprefix": context.raw_prefix,
        "checkpointoutputprefix": posixpath.join(context.output_prefix, _CHECKPOINTS),
        "prevcheckpointprefix": posixpath.join(context.previous_prefix, _CHECKPOINTS) if context.previous_prefix else "",
        "runname": action.key.run,
        "actionname": action.key.name,
        "runstarttime": start,
        "perretryuniquekey": object_name(action.key, action.attempt),
        "namespace": context.namespace or f"{action.key.project}-{action.key.domain}",
        "executionproject": action.key.project,
        "executiondomain": action.key.domain,
        "executionorg": _ORG,
        "podname": object_name(action.key, action.attempt),
        **{f"inputs.{entry.name.lower()}": text(entry.value) for entry in (context.inputs.literals if context.inputs else ())},
    }


def system(context: TaskContext, *, actions: str) -> dict[str, str]:
    """What the SDK's runtime needs, whatever the user says."""
    action = context.action
    task = action.task
    return {
        **({APPS: context.apps} if context.apps else {}),
        "ACTION_NAME": action.key.name,
        "DO_NOT_TRACK": "1",
        "FLYTE_ATTEMPT_NUMBER": str(action.attempt - 1),
        "FLYTE_INTERNAL_EXECUTION_DOMAIN": action.key.domain,
        "FLYTE_INTERNAL_EXECUTION_ID": action.key.run,
        "FLYTE_INTERNAL_EXECUTION_PROJECT": action.key.project,
        "FLYTE_INTERNAL_TASK_DOMAIN": task.domain,
        "FLYTE_INTERNAL_TASK_NAME": task.name,
        "FLYTE_INTERNAL_TASK_PROJECT": task.project,
        "FLYTE_INTERNAL_TASK_VERSION": task.version,
        "FSSPEC_FILE_AUTO_MKDIR": "1",
        "RUN_NAME": action.key.run,
        "_F_PN": object_name(action.key, action.attempt),
        "_U_EP_OVERRIDE": context.endpoint,
        "_U_INSECURE": "true",
        "_U_ORG_NAME": _ORG,
        "_U_RUN_BASE": action.output_base.rstrip("/"),
        ACTIONS: actions,
    }


def links(context: TaskContext, known: Mapping[str, str]) -> tuple[execution_pb2.TaskLog, ...]:
    """The task's own links, with the attempt's variables put in."""
    return tuple(_link(link, known) for link in context.spec.task_template.metadata.log_links)


def _link(link: execution_pb2.TaskLog, known: Mapping[str, str]) -> execution_pb2.TaskLog:
    rendered = execution_pb2.TaskLog(ready=True)
    rendered.MergeFrom(link)
    rendered.name, rendered.uri = render((link.name, link.uri), known)
    return rendered


def _resources(requests: Mapping[str, str], limits: Mapping[str, str], run: run_pb2.RunSpec) -> Resources:
    """The run gives what a task has that says nothing of it, and the most that any has."""
    given = run.default_settings.task_resource_defaults
    least, most = _entries(given.requests), _entries(given.max)
    if _GPUS in requests or _GPUS in limits:
        least.pop("gpu", None)

    def amount(name: str, *said: Mapping[str, str]) -> float:
        field = f"resources.{name}"
        found = next((text for texts in said if (text := texts.get(name))), "")
        bound = most.get("gpu" if name == _GPUS else name)
        return min(quantity(text, field=field) for text in (found, bound or found)) if found else 0.0

    limiting = (requests, limits, least) if mirrored(run) else (limits,)
    return Resources(
        cpu=amount("cpu", requests, limits, least),
        memory=int(amount("memory", requests, limits, least)),
        memory_limit=int(amount("memory", *limiting)),
        cpu_limit=amount("cpu", *limiting),
        gpu=int(max(amount("gpu", requests, limits, least), amount(_GPUS, requests, limits))),
    )


def _entries(entries: Iterable[tasks_pb2.Resources.ResourceEntry]) -> dict[str, str]:
    return {tasks_pb2.Resources.ResourceName.Name(entry.name).lower(): entry.value for entry in entries}


def primary(template: tasks_pb2.TaskTemplate) -> Mapping[str, Any] | None:
    """The primary container of a task's pod, as its JSON has it; one without a name if it is the only one."""
    name = primary_name(template)
    spec = plain(template.k8s_pod.pod_spec) if template.k8s_pod.HasField("pod_spec") else {}
    listed = spec.get("containers")
    found = [_mapping(entry) for entry in listed] if isinstance(listed, list) else []
    named = [container for container in found if container.get("name") == name]
    if not named and len(found) == 1:
        named = found
    return named[0] if named else None


def primary_name(template: tasks_pb2.TaskTemplate) -> str:
    """What a pod task calls its primary container; empty where it doesn't say."""
    return str(template.k8s_pod.primary_container_name or template.config.get("primary_container_name", ""))


def plain(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A pod as JSON: its whole numbers whole again, which a Struct can't tell from others."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case "number_value":
            return int(value.number_value) if value.number_value.is_integer() else value.number_value
        case "string_value" | "bool_value" as kind:
            return getattr(value, kind)
    return None


def _pod_environment(container: Mapping[str, object]) -> dict[str, str]:
    """``valueFrom`` needs a cluster; such variables are left out."""
    entries = container.get("env")
    listed = entries if isinstance(entries, Sequence) else ()
    return {
        str(entry["name"]): str(entry.get("value", ""))
        for entry in listed
        if isinstance(entry, Mapping) and "name" in entry and "valueFrom" not in entry
    }


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(item) for key, item in _mapping(value).items()}
