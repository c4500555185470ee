"""What other rooms may use of tasks."""

from flyte_unified.tasks.service import Tasks, task_id

__all__ = ["Tasks", "task_id"]
