"""What other rooms may use of events."""

from flyte_unified.events.reports import details_of, error_of, of_status, time_of
from flyte_unified.events.service import record

__all__ = ["details_of", "error_of", "of_status", "record", "time_of"]
