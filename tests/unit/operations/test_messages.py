"""Our own messages are what their proto file says."""

from __future__ import annotations

from tests import generated_messages


def test_the_module_is_what_the_compiler_makes() -> None:
    """``make generate`` would change nothing."""
    assert generated_messages.MODULE.read_text() == generated_messages.module()
