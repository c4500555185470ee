"""What other rooms may use of events."""

from flyte_unified.events.reports import of_status
from flyte_unified.events.service import record

__all__ = ["of_status", "record"]
