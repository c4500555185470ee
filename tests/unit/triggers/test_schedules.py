"""When triggers fire: pure functions of a schedule and a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from flyteidl2.task import common_pb2, run_pb2
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.triggers.catchup import ANNOTATION, CatchUp, Policy, chosen
from flyte_unified.triggers.schedule import Rate, Schedule, begin, latest, schedule_of
from tests.unit.triggers.world import MINUTE, at, cron, rate


def of(expression: str, zone: str = "") -> Schedule:
    found = schedule_of(cron(expression, zone))
    assert found is not None
    return found


def after(schedule: Schedule, since: str, count: int) -> list[str]:
    """The next ``count`` instants, as UTC."""
    found, moment = [], at(since)
    for _ in range(count):
        coming = schedule.after(moment, last=moment)
        assert coming is not None
        moment = coming
        found.append((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).strftime("%Y-%m-%d %H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("expression", "zone", "first", "second"),
    [
        ("*/5 * * * *", "", "2024-01-01 00:05:00", "2024-01-01 00:10:00"),
        ("0 6 * * *", "Asia/Tokyo", "2024-01-01 21:00:00", "2024-01-02 21:00:00"),
        ("0 6 * * *", "Asia/Kolkata", "2024-01-01 00:30:00", "2024-01-02 00:30:00"),
        ("CRON_TZ=Asia/Tokyo 0 6 * * *", "UTC", "2024-01-01 21:00:00", "2024-01-02 21:00:00"),
        ("TZ=Asia/Tokyo 0 6 * * *", "", "2024-01-01 21:00:00", "2024-01-02 21:00:00"),
        ("0 0 * * mon-fri", "", "2024-01-02 00:00:00", "2024-01-03 00:00:00"),
        ("0 0 29 2 *", "", "2024-02-29 00:00:00", "2028-02-29 00:00:00"),
        ("0 0 13 * 5", "", "2024-01-05 00:00:00", "2024-01-12 00:00:00"),
        ("0 12 ? * 1", "", "2024-01-01 12:00:00", "2024-01-08 12:00:00"),
        ("@hourly", "", "2024-01-01 01:00:00", "2024-01-01 02:00:00"),
        ("@daily", "", "2024-01-02 00:00:00", "2024-01-03 00:00:00"),
        ("@midnight", "", "2024-01-02 00:00:00", "2024-01-03 00:00:00"),
        ("@weekly", "", "2024-01-07 00:00:00", "2024-01-14 00:00:00"),
        ("@monthly", "", "2024-02-01 00:00:00", "2024-03-01 00:00:00"),
        ("@Yearly", "", "2025-01-01 00:00:00", "2026-01-01 00:00:00"),
        ("@annually", "", "2025-01-01 00:00:00", "2026-01-01 00:00:00"),
        ("@every 1h30m5s", "", "2024-01-01 01:30:05", "2024-01-01 03:00:10"),
    ],
)
def test_expressions(expression: str, zone: str, first: str, second: str) -> None:
    """Five fields, by names and numbers, descriptors, and zones beside them or in front."""
    assert after(of(expression, zone), "2024-01-01T00:00:00Z", 2) == [first, second]


@pytest.mark.parametrize(
    ("expression", "zone", "since", "instants"),
    [
        # London, 31 March 2024: 01:00 to 02:00 does not exist.
        ("30 1 * * *", "Europe/London", "2024-03-30T12:00:00Z", ["2024-03-31 01:00:00", "2024-04-01 00:30:00"]),
        ("15,45 1 * * *", "Europe/London", "2024-03-31T00:00:00Z", ["2024-03-31 01:00:00", "2024-04-01 00:15:00"]),
        ("0 * * * *", "Europe/London", "2024-03-31T00:00:00Z", ["2024-03-31 01:00:00", "2024-03-31 02:00:00"]),
        # London, 27 October 2024: 01:00 to 02:00 comes twice.
        ("30 1 * * *", "Europe/London", "2024-10-26T12:00:00Z", ["2024-10-27 00:30:00", "2024-10-28 01:30:00"]),
        ("30 1 * * *", "Europe/London", "2024-10-27T01:10:00Z", ["2024-10-28 01:30:00"]),
        ("*/30 * * * *", "Europe/London", "2024-10-27T00:15:00Z", ["2024-10-27 00:30:00", "2024-10-27 01:00:00"]),
        # Lord Howe changes by half an hour, Samoa left out the 30th of December 2011.
        ("10 2 * * *", "Australia/Lord_Howe", "2024-10-05T12:00:00Z", ["2024-10-05 15:30:00", "2024-10-06 15:10:00"]),
        ("0 8 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", ["2011-12-29 18:00:00", "2011-12-30 10:00:00"]),
    ],
)
def test_changes_of_the_clocks(expression: str, zone: str, since: str, instants: list[str]) -> None:
    """What falls into a gap comes right after it, and once; what falls into a repeated hour comes once, at the first."""
    assert after(of(expression, zone), since, len(instants)) == instants


def test_rates() -> None:
    """From their start on, itself included, whenever they are activated; without one from the activation on."""
    started = schedule_of(rate(5, start=at("2024-01-01T12:00:00Z")))
    assert started is not None
    assert after(started, "2024-01-01T08:00:00Z", 2) == ["2024-01-01 12:00:00", "2024-01-01 12:05:00"]
    assert after(started, "2024-01-01T12:04:00Z", 2) == ["2024-01-01 12:05:00", "2024-01-01 12:10:00"]
    free = schedule_of(rate(5))
    assert free is not None
    assert begin(free, at("2024-01-01T12:04:03.7Z")) == at("2024-01-01T12:09:03Z")
    hours = schedule_of(_rate(2, common_pb2.FIXED_RATE_UNIT_HOUR))
    days = schedule_of(_rate(3, common_pb2.FIXED_RATE_UNIT_DAY))
    assert (hours, days) == (Rate(7200 * SECOND), Rate(3 * 86_400 * SECOND))


def test_what_no_clock_fires() -> None:
    """Triggers without automation, and those of artifacts."""
    for kind in (common_pb2.TYPE_NONE, common_pb2.TYPE_ARTIFACT, common_pb2.TYPE_UNSPECIFIED):
        assert schedule_of(common_pb2.TriggerAutomationSpec(type=kind)) is None


@pytest.mark.parametrize(
    ("automation", "told"),
    [
        (cron("* * * *"), "has 4 fields"),
        (cron("0 * * * * *"), "has 6 fields"),
        (cron(""), "has 0 fields"),
        (cron("61 * * * *"), "Bad minute"),
        (cron("0 0 30 2 *"), "Bad day-of-month"),
        (cron("@fortnightly"), "fields"),
        (cron("@every 0s"), "interval"),
        (cron("@every soon"), "1h30m10s"),
        (cron("@every " + "9" * 5000 + "h"), "1h30m10s"),
        (cron("0 0 * * *", "Mars/Olympus"), "cron.timezone"),
        (cron("0 0 * * *", "../etc/passwd"), "cron.timezone"),
        (cron("0 0 * * *", "Europe"), "cron.timezone"),
        (cron("TZ=Mars 0 0 * * *"), "Mars"),
        (rate(0), "rate.value"),
        (rate(2**32 - 1), "rate.value"),
        (common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_SCHEDULE), "one of rate and cron"),
    ],
)
def test_what_is_no_schedule(automation: common_pb2.TriggerAutomationSpec, told: str) -> None:
    """Is refused in words when it is deployed, and not found out when it should fire."""
    with pytest.raises(InvalidArgument, match=told):
        schedule_of(automation)


def test_a_rate_needs_a_unit() -> None:
    with pytest.raises(InvalidArgument, match=r"rate\.unit"):
        schedule_of(_rate(1, common_pb2.FIXED_RATE_UNIT_UNSPECIFIED))


def test_the_older_field_of_an_expression() -> None:
    """A client of before time zones."""
    schedule = common_pb2.Schedule(cron_expression="0 6 * * *")
    found = schedule_of(common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_SCHEDULE, schedule=schedule))
    assert found is not None
    assert after(found, "2024-01-01T00:00:00Z", 1) == ["2024-01-01 06:00:00"]


def _rate(value: int, unit: int) -> common_pb2.TriggerAutomationSpec:
    schedule = common_pb2.Schedule(rate=common_pb2.FixedRate(value=value, unit=unit))  # type: ignore[arg-type]  # by number
    return common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_SCHEDULE, schedule=schedule)


_ZONES = st.sampled_from(
    ["UTC", "Europe/London", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca", "Asia/Gaza"]
)
_MINUTES = st.one_of(st.just("*"), st.integers(0, 59).map(str), st.sampled_from(["*/7", "0,30", "10-20/5"]))
_HOURS = st.one_of(st.just("*"), st.integers(0, 23).map(str), st.sampled_from(["*/3", "1,2", "0-4"]))
_DAYS = st.sampled_from(["* * *", "1 * *", "* 3 *", "* * 0", "* 10 0", "15 * 1-5", "L * *"])
_SCHEDULES = st.one_of(
    st.builds(lambda minute, hour, day, zone: of(f"{minute} {hour} {day}", zone), _MINUTES, _HOURS, _DAYS, _ZONES),
    st.builds(Rate, st.integers(1, 10**12)),
    st.builds(Rate, st.integers(1, 10**12), st.integers(0, 4 * 10**15).map(Micros)),
)
_TIMES = st.integers(1_500_000_000 * SECOND, 1_900_000_000 * SECOND).map(Micros)


@given(_SCHEDULES, _TIMES, st.integers(0, 400 * 86_400 * SECOND))
def test_a_series_goes_on_from_any_moment(schedule: Schedule, moment: Micros, gap: int) -> None:
    """Always forward, never past an instant, and the same whether one looks from the last instant or from between two."""
    series = [moment]
    for _ in range(4):
        coming = schedule.after(series[-1], last=series[-1])
        assert coming is not None
        series.append(coming)
    assert all(earlier < later for earlier, later in pairwise(series))
    for earlier, later in pairwise(series[1:]):
        between = Micros(earlier + gap % (later - earlier))
        assert schedule.after(between, last=earlier) == later


@given(_SCHEDULES, _TIMES, st.integers(0, 60), st.integers(1, 12))
def test_what_was_missed_is_the_end_of_the_series(schedule: Schedule, moment: Micros, count: int, limit: int) -> None:
    """Found from behind, it is what a walk from the front finds."""
    due = schedule.after(moment, last=moment)
    assert due is not None
    walked = [due]
    for _ in range(count):
        coming = schedule.after(walked[-1], last=due)
        assert coming is not None
        walked.append(coming)
    assert latest(schedule, due=due, now=walked[-1], limit=limit) == walked[-limit:]
    assert latest(schedule, due=due, now=Micros(due - 1), limit=limit) == []


def test_a_year_of_minutes_is_not_walked_through() -> None:
    """A trigger of every minute that was away for ten years costs what one costs that was away for two hours."""
    now = at("2024-01-01T00:00:00Z")
    found = latest(of("* * * * *"), due=Micros(now - 10 * 365 * 86_400 * SECOND), now=now, limit=100)
    assert found == [now - count * MINUTE for count in reversed(range(100))]


@pytest.mark.parametrize(
    ("policy", "limit", "late", "expected"),
    [
        (Policy.ALL, 100, 0, "12:00"),
        (Policy.ALL, 3, 0, "12:08"),
        (Policy.LATEST, 100, 0, "12:10"),
        (Policy.SKIP, 100, 0, "12:10"),
        (Policy.SKIP, 100, 61, None),
        (Policy.LATEST, 100, 61, "12:11"),
    ],
)
def test_policies(policy: Policy, limit: int, late: int, expected: str | None) -> None:
    """Of a series of every minute that was due at noon: which is next, ten minutes and ``late`` seconds past noon."""
    schedule = of("* * * * *") if late == 0 else of("0,1,2,3,4,5,6,7,8,9,10,11 12 * * *")
    now = Micros(at("2024-01-01T12:10:00Z") + (late + 60 if late else 0) * SECOND)
    found = CatchUp(policy, limit).choose(schedule, run_pb2.RunSpec(), due=at("2024-01-01T12:00:00Z"), now=now)
    assert found == (at(f"2024-01-01T{expected}:00Z") if expected else None)


def test_a_trigger_chooses_its_own_policy() -> None:
    """In an annotation of its run spec; a word that is none is refused."""
    spec = run_pb2.RunSpec()
    assert chosen(spec) is None
    spec.annotations.values[ANNOTATION] = "latest"
    noon = at("2024-01-01T12:00:00Z")
    assert CatchUp(Policy.ALL).choose(of("* * * * *"), spec, due=noon, now=Micros(noon + 5 * MINUTE)) == noon + 5 * MINUTE
    spec.annotations.values[ANNOTATION] = "sometimes"
    with pytest.raises(InvalidArgument, match="sometimes"):
        chosen(spec)
