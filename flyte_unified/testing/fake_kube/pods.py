"""Defaults and checks of pods."""

from __future__ import annotations

from flyte_unified.testing.fake_kube.errors import Cause
from flyte_unified.testing.fake_kube.resources import Object


def default(content: Object) -> None:
    spec = content.setdefault("spec", {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)


def check(content: Object, old: Object | None) -> list[Cause]:
    return []
