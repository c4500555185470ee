"""What other rooms may use of triggers."""

from flyte_unified.triggers.inputs import inputs_of
from flyte_unified.triggers.model import Appeared, Trigger, TriggerKey
from flyte_unified.triggers.service import Triggers
from flyte_unified.triggers.store import Listed

__all__ = ["Appeared", "Listed", "Trigger", "TriggerKey", "Triggers", "inputs_of"]
