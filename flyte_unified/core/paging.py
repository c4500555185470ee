"""How a list is cut into pages.

A page ends at a row, and its token says which: the values by which the rows are sorted, the last of them a key, so that rows
that come and go between two calls neither repeat nor hide others. A token belongs to the list that gave it: with another
order, other filters or another scope it is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from flyteidl2.common import list_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.filters import Condition, Kind, Value, conditions

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

_VERSION = 1
_MAX_SORTS = 8


class Order(NamedTuple):
    """One field of a sort."""

    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of one list. ``after`` holds the sort values of the last row seen, in the fields' order."""

    conditions: tuple[Condition, ...]
    order: tuple[Order, ...]
    limit: int
    digest: str
    after: tuple[Value | None, ...] | None = None

    def token(self, last: Sequence[Value | None]) -> str:
        """What brings the page after the row with these sort values."""
        return base64.urlsafe_b64encode(orjson.dumps([_VERSION, self.digest, *last])).rstrip(b"=").decode()


def listing(
    request: list_pb2.ListRequest,
    kind: Callable[[str], Kind | None],
    *,
    default: Sequence[Order],
    key: Sequence[str],
    scope: Sequence[object] = (),
    max_limit: int = MAX_LIMIT,
) -> Listing:
    """What ``request`` asks for. ``kind`` knows the fields, ``key`` names those that together tell one row from another.

    ``default`` is the order without ``sort_by_fields`` (and the deprecated ``sort_by``). ``scope`` is whatever else
    selects the rows. Raises InvalidArgument naming the field.
    """
    limit = request.limit or DEFAULT_LIMIT
    if limit > max_limit:
        raise InvalidArgument(f"request.limit is {limit}; at most {max_limit} are allowed")
    if request.raw_filters:
        raise InvalidArgument("request.raw_filters: only request.filters are read")
    filters = conditions(request.filters, kind)
    order = _complete(_asked(request, kind) or tuple(default), key)
    digest = _digest(scope, filters, order)
    after = _after(request.token, digest, [kind(each.field) for each in order]) if request.token else None
    return Listing(filters, order, limit, digest, after)


def _asked(request: list_pb2.ListRequest, kind: Callable[[str], Kind | None]) -> tuple[Order, ...]:
    sorts = list(request.sort_by_fields) or ([request.sort_by] if request.sort_by.key else [])
    if len(sorts) > _MAX_SORTS:
        raise InvalidArgument(f"request.sort_by_fields has {len(sorts)} fields; at most {_MAX_SORTS} are allowed")
    order: dict[str, Order] = {}
    for sort in sorts:
        if kind(sort.key) is None:
            field = "sort_by_fields" if request.sort_by_fields else "sort_by"
            raise InvalidArgument(f"request.{field}: can't sort by {sort.key[:128]!r}")
        order.setdefault(sort.key, Order(sort.key, sort.direction != list_pb2.Sort.ASCENDING))
    return tuple(order.values())


def _complete(order: tuple[Order, ...], key: Sequence[str]) -> tuple[Order, ...]:
    """``order`` made total by the key, in the direction of its last field, so that one index can serve it."""
    sorted_by = {each.field for each in order}
    descending = order[-1].descending if order else False
    return (*order, *(Order(field, descending) for field in key if field not in sorted_by))


def _digest(scope: Sequence[object], filters: tuple[Condition, ...], order: tuple[Order, ...]) -> str:
    return hashlib.blake2b(repr((tuple(scope), filters, order)).encode(), digest_size=9).hexdigest()


def _after(token: str, digest: str, kinds: Sequence[Kind | None]) -> tuple[Value | None, ...]:
    try:
        version, made_for, *values = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidArgument("request.token is none of ours") from None
    if version != _VERSION or made_for != digest or len(values) != len(kinds):
        raise InvalidArgument("request.token belongs to a list with another scope, other filters or another order")
    for value, kind in zip(values, kinds, strict=True):
        if value is not None and not _fits(value, kind):
            raise InvalidArgument("request.token is none of ours")
    return tuple(values)


def _fits(value: Value, kind: Kind | None) -> bool:
    if kind is not None and kind.textual:
        return isinstance(value, str) and "\0" not in value
    return type(value) is int and abs(value) < 2**63
