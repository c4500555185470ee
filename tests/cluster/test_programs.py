"""The laptop's programs, the laptop's results: the same tests, on pods.

Left out is what is a laptop's own: its interpreters, its copies of local files, its sentences about what it can't run.
"""

# ruff: noqa: F401
from __future__ import annotations

from tests.sdk.conftest import Client
from tests.sdk.test_aborts import (
    test_aborting_a_run_ends_all_of_it,
    test_aborting_an_action_is_told_to_its_parent,
    test_children_end_with_their_parent,
)
from tests.sdk.test_artifacts import (
    test_an_artifact_starts_runs,
    test_only_a_success_produces_and_once,
    test_what_a_task_produced_is_an_artifact,
)
from tests.sdk.test_bounds import (
    test_a_deadline_is_for_all_attempts_together,
    test_a_parent_learns_which_bound_it_was,
    test_a_slow_attempt_may_be_repeated,
    test_a_task_may_not_run_for_too_long,
)
from tests.sdk.test_caching import (
    test_a_child_uses_what_a_run_computed,
    test_a_failure_is_not_kept,
    test_a_result_is_used_by_a_later_run,
    test_other_inputs_are_another_result,
    test_what_many_want_at_once_is_computed_once,
)
from tests.sdk.test_failures import (
    test_a_crash_after_the_outputs_is_a_success,
    test_a_crash_is_tried_again_though_the_task_asks_for_no_retries,
    test_a_parent_catches_what_its_child_raised,
    test_a_signal_is_named,
    test_a_task_is_tried_again_until_it_succeeds,
    test_an_error_that_forbids_retries_gets_none,
    test_an_error_that_nobody_catches_ends_the_run,
    test_crashes_have_a_budget_of_their_own,
    test_each_attempt_keeps_its_own_error,
    test_memory_has_a_limit,
    test_missing_outputs_are_a_failure,
    test_truncated_outputs_are_a_failure,
)
from tests.sdk.test_older import test_tasks_may_use_the_older_services
from tests.sdk.test_recovering import *  # noqa: F403
from tests.sdk.test_replay import *  # noqa: F403
from tests.sdk.test_shapes import *  # noqa: F403
from tests.sdk.test_shapes import told
from tests.sdk.test_waiting import *  # noqa: F403


def test_lines_of_both_streams_are_in_the_log(client: Client) -> None:
    """A container's two streams have no order between them."""
    lines = [line.strip() for line in told(client)["logs"]["lines"]]
    assert sorted(line for line in lines if "[flyte]" not in line) == ["a line without an end", "first line", "to stderr"]
