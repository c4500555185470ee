"""A server that can't lead stands aside, longer and longer, and says what it lacks."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from flyte_unified.kube.errors import Away, Forbidden
from flyte_unified.planes.campaign import Campaign

REFUSED = (
    'list pods: forbidden: pods is forbidden: User "system:serviceaccount:flyte:flyte-unified" cannot list resource "pods" in '
    'API group "" in the namespace "flyte"'
)


class Terms:
    """Each fails with the next error, after as many seconds as stand before it; after None it was under way."""

    def __init__(self, *errors: Exception | float | None) -> None:
        self._errors = list(errors)
        self._campaign = Campaign(self._run)
        self.began: list[float] = []

    async def all(self) -> list[float]:
        """The pauses between them."""
        with pytest.raises(asyncio.CancelledError):
            await self._campaign.last()
        return [later - earlier for earlier, later in zip(self.began, self.began[1:], strict=False)]

    async def _run(self) -> None:
        self.began.append(asyncio.get_running_loop().time())
        if not self._errors:
            raise asyncio.CancelledError
        error = self._errors.pop(0)
        if not isinstance(error, Exception):
            if error is None:
                self._campaign.under_way()
            else:
                await asyncio.sleep(error)
            error = self._errors.pop(0)
        assert isinstance(error, Exception)
        raise error


@pytest.mark.virtual_time
async def test_terms_that_fail_at_once_grow_rare():
    """The pause doubles up to a minute, never quite the same, and is short again after a term or a long wait for one."""
    away = Away("no answer")
    for terms, least in (
        ([away] * 8, [2, 4, 8, 16, 32, 60, 60, 60]),
        ([away, away, away, None, away, away], [2, 4, 8, 2, 4]),
        ([away, away, 600.0, away, away], [2, 4, 600 + 2, 4]),
    ):
        pauses = await Terms(*terms).all()
        assert [int(pause / 1.2) <= bound <= pause for pause, bound in zip(pauses, least, strict=True)] == [True] * len(least)
        assert pauses != least


@pytest.mark.virtual_time
async def test_a_missing_right_is_named():
    """In one sentence, with what gives it."""
    with capture_logs() as logs:
        await Terms(Forbidden(REFUSED, status=403)).all()
    [told] = logs
    assert told["log_level"] == "error"
    assert told["event"] == (
        "this server can't lead: its account may not list pods in the namespace flyte; config/kubernetes gives that right"
    )


@pytest.mark.parametrize(
    ("message", "right"),
    [
        (REFUSED, "list pods in the namespace flyte"),
        (
            '... User "u" cannot watch resource "jobsets" in API group "jobset.x-k8s.io" at the cluster scope',
            "watch jobsets.jobset.x-k8s.io",
        ),
        (
            'pods "x" is forbidden: User "u" cannot get resource "pods/log" in API group "" in the namespace "a"',
            "get pods/log in the namespace a",
        ),
        ('pods "x" is forbidden: exceeded quota: small', ""),
        ("Unauthorized", ""),
    ],
)
def test_which_right_is_missing(message: str, right: str):
    """Is read from what Kubernetes says; a quota is none."""
    assert Forbidden(message, status=403).right == right
