"""The words between executor, plugins and launchers: what a task is, as data, and what is seen of it.

A laptop's plugins give processes, timers and refusals; a cluster's give pods, operators' resources and remote jobs instead of
processes. What an object in the cluster means is said by the plugin that made it, as a pure function from object to ``State``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from flyteidl2.connector import connector_pb2
from flyteidl2.core import execution_pb2, security_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action, Failure, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """One attempt, as a plugin sees it."""

    action: Action
    spec: task_definition_pb2.TaskSpec
    run: Run
    run_spec: run_pb2.RunSpec
    output_prefix: str
    """Where this attempt writes outputs.pb, error.pb, report.html."""
    previous_prefix: str
    """The same of the attempt before; empty for the first."""
    raw_prefix: str
    """Where this attempt may write data of its own."""
    endpoint: str
    """Where its process reaches the server: ``host:port/t/<run token>``"""
    namespace: str = ""
    """Where its objects are in a cluster."""
    apps: str = ""
    """How it reaches apps: an address with ``{app_fqdn}`` for the name; empty where there are none."""
    inputs: common_pb2.Inputs | None = None
    """Only where the task's command line says their values: see ``container.wants_inputs``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What an attempt asks of the machine. 0 means: nothing said."""

    cpu: float = 0.0
    memory: int = 0
    """Bytes"""
    memory_limit: int = 0
    cpu_limit: float = 0.0
    """Kept of containers alone."""
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """What has to be where a process runs before it can: a module of its Python, or a program."""

    name: str
    advice: str
    """How to come by it. May hold ``{python}``, the interpreter."""
    program: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why an attempt ended, where its launcher knows better than an exit code tells: evicted, never pulled, node lost."""

    code: str
    message: str
    failure: Failure
    retryable: bool = True
    certain: bool = False
    """Complete outputs don't outweigh it: another container stored them than the one that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """The end of an attempt's process or object. All empty: nobody saw how it ended."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    fault: Fault | None = None
    """Weighs more than the code; less than what the attempt's files say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A local process."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    """What the task and the run ask for; the launcher's own comes below it, the system's above."""
    system: Mapping[str, str]
    resources: Resources
    image: str = ""
    """What the task says it runs in."""
    links: tuple[execution_pb2.TaskLog, ...] = ()
    """Of the task's own making: where else people may look while it runs."""
    secrets: tuple[security_pb2.Secret, ...] = ()
    """By reference: whoever launches it looks their values up, so that no work holds one."""
    needs: tuple[Need, ...] = ()
    fault: Callable[[Exit], Fault | None] = attrgetter("fault")
    """What its end means, where an exit code is the task's own word and not the runtime's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container(Process):
    """A process in its image, by podman or docker. ``arguments`` follow the image's own entry point, or ``entrypoint``."""

    entrypoint: str = ""
    inputs: str = ""
    """Where in the container its inputs are as files; empty: it has none."""
    outputs: str = ""
    """Where it leaves its outputs."""
    data: tuple[str, ...] = ()
    """What ``flyte-unified data run`` is to know of both."""


@dataclass(frozen=True, slots=True)
class Timer:
    """Nothing runs: the attempt succeeds after a time that its inputs tell. ``seconds`` raises InvalidArgument."""

    seconds: Callable[[common_pb2.Inputs], float]


@dataclass(frozen=True, slots=True)
class Refusal:
    """This server can't run it; ``message`` says what would."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What an object in the cluster tells of its attempt. With an ``exit`` it has ended."""

    phase: Phase
    """QUEUED, WAITING_FOR_RESOURCES, INITIALIZING or RUNNING: how far it has come, or had come when it ended."""
    since: Micros | None = None
    """When ``phase`` or the end began, where the object tells."""
    reason: str = ""
    """For people: why it is not further."""
    exit: Exit | None = None
    again: Micros | None = None
    """When the same object is to be looked at again, though nothing changed: a grace ends then."""
    links: tuple[execution_pb2.TaskLog, ...] = ()
    """Dashboards and the like, known only now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod. The launcher adds name, namespace, owner, finalizer and the labels by which it knows its pods."""

    manifest: Mapping[str, Any]
    """``metadata`` (labels, annotations) and ``spec``, as JSON on the wire."""
    primary: str
    """The container whose end is the attempt's."""
    links: tuple[execution_pb2.TaskLog, ...] = ()

    @property
    def image(self) -> str:
        """The primary container's."""
        containers = self.manifest["spec"]["containers"]
        return next((str(container["image"]) for container in containers if container["name"] == self.primary), "")

    def launched(self) -> Pod:
        """As much of it as matters to who waits for its end."""
        primary = {"name": self.primary, "image": sys.intern(self.image)}
        return replace(self, manifest={"spec": {"containers": [primary]}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """An operator's custom resource. The launcher adds to it what it adds to a pod."""

    manifest: Mapping[str, Any]
    """``apiVersion``, ``kind``, ``metadata`` (labels, annotations), ``spec``."""
    plural: str
    state: Callable[[Mapping[str, Any]], State]
    """Reads the whole object. Pure."""
    pod_labels: Callable[[str], Mapping[str, str]]
    """From the object's name to the labels of its pods, the one first whose log is the attempt's: driver, head, master."""
    container: str = ""
    """The container of that pod whose log is the attempt's; empty: its first."""
    links: tuple[execution_pb2.TaskLog, ...] = ()

    def launched(self) -> Resource:
        """As much of it as matters to who waits for its end."""
        return replace(self, manifest={name: self.manifest[name] for name in ("apiVersion", "kind")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job that a connector runs somewhere else (flyteidl2/connector)."""

    connectors: tuple[str, ...]
    """Addresses of services. Of several, the first that says it runs the task's type is taken."""
    request: connector_pb2.CreateTaskRequest
    """All but the inputs."""
    input_uri: str
    links: tuple[execution_pb2.TaskLog, ...] = ()


Runnable = Process | Pod | Resource | Job
"""Work that a launcher carries out."""

Work = Runnable | Timer | Refusal
