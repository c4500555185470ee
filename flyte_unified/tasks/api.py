"""What other rooms may use of tasks."""

from flyte_unified.tasks.service import Tasks

__all__ = ["Tasks"]
