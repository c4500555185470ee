"""Tasks in images of their own, on a laptop: what they are, and what their ends mean."""

from __future__ import annotations

from typing import Any

import pytest

from flyte_unified.ledger.api import Failure
from flyte_unified.plugins import registry
from flyte_unified.plugins.api import Container, Exit, Process, Refusal, Work
from tests.unit.plugins.contexts import context_of, spec

INPUTS = {"inputs": {"variables": [{"key": "x", "value": {"type": {"simple": "INTEGER"}}}]}}


def described(**template: Any) -> Work:
    return registry.describe(context_of(spec(type="raw-container", **template)))


def container(**template: Any) -> Container:
    work = described(**template)
    assert isinstance(work, Container), work
    return work


def test_arguments_are_the_images_entry_points_and_a_command_is_in_its_place() -> None:
    """As Kubernetes has it."""
    plain = container(container={"image": "img", "args": ["one", "{{.runName}}"]})
    assert (plain.image, plain.entrypoint, plain.arguments) == ("img", "", ("one", "r1"))
    own = container(container={"image": "img", "command": ["sh", "-c"], "args": ["true"]})
    assert (own.entrypoint, own.arguments) == ("sh", ("-c", "true"))


def test_data_is_where_the_task_says() -> None:
    """Else where Flyte has it; without inputs there is none of them."""
    config = {"enabled": True, "inputPath": "/in", "outputPath": "/out", "format": "YAML"}
    said = container(container={"image": "img", "dataConfig": config}, interface=INPUTS)
    assert (said.inputs, said.outputs) == ("/in", "/out")
    assert "--format=YAML" in said.data
    silent = container(container={"image": "img"})
    assert (silent.inputs, silent.outputs) == ("", "/var/flyte/outputs")


def test_a_task_of_the_sdks_runtime_is_no_container() -> None:
    """Whatever its image; but one that hides the runtime in a shell can't be told from others, and is refused."""
    assert type(described(container={"image": "img", "args": ["a0", "--inputs", "i"]})) is Process
    hidden = described(container={"image": "img", "args": ["sh", "-c", "a0 --inputs i"]})
    assert isinstance(hidden, Refusal) and "by another program (sh)" in hidden.message
    pod = {"podSpec": {"containers": [{"name": "main", "image": "img"}]}, "primaryContainerName": "main"}
    other = described(k8sPod=pod)
    assert isinstance(other, Refusal) and "takes a cluster" in other.message
    built = described(container={"image": "local/tools:1", "args": ["sort"]})
    assert isinstance(built, Refusal) and "is a virtual environment of this machine" in built.message


@pytest.mark.parametrize(
    ("code", "limit", "expected", "failure"),
    [
        (3, "", "ContainerExited", Failure.USER),
        (137, "64Mi", "OOMKilled", Failure.USER),
        (137, "", "Interrupted", Failure.SYSTEM),
        (143, "64Mi", "Interrupted", Failure.SYSTEM),
    ],
)
def test_an_exit_code_weighs_more_than_outputs(code: int, limit: str, expected: str, failure: Failure) -> None:
    """A kill where there is a limit is taken for that of the limit."""
    limits = {"resources": {"limits": [{"name": "MEMORY", "value": limit}]}} if limit else {}
    known = container(container={"image": "img", **limits}).fault(Exit(code=code))
    assert known is not None
    assert (known.code, known.failure, known.certain) == (expected, failure, True)


def test_a_container_that_ends_well_has_no_fault() -> None:
    """Its outputs decide; the end of the process around it is told like any other's."""
    work = container(container={"image": "img"})
    assert work.fault(Exit(code=0)) is work.fault(Exit(signal=9)) is None
