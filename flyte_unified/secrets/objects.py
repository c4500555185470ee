"""The cluster's vault: each secret is a Secret object in the namespace of the pods that may have it.

Values go in, and pods refer to the object: what is asked of the API server is metadata alone. A value is read for whom no pod
can give it: a connector that a task wants to have it. Which secrets there are is followed, so that a pod's secret is found in
the most specific scope while the pod is built.

A pod can't refer to another namespace. Where projects have namespaces of their own, a secret of a wider scope has none, and is
refused.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import structlog

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import FailedPrecondition, Unavailable
from flyte_unified.core.paging import Listing
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Away, Exists, Forbidden, KubeError, Missing, Throttled
from flyte_unified.kube.informer import Informer
from flyte_unified.kube.kinds import ACCESS_REVIEWS, SECRETS, SECRETS_BY_NAME, Object, key_of
from flyte_unified.launchers.objects.times import parsed
from flyte_unified.plugins.pods.config import SECRET_ENTRY, SecretRef, default_secret, secret_name
from flyte_unified.secrets.model import Sealed, Secret, SecretId, SecretKind, lookups
from flyte_unified.secrets.service import missing

_log = structlog.get_logger(__name__)

_MARK = "flyte.org/secret"
_PROJECT, _DOMAIN = "flyte.org/secret-project", "flyte.org/secret-domain"
_NAME, _KIND = "flyte.org/secret-name", "flyte.org/secret-kind"
_MANAGED = {"app.kubernetes.io/managed-by": "flyte-unified", _MARK: "true"}


class ObjectVault:
    """``template`` is the namespace of work, with or without ``{project}`` and ``{domain}``. ``kube`` is started by others."""

    def __init__(self, kube: Kube, *, template: str) -> None:
        self._kube = kube
        self._template = template
        self._known: dict[tuple[str, str], Secret] = {}
        self._scope = "" if "{" in template else template
        self._informer = Informer(kube, SECRETS_BY_NAME, namespace=self._scope, labels=f"{_MARK}=true", on_event=self._changed)
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Does not wait for the cluster: see ``followed``."""
        self._following = asyncio.create_task(self._follow(), name="secrets")

    async def followed(self) -> None:
        """Returns when it is known which secrets there are, or that we may not know."""
        if self._following is not None:
            await asyncio.wait((self._following,))

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        await self._informer.stop()

    async def add(self, new: Sealed) -> bool:
        key = new.secret.id
        labels = {**_MANAGED, _PROJECT: key.project, _DOMAIN: key.domain}
        metadata = {
            "name": secret_name(*key),
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": _told(new.secret),
        }
        obj = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": _data(new)}
        try:
            made = await self._kube.create(SECRETS_BY_NAME, obj, namespace=self._namespace(key))
        except Exists:
            return False
        except Forbidden as error:
            raise self._refused(error, key) from error
        self._changed("ADDED", made)
        return True

    async def change(self, new: Sealed) -> bool:
        key = new.secret.id
        patch = {"metadata": {"annotations": _told(new.secret)}, "data": _data(new)}
        try:
            await self._kube.patch(SECRETS_BY_NAME, secret_name(*key), patch, namespace=self._namespace(key))
        except Missing:
            return False
        except Forbidden as error:
            raise self._refused(error, key) from error
        return True

    async def get(self, key: SecretId) -> Secret | None:
        try:
            return _secret(await self._kube.get(SECRETS_BY_NAME, secret_name(*key), namespace=self._namespace(key)))
        except Missing:
            return None
        except Forbidden as error:
            raise self._refused(error, key) from error

    async def remove(self, key: SecretId) -> bool:
        namespace, name = self._namespace(key), secret_name(*key)
        try:
            await self._kube.delete(SECRETS_BY_NAME, name, namespace=namespace)
        except Missing:
            return False
        except Forbidden as error:
            raise self._refused(error, key) from error
        self._known.pop((namespace, name), None)
        return True

    async def page(self, listing: Listing, *, project: str, domain: str) -> tuple[list[Secret], str]:
        await self.followed()
        if not self._informer.synced:
            raise FailedPrecondition(f"this server may not list Secrets: {_RIGHTS}")
        within = (
            secret for secret in self._known.values() if project in ("", secret.id.project) and domain in ("", secret.id.domain)
        )
        found = sorted(within, key=lambda secret: secret.id)
        if listing.after is not None:
            found = [secret for secret in found if secret.id > listing.after]
        page = found[: listing.limit]
        return page, listing.token(page[-1].id) if len(found) > len(page) else ""

    def lookup(self, project: str, domain: str, group: str, name: str) -> SecretRef:
        """Where the value is for a pod there: in the most specific scope, else where ``default_secret`` says it may be."""
        for key in lookups(project, domain, name):
            namespace = self._place(key)
            if namespace is not None and (namespace, secret_name(*key)) in self._known:
                return SecretRef(secret_name(*key), SECRET_ENTRY)
        return default_secret(project, domain, group, name)

    async def reveal(self, project: str, domain: str, name: str) -> bytes:
        """The value that a pod there would have. Raises NotFound; FailedPrecondition where this server may not read it;
        Unavailable.
        """
        key = SecretId(project, domain, name)
        place = self.lookup(project, domain, "", name)
        try:
            found = await self._kube.get(SECRETS, place.name, namespace=self._namespace(key))
        except Missing as error:
            raise missing(key) from error
        except Forbidden as error:
            raise FailedPrecondition(
                f"this server may not read secret {name!r} in namespace {self._place(key)}, so no connector gets it: "
                f"{_RIGHTS}; or give the secret to the connector itself, and leave it out of the task ({error})"
            ) from error
        except (Away, Throttled) as error:
            raise Unavailable(error.message) from error
        entries = found.get("data") or {}
        if place.key not in entries:
            raise missing(key)
        return base64.b64decode(entries[place.key])

    async def _follow(self) -> None:
        try:
            if await self._may_list():
                await self._informer.start()
                return
        except Forbidden:
            pass
        _log.info("secrets can't be created by calls, and are taken for their projects' own", mend=_RIGHTS)

    async def _may_list(self) -> bool:
        """As an API server tells; many note each refusal as something to look after."""
        asked = {"namespace": self._scope, "verb": "list", "resource": SECRETS_BY_NAME.plural}
        try:
            answer = await self._kube.create(ACCESS_REVIEWS, {"metadata": {}, "spec": {"resourceAttributes": asked}})
        except KubeError:  # it is away, or answers no such questions: the informer finds out
            return True
        return bool(answer["status"]["allowed"])

    def _changed(self, change: str, obj: Object) -> None:
        if change == "DELETED":
            self._known.pop(key_of(obj), None)
        elif (secret := _secret(obj)) is not None:
            self._known[key_of(obj)] = secret

    def _place(self, key: SecretId) -> str | None:
        wide = ("{project}" in self._template and not key.project) or ("{domain}" in self._template and not key.domain)
        return None if wide else self._template.replace("{project}", key.project).replace("{domain}", key.domain)

    def _namespace(self, key: SecretId) -> str:
        """Raises FailedPrecondition."""
        if (namespace := self._place(key)) is None:
            raise FailedPrecondition(
                f"id: a secret of {key.scope} has no place, as pods are in namespaces of their own (kubernetes.namespace is "
                f"{self._template!r}) and find no other's; create it for each project and domain"
            )
        return namespace

    def _refused(self, error: Forbidden, key: SecretId) -> FailedPrecondition:
        return FailedPrecondition(f"this server may not keep Secrets in namespace {self._place(key)}: {_RIGHTS} ({error})")


_RIGHTS = "apply config/kubernetes/secrets, which gives it the rights"


def _told(secret: Secret) -> dict[str, str]:
    return {_NAME: secret.id.name, _KIND: secret.kind.name}


def _data(new: Sealed) -> dict[str, str]:
    return {SECRET_ENTRY: base64.b64encode(new.value).decode()}


def _secret(obj: Object) -> Secret | None:
    """None for one that is none of ours."""
    metadata: dict[str, Any] = obj["metadata"]
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if _MARK not in labels or _NAME not in notes:
        return None
    return Secret(
        id=SecretId(labels.get(_PROJECT, ""), labels.get(_DOMAIN, ""), notes[_NAME]),
        kind=SecretKind.__members__.get(notes.get(_KIND, ""), SecretKind.GENERIC),
        created_at=parsed(metadata.get("creationTimestamp") or "") or Micros(0),
    )
