"""Runs of two kinds, and what the SDK finds when it asks for some of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import flyte
from flyte.remote import Action, Run, TimeFilter, User
from speak import say

env = flyte.TaskEnvironment(name="listed")


@env.task
async def child() -> int:
    return 1


@env.task
async def good() -> int:
    return await child()


@env.task
async def bad() -> int:
    raise ValueError("no")


def found(**asked: object) -> list[str]:
    """The runs' names, as they come."""
    return [run.name for run in Run.listall(**asked)]  # type: ignore[arg-type]


def main() -> None:
    flyte.init_from_config()
    began = datetime.now(UTC)
    first = flyte.with_runcontext(labels={"team": "red", "kind": "good"}).run(good)
    second = flyte.with_runcontext(labels={"team": "blue"}).run(bad)
    for run in (first, second):
        run.wait(quiet=True)
    me = str(User.get().subject())
    whole, past = TimeFilter(after=began - timedelta(hours=1)), TimeFilter(before=began - timedelta(hours=1))
    asked: dict[str, dict[str, object]] = {
        "oldest first": {},
        "newest first": {"sort_by": ("created_at", "desc")},
        "mine": {"created_by_subject": me},
        "nobody's": {"created_by_subject": "nobody"},
        "failed": {"in_phase": ("failed",)},
        "failed or running": {"in_phase": ("failed", "running")},
        "of a task": {"task_name": "listed.good"},
        "red": {"with_labels": {"team": "red"}},
        "red and good": {"with_labels": {"team": "red", "kind": "good"}},
        "red and bad": {"with_labels": {"team": "red", "kind": "bad"}},
        "of any kind": {"with_label_keys": ["kind"]},
        "since": {"created_at": whole, "updated_at": whole},
        "before": {"created_at": past},
        "unchanged": {"updated_at": past},
        "paused": {"paused_actions_only": True},
    }
    names = {first.name: "good", second.name: "bad"}
    for case, filters in asked.items():
        say(case, found=[names[name] for name in found(**filters)])
    children = [action.task_name for action in Action.listall(for_run_name=first.name)]
    say("actions", found=children)


if __name__ == "__main__":
    main()
