"""Lists in SQL: filters, order and the place where a page begins, alike in SQLite and Postgres.

A room names its fields once (``Field``), hands their kinds to ``core.paging.listing``, applies the listing to its SELECT and
cuts the rows it gets: one more than the page holds was asked for, to know whether there are more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, false, func, not_, or_, true

from flyte_unified.core.filters import TEXT, Condition, Function, Kind, Value
from flyte_unified.core.paging import Listing


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or an expression, that a list can be filtered and sorted by."""

    column: ColumnElement[Any]
    kind: Kind = TEXT
    nullable: bool = False


Fields = Callable[[str], Field | None]
"""Finds a field by the name that requests use; ``dict.get`` is one."""


def kinds(fields: Fields) -> Callable[[str], Kind | None]:
    """The fields as ``core.paging.listing`` wants to know them."""

    def kind(name: str) -> Kind | None:
        field = fields(name)
        return field.kind if field is not None else None

    return kind


def apply(statement: Select[Any], listing: Listing, fields: Fields) -> Select[Any]:
    """``statement`` with the listing's WHERE, ORDER BY and LIMIT, and its sort values as additional last columns."""
    sorts = [(_known(fields, order.field), order.descending) for order in listing.order]
    statement = statement.where(*where(listing.conditions, fields))
    if listing.after is not None:
        statement = statement.where(_after(sorts, listing.after))
    statement = statement.add_columns(*(field.column.label(f"sort_{index}") for index, (field, _) in enumerate(sorts)))
    return statement.order_by(*(_ordered(field, descending) for field, descending in sorts)).limit(listing.limit + 1)


def cut(rows: Sequence[Row[Any]], listing: Listing) -> tuple[Sequence[Row[Any]], str]:
    """The page among the rows that ``apply`` brought, and the next one's token; empty after the last page."""
    if len(rows) <= listing.limit:
        return rows, ""
    page = rows[: listing.limit]
    return page, listing.token(page[-1][-len(listing.order) :])


def where(conditions: Sequence[Condition], fields: Fields) -> list[ColumnElement[bool]]:
    """The conditions in SQL, to be met all together."""
    return [_condition(condition, _known(fields, condition.field)) for condition in conditions]


def _known(fields: Fields, name: str) -> Field:
    field = fields(name)
    if field is None:
        raise LookupError(name)
    return field


def _condition(condition: Condition, field: Field) -> ColumnElement[bool]:
    match condition.function:
        case Function.EXISTS:
            return _exists(field)
        case Function.NOT_EXISTS:
            return not_(_exists(field))
        case Function.NOT_EQUAL:
            return _negated(field, field.column == condition.values[0])
        case Function.VALUE_NOT_IN:
            return _negated(field, field.column.in_(condition.values))
        case Function.NOT_ENDS_WITH:
            return _negated(field, _ends_with(field.column, str(condition.values[0])))
        case _:
            return _positive(condition, field.column)


def _positive(condition: Condition, column: ColumnElement[Any]) -> ColumnElement[bool]:
    value = condition.values[0]
    match condition.function:
        case Function.EQUAL:
            return column == value
        case Function.GREATER_THAN:
            return column > value
        case Function.GREATER_THAN_OR_EQUAL:
            return column >= value
        case Function.LESS_THAN:
            return column < value
        case Function.LESS_THAN_OR_EQUAL:
            return column <= value
        case Function.VALUE_IN:
            return column.in_(condition.values)
        case Function.CONTAINS:
            # SQLite's LIKE knows no upper case, and the two databases share no other search; this one both have.
            return func.replace(column, value, "") != column if value else column.is_not(None)
        case Function.CONTAINS_CASE_INSENSITIVE:
            return column.icontains(value, autoescape=True)
        case Function.ENDS_WITH:
            return _ends_with(column, str(value))
        case _:
            raise LookupError(condition.function)


def _exists(field: Field) -> ColumnElement[bool]:
    if field.nullable:
        return field.column.is_not(None)
    return field.column != "" if field.kind.textual else true()


def _negated(field: Field, positive: ColumnElement[bool]) -> ColumnElement[bool]:
    """What is absent is not equal to anything."""
    return or_(field.column.is_(None), not_(positive)) if field.nullable else not_(positive)


def _ends_with(column: ColumnElement[Any], ending: str) -> ColumnElement[bool]:
    start = func.length(column) - len(ending) + 1
    return and_(func.length(column) >= len(ending), func.substr(column, start) == ending)


def _ordered(field: Field, descending: bool) -> ColumnElement[Any]:
    """NULL is the smallest value in both databases."""
    ordered: ColumnElement[Any] = field.column.desc() if descending else field.column.asc()
    if not field.nullable:
        return ordered
    return ordered.nulls_last() if descending else ordered.nulls_first()


def _after(sorts: Sequence[tuple[Field, bool]], values: Sequence[Value | None]) -> ColumnElement[bool]:
    """Rows past the one with these sort values: past it in the first field, or equal there and past it in the rest."""
    past: ColumnElement[bool] = false()
    for (field, descending), value in reversed(list(zip(sorts, values, strict=True))):
        equal = field.column == value if value is not None else field.column.is_(None)
        past = or_(_past(field, value, descending=descending), and_(equal, past))
    (first, descending), value = sorts[0], values[0]
    if not first.nullable:  # says nothing new, but lets an index begin there
        past = and_(first.column <= value if descending else first.column >= value, past)
    return past


def _past(field: Field, value: Value | None, *, descending: bool) -> ColumnElement[bool]:
    if value is None:
        return false() if descending else field.column.is_not(None)
    if not descending:
        return field.column > value
    smaller = field.column < value
    return or_(smaller, field.column.is_(None)) if field.nullable else smaller
