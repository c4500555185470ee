"""Pages that are generated say what is."""

from __future__ import annotations

from tests import coverage_page


def test_the_coverage_page_is_what_the_registry_says() -> None:
    """``make generate`` would change nothing."""
    assert coverage_page.PAGE.read_text() == coverage_page.page()
