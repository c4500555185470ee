"""What other rooms may use of notifications."""

from flyte_unified.notifications.model import Delivery
from flyte_unified.notifications.service import Notifications
from flyte_unified.notifications.store import undelivered

__all__ = ["Delivery", "Notifications", "undelivered"]
