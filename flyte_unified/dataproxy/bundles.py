"""Where a task's code is: the bundle that its command line names.

The SDK gives a bundle's address as an argument of the task's entry point, and has no other field for it that is always set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from flyteidl2.core import tasks_pb2
from google.protobuf.json_format import MessageToDict

_OPTIONS = ("--tgz", "--pkl")
_PRIMARY = "primary_container_name"
_NAME = re.compile(r"fast[0-9a-f]+\.tar\.gz|code_bundle\.pkl\.gz")
"""What the SDK calls a bundle that it uploads."""


def is_bundle(filename: str) -> bool:
    """Whether an upload of this name is a code bundle, whose address the SDK remembers for a day."""
    return _NAME.fullmatch(filename) is not None


def code_bundle(template: tasks_pb2.TaskTemplate) -> str:
    """The address of the task's code bundle, or an empty string: the code is in the image, say."""
    for arguments in _command_lines(template):
        for option, address in pairwise(arguments):
            if option in _OPTIONS:
                return address
    return str(template.metadata.code_bundle_uri)


def _command_lines(template: tasks_pb2.TaskTemplate) -> Iterator[Sequence[str]]:
    if template.HasField("container"):
        yield [*template.container.command, *template.container.args]
    if template.HasField("k8s_pod"):
        pod = template.k8s_pod
        containers: list[dict[str, Any]] = MessageToDict(pod.pod_spec).get("containers") or []
        primary = pod.primary_container_name or template.config.get(_PRIMARY, "")
        for container in sorted(containers, key=lambda container: container.get("name") != primary):
            yield [*(container.get("command") or ()), *(container.get("args") or ())]
