"""Pages of runs and actions: what they show, and where they lead."""

from __future__ import annotations

from flyte_unified.console import store
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from tests.unit.console.conftest import ROOT, Console, outline

PAGE = "/v2/domain/development/project/flytesnacks/runs/rfirst"


async def test_a_run_at_the_address_that_the_sdk_prints(console: Console) -> None:
    """Phase, task, labels, inputs, outputs and the actions it started stand on one page."""
    await console.run(labels={"team": "core"}, x=41)
    await console.end(await console.child("step1"), seconds=2.5)
    await console.end(ROOT, o0=42)
    page = await console.see(PAGE)
    for text in ("main Succeeded", "rfirst", "pipeline.main", "team core", "x 41", "o0 42", "step step1 Succeeded", "2.5 s"):
        assert text in page.text, text
    assert page.refreshes() is None


async def test_home_leads_to_the_runs(console: Console) -> None:
    response = await console.get("/")
    assert (response.status, dict(response.headers)["location"]) == (302, "/v2")
