"""What Postgres takes as the key of an index: a third of a page, whatever clients call their things."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Column, String, Table, Text

from flyte_unified.db.tables import LABEL, metadata, replicated

_MOST = 2704
_HEAD = 8
_NAME = 4 * 255
"""Bytes of a name in any script"""
_PLAIN = {"project", "domain", "run", "parent", "app", "host", "digest", "partition"}
"""Of letters that are one byte each."""
_BYTES = {
    "runs.request_id": 4 * 256,
    "runs.created_by": 256,
    "run_labels.key": 4 * LABEL,
    "run_labels.value": 4 * LABEL,
    "artifact_names.name": 255,
    "artifacts.name": 255,
    "artifacts.source_run": 30,
    "trigger_offers.task": 1200,
    "trigger_offers.name": 0,  # both together
    "trigger_offers.artifact": 255,
    "actions.task_project": 63,
    "actions.task_domain": 63,
    "actions.task_name": _NAME,
    "actions.task_version": _NAME,
}
"""What the services let by, where the table itself does not tell."""


def _keys() -> Iterator[tuple[str, list[Column[Any]]]]:
    tables: list[Table] = [*metadata.sorted_tables, *replicated.sorted_tables]
    for table in tables:
        yield str(table.primary_key.name), list(table.primary_key.columns)
        yield from ((str(index.name), list(index.columns)) for index in table.indexes)


def _size(column: Column[Any]) -> int:
    """At most, with the length before a text and what aligns it."""
    if not isinstance(column.type, String):
        return 8 + 7
    told = _BYTES.get(f"{column.table.name}.{column.name}")
    if told is None:
        assert not isinstance(column.type, Text) and column.type.length, f"who bounds {column}?"
        told = column.type.length * (1 if column.name in _PLAIN else 4)
    return told + (7 if told > 126 else 4)


@pytest.mark.parametrize(("name", "columns"), [pytest.param(*key, id=key[0]) for key in _keys()])
def test_a_key_has_room(name: str, columns: list[Column[Any]]) -> None:
    """The longest that can come fits, so that no call fails for the length of a name that was accepted."""
    assert _HEAD + sum(map(_size, columns)) <= _MOST
