"""What other rooms may use of runs."""

from flyte_unified.runs.details import Reader
from flyte_unified.runs.reads import ReadHandlers
from flyte_unified.runs.views import run as run_view

__all__ = ["ReadHandlers", "Reader", "run_view"]
