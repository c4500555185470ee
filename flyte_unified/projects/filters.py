"""The filters of a list of projects, which are one text: ``eq(state, 0)+contains(name, demo)``, all to be met.

``value_in(id, a;b)`` takes many values. A ``+`` within a value is part of it.
"""

from __future__ import annotations

import re

from flyteidl2.common import list_pb2

from flyte_unified.core.errors import InvalidArgument

_FUNCTIONS = {
    "eq": list_pb2.Filter.EQUAL,
    "ne": list_pb2.Filter.NOT_EQUAL,
    "gt": list_pb2.Filter.GREATER_THAN,
    "gte": list_pb2.Filter.GREATER_THAN_OR_EQUAL,
    "lt": list_pb2.Filter.LESS_THAN,
    "lte": list_pb2.Filter.LESS_THAN_OR_EQUAL,
    "contains": list_pb2.Filter.CONTAINS,
    "value_in": list_pb2.Filter.VALUE_IN,
}
_BETWEEN = re.compile(r"(?<=\))\s*\+\s*(?=\w+\s*\()")
_TERM = re.compile(r"(\w+)\s*\(\s*([\w.]+)\s*,(.*)\)", re.DOTALL)


def parse(text: str) -> list[list_pb2.Filter]:
    """The filters in ``text``. Raises InvalidArgument naming the part that is none."""
    return [_filter(term.strip()) for term in _BETWEEN.split(text)] if text.strip() else []


def _filter(term: str) -> list_pb2.Filter:
    match = _TERM.fullmatch(term)
    if match is None:
        raise InvalidArgument(f"filters: {term[:128]!r} is no filter; one is written function(field, value)")
    name, field, value = match.groups()
    function = _FUNCTIONS.get(name.lower())
    if function is None:
        raise InvalidArgument(f"filters: there is no function {name[:64]!r}; known are {', '.join(_FUNCTIONS)}")
    values = value.split(";") if function == list_pb2.Filter.VALUE_IN else [value]
    return list_pb2.Filter(function=function, field=field, values=[each.strip() for each in values])
