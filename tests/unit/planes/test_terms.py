"""How a leader's term ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from flyte_unified.executor.controller import Controller
from flyte_unified.planes.cluster import Cluster


class Ending:
    """A part of a term."""

    def __init__(self, name: str, ended: list[str], *, failing: bool) -> None:
        self._name = name
        self._ended = ended
        self._failing = failing

    async def close(self) -> None:
        self._ended.append(self._name)
        if self._failing:
            raise OSError(self._name)

    stop = depose = close


@pytest.mark.parametrize("failing", ["apps", "postman", "scheduler", "controller", "templates"])
async def test_all_of_a_term_ends_though_a_part_fails(failing: str) -> None:
    """What went on would act beside the next leader's."""
    ended: list[str] = []
    apps, postman, scheduler, controller, templates = (
        Ending(name, ended, failing=name == failing) for name in ("apps", "postman", "scheduler", "controller", "templates")
    )
    parts = SimpleNamespace(apps=apps, postman=postman, scheduler=scheduler)
    cluster = cast("Cluster", SimpleNamespace(_parts=parts, _templates=[templates]))
    with pytest.raises(OSError, match=failing):
        await Cluster._end_term(cluster, cast("Controller", controller))
    assert ended == ["apps", "postman", "scheduler", "controller", "templates"]
