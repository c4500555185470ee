"""What other rooms may use of projects."""

from flyte_unified.projects.service import Projects

__all__ = ["Projects"]
