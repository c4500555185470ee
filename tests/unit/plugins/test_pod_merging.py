"""One pod laid over another, and pods that are none."""

from __future__ import annotations

from typing import Any

from flyteidl2.core import tasks_pb2
from flyteidl2.task import task_definition_pb2
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_unified.plugins.api import Pod, Refusal
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import PodConfig
from flyte_unified.plugins.pods.merge import merged, on_template
from tests.unit.plugins.contexts import context_of


def test_what_is_over_wins_unless_it_says_nothing():
    """Deep in mappings; what is empty is not said, unless nothing is below it."""
    base = {"a": {"x": 1, "y": 2}, "b": "base", "c": ["base"], "d": ["kept"]}
    over = {"a": {"y": 3, "z": {}}, "b": "", "c": ["over"], "d": [], "e": {}, "f": None}
    assert merged(base, over) == {"a": {"x": 1, "y": 3, "z": {}}, "b": "base", "c": ["over"], "d": ["kept"], "e": {}}
    assert base["a"] == {"x": 1, "y": 2}


def test_lists_by_the_names_of_their_entries():
    """Containers in depth; a volume, a variable and a mount as a whole; tolerations and sources of variables add up."""
    base = {
        "containers": [{"name": "a", "image": "base", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}],
        "tolerations": [{"key": "t"}, {"key": "u"}],
    }
    over = {
        "containers": [{"name": "b"}, {"name": "a", "env": [{"name": "X", "valueFrom": {"fieldRef": {}}}]}],
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
        "tolerations": [{"key": "u"}, {"key": "v"}],
    }
    assert merged(base, over) == {
        "containers": [
            {"name": "a", "image": "base", "env": [{"name": "X", "valueFrom": {"fieldRef": {}}}, {"name": "Y", "value": "1"}]},
            {"name": "b"},
        ],
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "emptyDir": {}}],
        "tolerations": [{"key": "t"}, {"key": "u"}, {"key": "v"}],
    }


def test_bases_of_init_containers():
    """``default-init``, then one of the same name; a container named ``default`` is no base of theirs."""
    template = {
        "containers": [{"name": "default", "tty": True}, {"name": "side", "stdin": True}],
        "initContainers": [{"name": "default-init", "workingDir": "/w", "tty": False}, {"name": "fetch", "workingDir": "/f"}],
    }
    spec = {"containers": [{"name": "main"}, {"name": "side"}], "initContainers": [{"name": "fetch"}, {"name": "other"}]}
    found = on_template(template, spec, primary="main")
    assert found["containers"] == [{"name": "main", "tty": True}, {"name": "side", "tty": True, "stdin": True}]
    assert found["initContainers"] == [
        {"name": "fetch", "workingDir": "/f", "tty": False},
        {"name": "other", "workingDir": "/w", "tty": False},
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
FIELDS = ("env", "args", "command", "resources", "volumeMounts", "envFrom", "image")
CONTAINERS = JSON | st.lists(
    st.fixed_dictionaries({"name": st.just("main") | JSON}, optional=dict.fromkeys(FIELDS, JSON)), max_size=3
)
PODS = st.fixed_dictionaries(
    {"containers": CONTAINERS},
    optional={
        "initContainers": CONTAINERS,
        **dict.fromkeys(("volumes", "tolerations", "affinity", "nodeSelector", "terminationGracePeriodSeconds"), JSON),
    },
)


@given(own=PODS, template=PODS)
@settings(max_examples=200, deadline=None)
def test_any_pod_is_built_or_refused(own: dict[str, Any], template: dict[str, Any]):
    """A user's JSON and a PodTemplate's may hold anything; the API server has the last word on what is built."""
    described = task_definition_pb2.TaskSpec(task_template=tasks_pb2.TaskTemplate(type="python"))
    json_format.ParseDict(own, described.task_template.k8s_pod.pod_spec)
    described.task_template.k8s_pod.primary_container_name = "main"
    described.task_template.extended_resources.shared_memory.size_limit = "1Gi"
    described.task_template.extended_resources.gpu_accelerator.device = "T4"
    pods = Pods(PodConfig(templates=lambda *_: {"template": {"spec": template}}, default_template="any"))
    work = pods.describe(context_of(described))
    assert isinstance(work, Pod | Refusal)
    if isinstance(work, Refusal):
        assert work.code == "BadTaskSpecification"
