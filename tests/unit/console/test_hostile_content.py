"""What users wrote is shown as they wrote it, and never is markup."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.console.html import Html, link, render, tag
from flyte_unified.core.clock import timestamp
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import ActionType, Failure, Move, Retry
from tests.unit.console.conftest import ROOT, Console, Outline, outline

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)></style></pre>&lt;b&gt;"
PAGE = "/v2/domain/development/project/flytesnacks/runs/rfirst"
LINKED = quote(HOSTILE, safe="")


def _is_harmless(page: Outline) -> None:
    names = [element for element, _ in page.elements]
    assert {"script", "img", "iframe", "form", "base", "link"} & set(names) == set()
    assert names.count("style") == 1
    for element, attributes in page.elements:
        assert not any(name.startswith("on") or name in {"src", "style"} for name in attributes)
        if element == "a":
            assert (attributes["href"] or "").startswith(("/", "#main"))


async def test_everything_that_users_name(console: Console) -> None:
    """Task names, labels, values, errors, events, links, reasons, prompts and groups hold markup; the page has none of it."""
    await console.run(name=HOSTILE, labels={HOSTILE: HOSTILE}, **{HOSTILE: HOSTILE})
    await console.child("one", task=HOSTILE)
    condition = run_definition_pb2.ConditionAction(name="c", prompt=HOSTILE)
    await console.note("cond", ActionType.CONDITION, spec=condition.SerializeToString(), phase=Phase.PAUSED)
    error = execution_pb2.ExecutionError(code=HOSTILE, message=HOSTILE)
    details = run_definition_pb2.ActionAttempt()
    details.log_info.add(name=HOSTILE, uri=f"javascript:{HOSTILE}")
    details.cluster_events.add(occurred_at=timestamp(1), reason=HOSTILE, message=HOSTILE)
    await console.ledger.move(ROOT, Move(to=Phase.RUNNING, details=details))
    await console.ledger.move(ROOT, Retry(attempt=1, error=error, failure=Failure.USER))
    waiting = await console.see(f"{PAGE}?i=cond")
    await console.ledger.move(ROOT.sibling("one"), Move(to=Phase.ABORTED, reason=HOSTILE, principal=HOSTILE))
    aborted = await console.see(f"{PAGE}?i=one")
    await console.ledger.move(ROOT, Move(to=Phase.FAILED, error=error))
    run = await console.see(PAGE)
    for page in (run, waiting, aborted, await console.see("/v2"), await console.see(f"{PAGE}?phase=failed")):
        _is_harmless(page)
        assert "<script>alert(1)</script>" in page.text
    assert run.text.count("<img src=x onerror=alert(2)>") > 8


@pytest.mark.parametrize(
    "path", [f"{PAGE}{LINKED}", f"{PAGE}?i={LINKED}", f"{PAGE}?phase={LINKED}", f"/v2/{LINKED}", f"/v2?after={LINKED}"]
)
async def test_everything_that_a_link_may_hold(console: Console, path: str) -> None:
    """Whoever makes somebody follow a link writes nothing into the page."""
    response = await console.get(path)
    assert response.status in (400, 404)
    _is_harmless(outline(response))


async def test_a_task_is_found_whatever_its_name(console: Console) -> None:
    """A name with a query's and a path's characters stays one part of the address."""
    await console.run(name="a/b?c=d#e&f%20")
    href = (await console.see(PAGE)).links["a/b?c=d#e&f%20"]
    assert href == "/v2/domain/development/project/flytesnacks/tasks/a%2Fb%3Fc%3Dd%23e%26f%2520"


@pytest.mark.parametrize("path", ["/v2", PAGE, f"{PAGE}/none", "/v2/none"])
async def test_what_a_browser_may_do_with_a_page(console: Console, path: str) -> None:
    """No scripts, frames or forms, no guessing of types, no copies, and nobody is told where a reader came from."""
    await console.run()
    headers = dict((await console.get(path)).headers)
    policy = headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert policy[1] == "img-src 'self'"
    assert policy[2].startswith("style-src 'sha256-")
    assert policy[3:] == ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "text/html; charset=utf-8"


def test_text_is_escaped_and_markup_is_not() -> None:
    """Escaping is what happens if nothing else is said, also in attributes and within lists."""
    assert render(["<", [Html("<br>"), None, 3]]) == "&lt;<br>3"
    assert tag("p", "a&b", class_='"x"', hidden=True, id=None) == '<p class="&quot;x&quot;" hidden>a&amp;b</p>'
    assert tag("meta", name="x") == '<meta name="x">'


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", " https://x", "data:text/html,x", "JAVASCRIPT:x", "", "x:/y", "//evil.example"]
)
def test_a_link_leads_nowhere_else(href: str) -> None:
    """What is neither ours nor on the web is only text."""
    assert link(href, "text") == "<span>text</span>"
