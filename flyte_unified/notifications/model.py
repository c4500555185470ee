"""What is owed to whom, as values."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass

from flyteidl2.task import run_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ActionKey


class Channel(enum.StrEnum):
    """How it is sent."""

    WEBHOOK = "webhook"
    EMAIL = "email"
    CONDITION = "condition"
    """The webhook that a condition brings along"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One row of ``deliveries``: what is to be sent because of ``action``, once it has come so far."""

    action: ActionKey
    number: int
    channel: Channel
    rule: bytes = b""
    """flyteidl2.task.InlineRule; empty for a condition's own webhook"""
    created_at: Micros
    ready_at: Micros | None = None
    """From when there is something to tell"""
    due_at: Micros | None = None
    """Of the next try; None where none is to come"""
    tries: int = 0
    error: str = ""
    """Why the latest try failed"""

    @property
    def rule_message(self) -> run_pb2.InlineRule:
        return run_pb2.InlineRule.FromString(self.rule)

    @property
    def id(self) -> str:
        """The same at each try, so that who gets it twice can tell."""
        text = "\0".join((*self.action, str(self.number)))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
