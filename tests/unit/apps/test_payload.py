"""From an app's container, or its pod's, to the process it is."""

from __future__ import annotations

import pytest
from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.core import tasks_pb2

from flyte_unified.apps.local.payload import payload
from flyte_unified.apps.model import AppKey
from flyte_unified.core.errors import FailedPrecondition, InvalidArgument

KEY = AppKey("p", "d", "hello")


def container(*arguments: str, port: int = 8080, name: str = "") -> idl.Spec:
    spec = idl.Spec()
    spec.container.command.extend(["fserve", "--raw-data-path", "{{.rawOutputDataPrefix}}", "--"])
    spec.container.args.extend(arguments)
    spec.container.env.add(key="A", value="{{.rawOutputDataPrefix}}")
    spec.container.ports.add(container_port=port, name=name)
    spec.container.resources.limits.add(name=tasks_pb2.Resources.MEMORY, value="1Gi")
    return spec


def test_templates_are_put_into_the_command() -> None:
    """Not into the environment, which is the user's."""
    found = payload(KEY, container("x"), raw_data="/raw/p/d/hello")
    assert found.line(8080) == ("fserve", "--raw-data-path", "/raw/p/d/hello", "--", "x")
    assert found.environment == {"A": "{{.rawOutputDataPrefix}}"}
    assert (found.port, found.http2, found.memory_limit) == (8080, False, 1 << 30)
    assert payload(KEY, container(name="h2c"), raw_data="").http2


@pytest.mark.parametrize(
    ("written", "moved"),
    [
        ("8080", "9999"),
        ("--port=8080", "--port=9999"),
        ("0.0.0.0:8080", "0.0.0.0:9999"),
        ("18080", "18080"),
        ("80801", "80801"),
        ("--size=8080x", "--size=8080x"),
    ],
)
@pytest.mark.parametrize("part", ["args", "command"])
def test_a_word_that_says_the_port_says_the_one_it_has(written: str, moved: str, part: str) -> None:
    """Where its own can't be had; else nothing is touched."""
    spec = container()
    getattr(spec.container, part).append(written)
    found = payload(KEY, spec, raw_data="")
    assert found.line(9999)[-1] == moved
    assert found.line(8080)[-1] == written
    assert found.told(8080) == {"PORT": "8080"}
    assert found.told(9999)["_F_APPLE_SILICON_HOST_PORT"] == found.told(9999)["PORT"] == "9999"


def test_connectors_do_not_meet_at_the_port_of_their_metrics() -> None:
    """The SDK gives all of them the same."""
    found = payload(KEY, container("c0", "--port", "8080", "--prometheus_port", "9092"), raw_data="")
    assert found.line(9999)[-4:] == ("--port", "9999", "--prometheus_port", "0")
    assert found.line(8080)[-1] == "9092"


def test_a_pods_primary_container_is_the_app() -> None:
    """By the SDK's name for it; what needs a cluster is left out."""
    spec = idl.Spec()
    spec.pod.pod_spec.update(
        {
            "containers": [
                {"name": "side", "command": ["no"]},
                {
                    "name": "app",
                    "command": ["serve"],
                    "args": ["8000"],
                    "env": [{"name": "A", "value": "b"}, {"name": "S", "valueFrom": {"secretKeyRef": {}}}],
                    "ports": [{"containerPort": 8000, "name": "h2c"}],
                    "resources": {"limits": {"memory": "64Mi"}},
                },
            ]
        }
    )
    found = payload(KEY, spec, raw_data="")
    assert found.line(8000) == ("serve", "8000")
    assert (found.environment, found.port, found.http2, found.memory_limit) == ({"A": "b"}, 8000, True, 64 << 20)
    spec.pod.primary_container_name = "nobody"
    with pytest.raises(InvalidArgument, match="no container 'nobody'"):
        payload(KEY, spec, raw_data="")


def test_an_image_of_its_own_is_refused_with_a_way_out() -> None:
    """A laptop has no containers to run it in."""
    spec = container()
    spec.container.ClearField("command")
    with pytest.raises(FailedPrecondition, match="Say what it runs"):
        payload(KEY, spec, raw_data="")


@pytest.mark.parametrize("port", [0, 65_536, 1 << 31])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    """Before the system is asked for it."""
    with pytest.raises(InvalidArgument, match=f"port {port}"):
        payload(KEY, container("x", port=port), raw_data="")
