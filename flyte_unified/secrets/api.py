"""What other rooms may use of secrets."""

from flyte_unified.secrets.model import Secret, SecretId, SecretKind, Vault
from flyte_unified.secrets.service import Secrets

__all__ = ["Secret", "SecretId", "SecretKind", "Secrets", "Vault"]
