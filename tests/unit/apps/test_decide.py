"""What is done about an app, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flyte_unified.apps.local.decide import Do, Process, Step, View, Why, decide

NOW = 1000.0
READY = Process(current=True, since=NOW - 100, ready=True, ending=False)
STARTING = replace(READY, ready=False, since=NOW - 5)
AWAKE = View(
    wanted=True,
    lasting=False,
    idle=60,
    patience=30,
    asleep=False,
    visitors=0,
    inside=0,
    quiet_since=NOW - 10,
    retry_at=0,
    drain_until=NOW + 7,
    process=READY,
)
EMPTY = replace(AWAKE, process=None)
REST, START = Step(Do.REST), Step(Do.START)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        pytest.param(EMPTY, START, id="one that is new is started once, asked for or not"),
        pytest.param(replace(EMPTY, wanted=False), Step(Do.REST, why=Why.UNWANTED), id="stopped"),
        pytest.param(replace(EMPTY, asleep=True), Step(Do.REST, why=Why.IDLE), id="asleep"),
        pytest.param(replace(EMPTY, asleep=True, visitors=1), START, id="woken"),
        pytest.param(replace(EMPTY, asleep=True, lasting=True), START, id="one that shall not sleep any more"),
        pytest.param(replace(EMPTY, retry_at=NOW + 4), Step(Do.WAIT, NOW + 4), id="before the next try"),
        pytest.param(replace(EMPTY, retry_at=NOW + 4, visitors=1), Step(Do.WAIT, NOW + 4), id="visitors hurry nothing"),
        pytest.param(AWAKE, Step(Do.WAIT, NOW + 50), id="quiet for a while"),
        pytest.param(replace(AWAKE, quiet_since=NOW - 60), Step(Do.END, why=Why.IDLE), id="quiet for long"),
        pytest.param(replace(AWAKE, quiet_since=NOW - 60, visitors=1, inside=1), REST, id="a long request"),
        pytest.param(replace(AWAKE, quiet_since=NOW - 60, lasting=True), REST, id="one that lasts"),
        pytest.param(replace(AWAKE, process=STARTING), Step(Do.WAIT, NOW + 25), id="starting"),
        pytest.param(replace(AWAKE, process=STARTING, patience=5), Step(Do.END, why=Why.LATE), id="starting for too long"),
        pytest.param(replace(AWAKE, process=replace(READY, ending=True), wanted=False), REST, id="on its way out"),
        pytest.param(replace(AWAKE, wanted=False), Step(Do.END, why=Why.UNWANTED), id="to be stopped"),
        pytest.param(replace(AWAKE, wanted=False, inside=1, visitors=1), Step(Do.WAIT, NOW + 7), id="to be stopped, in use"),
        pytest.param(
            replace(AWAKE, wanted=False, inside=1, drain_until=NOW), Step(Do.END, why=Why.UNWANTED), id="in use for too long"
        ),
        pytest.param(replace(AWAKE, process=replace(READY, current=False)), Step(Do.END, why=Why.REPLACED), id="outdated"),
        pytest.param(
            replace(AWAKE, process=replace(READY, current=False), visitors=3),
            Step(Do.END, why=Why.REPLACED),
            id="outdated, and those who wait wait for the next one",
        ),
    ],
)
def test_a_case(view: View, step: Step) -> None:
    """Pure: no clock, no process."""
    assert decide(view, NOW) == step
