"""What other rooms may use of scopes' settings."""

from flyte_unified.settings_service.service import ScopedSettings

__all__ = ["ScopedSettings"]
