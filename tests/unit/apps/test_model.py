"""What becomes of an app when clients and those who run it say something."""

from __future__ import annotations

import pytest
from flyteidl2.app import app_definition_pb2 as idl

from flyte_unified.apps import model
from flyte_unified.apps.model import App, Phase, Told
from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import Aborted, AlreadyExists, InvalidArgument
from tests.unit.apps.machine import NOBODY, app, asked, changed


def phases(known: App) -> list[int]:
    return [condition.deployment_status for condition in known.status.conditions]


def test_a_new_app_waits_to_be_run() -> None:
    """What a client looks at last is never what it takes for a failure: neither STOPPED nor UNASSIGNED."""
    known = app()
    assert phases(known) == [Phase.DEPLOYMENT_STATUS_PENDING]
    assert (known.revision, known.spec.HasField("ingress")) == (1, True)


def test_its_old_name_for_active_is_understood() -> None:
    """STARTED, which the SDK says when it activates an app, is no change to a later deployment, which says ACTIVE."""
    message = asked(revision=1)
    message.spec.desired_state = idl.Spec.DESIRED_STATE_STARTED
    assert changed(app(), message) == app()


def test_the_same_again_is_no_error_and_another_is() -> None:
    """Who made it is no part of what it is."""
    known = app()
    assert model.again(known, asked(), now=Micros(2)) is known
    with pytest.raises(AlreadyExists):
        model.again(known, asked("other"), now=Micros(2))


def test_what_failed_is_tried_again_when_it_is_asked_for_again() -> None:
    """The same revision, which is no failure any more: ``flyte serve`` would give up on it before the next try."""
    known = model.observed(app(), Told(phase=Phase.DEPLOYMENT_STATUS_FAILED), now=Micros(2))
    assert known is not None
    for after in (model.again(known, asked(), now=Micros(3)), changed(known, asked(revision=1))):
        assert (after.revision, after.version, phases(after)[-1]) == (1, 3, Phase.DEPLOYMENT_STATUS_PENDING)


def test_an_update_is_of_the_present_revision() -> None:
    """Or it was made already, and its client has not heard of it."""
    known = app()
    second = changed(known, asked("two", revision=1))
    assert (second.revision, phases(second)) == (2, [Phase.DEPLOYMENT_STATUS_PENDING] * 2)
    assert second.deployment != known.deployment
    assert changed(second, asked("two", revision=1)) is second
    for revision in (0, 1, 3):
        with pytest.raises(Aborted, match="2 is the present one"):
            changed(second, asked("three", revision=revision))


def test_what_is_beside_the_program_is_the_same_deployment() -> None:
    """Scaling, links, timeouts and the rest: no replica is replaced for them, and nothing is said of its status."""
    known = app()
    message = asked(least=1, revision=1)
    message.spec.links.add(path="/docs")
    message.spec.timeouts.request_timeout.seconds = 5
    message.metadata.labels["team"] = "red"
    after = changed(known, message)
    assert (after.revision, after.deployment, phases(after)) == (2, known.deployment, phases(known))
    assert dict(after.meta.labels) == {"team": "red"}


def test_what_an_update_leaves_out_stays() -> None:
    """Its ingress, its bundle, its labels and its creator."""
    message = asked()
    message.spec.ingress.subdomain = "mine"
    message.metadata.code_bundle_uri = "/code"
    known = model.created(app().key, message, by="me", creator=NOBODY, now=Micros(1))
    after = changed(known, asked("two", revision=1))
    assert (after.spec.ingress.subdomain, after.meta.code_bundle_uri) == ("mine", "/code")


def test_a_history_is_bounded_and_holds_no_repetition() -> None:
    """The latest fifty."""
    known = app()
    told = Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, replicas=1)
    once = model.observed(known, told, now=Micros(2))
    assert once is not None
    assert model.observed(once, told, now=Micros(3)) is None
    for number in range(100):
        after = model.observed(once, Told(phase=told.phase, message=str(number)), now=Micros(number))
        assert after is not None
        once = after
    assert [condition.message for condition in once.status.conditions][-2:] == ["98", "99"]
    assert len(once.status.conditions) == 50
    assert known.status == app().status


def test_an_app_without_a_program_is_none() -> None:
    """Told by the field's name."""
    message = asked()
    message.spec.ClearField("container")
    with pytest.raises(InvalidArgument, match=r"app\.spec: neither container nor pod"):
        model.created(app().key, message, by="me", creator=NOBODY, now=Micros(1))
