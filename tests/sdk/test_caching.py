"""Results that are used again: every computation has a stamp of its own, so equal stamps mean one computation."""

from __future__ import annotations

from tests.sdk.conftest import Client

HIT, POPULATED = 2, 3
"""flyteidl2.core.CatalogCacheStatus"""


def stamp(client: Client, case: str) -> str:
    (found,) = client.say("caching")[case]["outputs"]
    assert isinstance(found, str)
    return found


def status(client: Client, case: str) -> int:
    (attempt,) = client.say("caching")[case]["attempts"]
    assert isinstance(attempt["cache"], int)
    return attempt["cache"]


def test_a_result_is_used_by_a_later_run(client: Client) -> None:
    """The first run computes and keeps, the second one is done at once; its details say so."""
    assert (status(client, "first"), status(client, "again")) == (POPULATED, HIT)
    assert stamp(client, "first") == stamp(client, "again")
    assert client.say("caching")["again"]["attempts"][0]["events"] == []


def test_other_inputs_are_another_result(client: Client) -> None:
    """The key is of the inputs too."""
    assert stamp(client, "another input") != stamp(client, "first")


def test_a_child_uses_what_a_run_computed(client: Client) -> None:
    """Runs and children of the same task with the same inputs share results."""
    assert stamp(client, "child") == stamp(client, "first")
    (child,) = client.say("caching")["child children"]["actions"]
    assert child["attempts"][0]["cache"] == HIT


def test_a_run_may_insist_on_computing(client: Client) -> None:
    """``overwrite_cache`` computes anew, and what it computes is what is kept from then on."""
    assert stamp(client, "overwritten") != stamp(client, "first")
    assert stamp(client, "after overwriting") == stamp(client, "overwritten")


def test_results_have_a_scope(client: Client) -> None:
    """By default results are everybody's; within project and domain only their own."""
    assert stamp(client, "there") == stamp(client, "overwritten")
    assert stamp(client, "here") not in (stamp(client, "first"), stamp(client, "overwritten"))
    assert stamp(client, "here again") == stamp(client, "here")
    assert stamp(client, "only there") not in (stamp(client, "here"), stamp(client, "there"))


def test_ignored_inputs_do_not_matter(client: Client) -> None:
    """An input that the task lets its cache ignore may differ."""
    assert stamp(client, "ignored again") == stamp(client, "ignored first")


def test_results_grow_too_old(client: Client) -> None:
    """A result older than the task's ``max_age`` is computed again, a younger one is used."""
    assert stamp(client, "young") == stamp(client, "younger")
    assert stamp(client, "old") != stamp(client, "young")


def test_what_many_want_at_once_is_computed_once(client: Client) -> None:
    """Of three runs at the same time with a serialized task, one computes and the others wait for its result."""
    cases = [f"together {number}" for number in range(3)]
    assert len({stamp(client, case) for case in cases}) == 1
    assert sorted(status(client, case) for case in cases) == [HIT, HIT, POPULATED]


def test_a_failure_is_not_kept(client: Client) -> None:
    """When the run that computes fails, the next one tries for itself."""
    said = [client.say("caching")[f"failing {number}"] for number in range(2)]
    assert [facts["phase"] for facts in said] == ["FAILED", "FAILED"]
    assert all(len(facts["attempts"][0]["events"]) >= 2 for facts in said)
