"""What may be added to an attempt's record. Said twice, it is kept once: those who report may repeat themselves."""

from __future__ import annotations

from flyteidl2.workflow import run_definition_pb2


def merge(record: run_definition_pb2.ActionAttempt, details: run_definition_pb2.ActionAttempt) -> None:
    """Adds ``details`` to ``record``: cluster events that it has not, links in place of those of the same name."""
    before = run_definition_pb2.ActionAttempt()
    before.CopyFrom(record)
    record.MergeFrom(details)
    record.ClearField("cluster_events")
    record.cluster_events.extend(before.cluster_events)
    record.cluster_events.extend(event for event in details.cluster_events if event not in before.cluster_events)
    record.ClearField("log_info")
    record.log_info.extend({link.name: link for link in (*before.log_info, *details.log_info)}.values())
    if details.HasField("log_context"):
        record.log_context.CopyFrom(details.log_context)
