"""What may be added to an attempt's record. Said twice, it is kept once: those who report may repeat themselves."""

from __future__ import annotations

from flyteidl2.workflow import run_definition_pb2


def merge(record: run_definition_pb2.ActionAttempt, details: run_definition_pb2.ActionAttempt) -> None:
    """Adds ``details`` to ``record``: cluster events in place of those that they repeat, links of those of the same name."""
    before = run_definition_pb2.ActionAttempt()
    before.CopyFrom(record)
    record.MergeFrom(details)
    record.ClearField("cluster_events")
    record.cluster_events.extend({_happening(e): e for e in (*before.cluster_events, *details.cluster_events)}.values())
    record.ClearField("log_info")
    record.log_info.extend({link.name: link for link in (*before.log_info, *details.log_info)}.values())
    if details.HasField("log_context"):
        record.log_context.CopyFrom(details.log_context)


def _happening(event: run_definition_pb2.ClusterEvent) -> tuple[int, int, str, str, str]:
    """What two tellings of one event have in common: it may have happened again since, and be counted higher."""
    at = event.occurred_at
    return at.seconds, at.nanos, event.reason, event.message, event.source_component
