"""The services that the SDK calls when it is not told to call ActionsService."""

from __future__ import annotations

from tests.sdk.conftest import Client, calls


def test_tasks_may_use_the_older_services(newcomer: Client) -> None:
    """The run's variables or the task's choose QueueService and StateService; tasks, groups and results are the same."""
    procedures = (
        "QueueService/EnqueueAction",
        "StateService/Watch",
        "ActionsService/Enqueue",
        "ActionsService/WatchForUpdates",
    )
    before = [calls(newcomer, procedure) for procedure in procedures]
    said = newcomer.say("older")
    after = [calls(newcomer, procedure) for procedure in procedures]
    assert said["by run"]["outputs"] == [["0", "1", "4", "0"]]
    assert said["by task"]["outputs"] == [["1 0", "2 0"]]
    assert [late - early for late, early in zip(after, before, strict=True)] == [5, 2, 0, 0]
