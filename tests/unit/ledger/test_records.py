"""What is added to an attempt's record."""

from __future__ import annotations

from flyteidl2.workflow import run_definition_pb2

from flyte_unified.ledger.api import merge

Attempt, Event = run_definition_pb2.ActionAttempt, run_definition_pb2.ClusterEvent


def test_an_event_that_happened_again_is_counted_not_repeated():
    """It keeps its place; another time, reason, message or source makes another event."""
    first = Event(message="Back-off", reason="BackOff", source_component="kubelet", count=1)
    first.occurred_at.FromSeconds(5)
    again, other, later = Event(), Event(), Event()
    for event, changes in ((again, {"count": 7}), (other, {"message": "Pulled"}), (later, {})):
        event.CopyFrom(first)
        event.MergeFrom(Event(**changes))
    later.occurred_at.FromSeconds(9)
    record = Attempt(cluster_events=[first, other])
    merge(record, Attempt(cluster_events=[again, later]))
    assert list(record.cluster_events) == [again, other, later]
