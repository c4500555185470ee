"""When a trigger fires. Pure: from what was deployed and a time to the next time.

A schedule is a series of instants that anybody can continue from any of its members, so that nothing but the next one has to
be remembered. Cron expressions are Debian's: at a change to summer time what falls into the gap comes right after it, and at
the change back what falls into the repeated hour comes once, but for entries of every hour or every minute, which follow real
time. A day given by both its number and its weekday is either, as ever in cron.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from flyteidl2.task import common_pb2

from flyte_unified.core.clock import SECOND, Micros, micros
from flyte_unified.core.errors import InvalidArgument

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNITS = {
    common_pb2.FIXED_RATE_UNIT_MINUTE: 60 * SECOND,
    common_pb2.FIXED_RATE_UNIT_HOUR: 3600 * SECOND,
    common_pb2.FIXED_RATE_UNIT_DAY: 86_400 * SECOND,
}
_LONGEST = 36_525 * 86_400 * SECOND
"""A century: beyond it, times leave the range of a protobuf timestamp."""
_FIELDS = 5
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = re.compile(r"@every\s+(?=\S)(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)", re.DOTALL)


class Schedule(Protocol):
    """A series of instants."""

    def after(self, at: Micros, *, last: Micros) -> Micros | None:
        """The first one past ``at``; None after the end. ``last`` is one of them, or the moment at which the series begins."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Every ``interval`` microseconds: from ``start`` on, itself included, else after the moment at which it begins."""

    interval: int
    start: Micros | None = None

    def after(self, at: Micros, *, last: Micros) -> Micros:
        if self.start is not None and self.start > at:
            return self.start
        anchor = self.start if self.start is not None else last
        return Micros(anchor + ((at - anchor) // self.interval + 1) * self.interval)


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression of five fields, by the clocks of ``zone``."""

    expression: str
    zone: tzinfo

    def after(self, at: Micros, *, last: Micros) -> Micros | None:
        local = (_EPOCH + timedelta(microseconds=at)).astimezone(self.zone)
        for found in CronSim(self.expression, local):
            instant = Micros((found.astimezone(UTC) - _EPOCH) // _MICROSECOND)
            if instant > at:  # in a repeated hour the library may look back to the first one
                return instant
        return None


def schedule_of(automation: common_pb2.TriggerAutomationSpec) -> Schedule | None:
    """What ``automation`` says; None where no clock fires it. Raises InvalidArgument naming the field."""
    if automation.type != common_pb2.TYPE_SCHEDULE:
        return None
    field = "automation_spec.schedule"
    schedule = automation.schedule
    match schedule.WhichOneof("expression"):
        case "rate":
            return _rate(schedule.rate, field=f"{field}.rate")
        case "cron":
            return _cron(schedule.cron.expression, schedule.cron.timezone, field=f"{field}.cron")
        case "cron_expression":
            return _cron(schedule.cron_expression, "", field=field)
    raise InvalidArgument(f"{field}: one of rate and cron must be set")


def begin(schedule: Schedule, now: Micros) -> Micros | None:
    """The first instant of a series that begins now, in whole seconds."""
    return schedule.after(now, last=Micros(now // SECOND * SECOND))


def latest(schedule: Schedule, *, due: Micros, now: Micros, limit: int) -> list[Micros]:
    """The last ``limit`` instants from ``due``, one of them, up to ``now``: what was missed, without a look at all of it."""
    if due > now:
        return []
    span = 60 * SECOND
    while True:
        since = max(due, Micros(now - span))
        found = ([due] if since == due else []) + list(_between(schedule, since, now, last=due))
        if since == due or len(found) >= limit:
            return found[-limit:]
        span *= 4


def _between(schedule: Schedule, since: Micros, until: Micros, *, last: Micros) -> Iterator[Micros]:
    """Past ``since``, up to ``until``."""
    at = schedule.after(since, last=last)
    while at is not None and at <= until:
        yield at
        at = schedule.after(at, last=last)


def _rate(rate: common_pb2.FixedRate, *, field: str) -> Rate:
    unit = _UNITS.get(rate.unit)
    if unit is None:
        raise InvalidArgument(f"{field}.unit: there is no unit {rate.unit}; known are minutes, hours and days")
    start = micros(rate.start_time, field=f"{field}.start_time") if rate.HasField("start_time") else None
    return Rate(_interval(rate.value * unit, field=f"{field}.value"), start)


def _interval(interval: int, *, field: str) -> int:
    if not 0 < interval <= _LONGEST:
        raise InvalidArgument(f"{field}: an interval is longer than nothing and no longer than a century")
    return interval


def _cron(expression: str, zone: str, *, field: str) -> Schedule:
    """A zone may stand in the expression itself, before its fields; it is the one that counts."""
    text = expression.strip()
    if (told := _ZONE.fullmatch(text)) is not None:
        zone, text = told.groups()
    if text.startswith("@every"):
        return Rate(_interval(_every(text, field=field), field=f"{field}.expression"))
    fields = _DESCRIPTORS.get(text.lower(), text).split()
    if len(fields) != _FIELDS:
        raise InvalidArgument(
            f"{field}.expression: {expression[:128]!r} has {len(fields)} fields; these five are read: minute, hour, day of the "
            f"month, month, day of the week; or one of {', '.join(_DESCRIPTORS)}, @every 1h30m"
        )
    plain = " ".join("*" + each[1:] if each.startswith("?") else each for each in fields)
    cron = Cron(plain, _zone(zone or "UTC", field=f"{field}.timezone"))
    try:
        comes = begin(cron, Micros(0)) is not None
    except CronSimError as error:
        raise InvalidArgument(f"{field}.expression: {expression[:128]!r}: {error}") from error
    except (AssertionError, ValueError, TypeError) as error:  # what the library's parser makes of some nonsense
        raise InvalidArgument(f"{field}.expression: {expression[:128]!r} can't be read") from error
    if not comes:
        raise InvalidArgument(f"{field}.expression: {expression[:128]!r} never comes")
    return cron


def _every(text: str, *, field: str) -> int:
    found = _EVERY.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"{field}.expression: {text[:128]!r}: an interval is written as 1h30m10s, in whole seconds")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * SECOND


def _zone(name: str, *, field: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidArgument(f"{field}: there is no time zone {name[:64]!r}") from error
