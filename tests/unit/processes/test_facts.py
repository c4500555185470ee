"""What is known of processes, also where there is no /proc."""

from __future__ import annotations

import os
import select
import subprocess

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


@pytest.mark.skipif(not facts.LINUX, reason="pidfd_open(2) is Linux's")
def test_an_end_is_seen_by_a_python_of_old_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that uv fetches have no ``os.pidfd_open``; the kernel has it all the same."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        handle = facts.end_of(process.pid)
        assert select.select([handle], [], [], 0)[0] == []
        process.communicate()
        assert select.select([handle], [], [], 30)[0] == [handle]
        handle.close()
    with pytest.raises(ProcessLookupError):
        facts.end_of(process.pid)
