"""What other rooms may use of notifications."""

from flyte_unified.notifications.service import Notifications

__all__ = ["Notifications"]
