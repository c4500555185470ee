"""Runs that go on from what another run had done."""

from __future__ import annotations

from tests.sdk.conftest import Client

RECOVERED, SUCCEEDED = ("stamp", "RECOVERED"), ("stamp", "SUCCEEDED")


def children(client: Client, case: str) -> list[tuple[str, str]]:
    return [(child["task"], child["phase"]) for child in client.say("recovering")[f"{case} children"]["actions"]]


def stamps(client: Client, case: str) -> list[str]:
    (found,) = client.say("recovering")[case]["outputs"]
    assert isinstance(found, list)
    return found


def test_what_succeeded_is_taken_over(client: Client) -> None:
    """A recovering run computes only what the failed one had not; nothing of the rest runs again."""
    assert client.say("recovering")["failed"]["phase"] == "FAILED"
    assert children(client, "recovered") == [RECOVERED, SUCCEEDED]
    assert client.say("recovering")["recovered children"]["actions"][0]["attempts"][0]["events"] == []


def test_a_recovered_run_can_be_recovered(client: Client) -> None:
    """Its results are those of the runs before it."""
    assert children(client, "twice") == [RECOVERED, RECOVERED]
    assert stamps(client, "twice") == stamps(client, "recovered")


def test_an_action_may_be_forced(client: Client) -> None:
    """Actions that are named are computed again."""
    assert children(client, "forced") == [SUCCEEDED, SUCCEEDED]
    assert stamps(client, "forced")[0] != stamps(client, "recovered")[0]


def test_a_rerun_takes_nothing_over(client: Client) -> None:
    """Without ``recover`` everything is computed again."""
    assert children(client, "again") == [SUCCEEDED, SUCCEEDED]
    assert stamps(client, "again")[0] != stamps(client, "recovered")[0]
