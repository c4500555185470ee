"""From the settings to pods: what the server knows, and what pods are told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from flyte_unified.planes.pods import pod_config
from flyte_unified.plugins.api import Pod
from flyte_unified.plugins.pods import build
from flyte_unified.plugins.pods.config import PodConfig, default_secret
from flyte_unified.settings import Pods, SettingsError
from tests.unit.plugins.contexts import context_of, spec

WHERE = {"FLYTE_AWS_ENDPOINT": "http://store", "AWS_REGION": "eu-west-3"}
KEYS = {"FLYTE_AWS_ACCESS_KEY_ID": "id", "FLYTE_AWS_SECRET_ACCESS_KEY": "hidden"}


def configured(store: Mapping[str, str], **pods: str) -> PodConfig:
    return pod_config(Pods(**pods), store=store, templates=lambda *_: None, secrets=default_secret)


def test_keys_of_the_store_are_not_in_pods() -> None:
    """They come from the Secret that the operator names; where the store is, stands in the pod."""
    pod = build.Pods(configured(WHERE | KEYS, store_secret="store")).describe(context_of(spec()))
    assert isinstance(pod, Pod)
    written = json.dumps(pod.manifest)
    assert "hidden" not in written
    assert "http://store" in written
    [main] = pod.manifest["spec"]["containers"]
    assert {"secretRef": {"name": "store"}} in main["envFrom"]


def test_keys_without_a_secret_are_refused() -> None:
    """The message says both ways out. Without keys nothing is asked for."""
    with pytest.raises(SettingsError, match=r"pods\.store_secret; or .* ServiceAccount's role"):
        configured(WHERE | KEYS)
    assert configured(WHERE).store == WHERE
