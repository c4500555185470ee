"""What other rooms may use of identity."""

from flyte_unified.identity.service import Identities, Person

__all__ = ["Identities", "Person"]
