"""What is known of processes, also where there is no /proc."""

from __future__ import annotations

import pytest

from flyte_unified.launchers.processes import facts
from flyte_unified.launchers.processes.facts import Process

PS = """
    1     0     1
  500     1   500
  501   500   500
  502     1   500
  600     1   600
"""
"""As ``ps -axo pid=,ppid=,pgid=`` writes it on macOS."""


@pytest.mark.parametrize("session", [0, -1])
def test_what_never_had_a_process_has_no_tree(session: int) -> None:
    """Whatever stands in group or session 0: a work that failed to start must not take the machine along."""
    assert facts.tree(0, {1: Process(0, 1, session), 500: Process(1, 0, session)}) == set()


def test_a_tree_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descendants and the group, and nobody else: a session that is not told is nobody's."""
    monkeypatch.setattr(facts, "LINUX", False)
    monkeypatch.setattr(facts, "_run", lambda *argv: PS if "-axo" in argv else "")
    assert facts.tree(500, facts.table()) == {500, 501, 502}
    assert facts.tree(600, facts.table()) == {600}
    assert facts.tree(0, facts.table()) == set()
