"""Who asks, and whether they may: bearer tokens, roles and bindings. Everybody may everything until a test says otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flyte_unified.testing.fake_kube.api import Api
from flyte_unified.testing.fake_kube.errors import ApiError, forbidden
from flyte_unified.testing.fake_kube.faults import Asked
from flyte_unified.testing.fake_kube.resources import Object
from flyte_unified.testing.fake_kube.store import Store

_RBAC = "rbac.authorization.k8s.io"
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))
_ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Access:
    """``enforced`` switches authorization on; until then every request is the administrator's unless a token says who."""

    def __init__(self, *, api: Api, store: Store) -> None:
        self._api = api
        self._store = store
        self._users: dict[str, User] = {}
        self.enforced = False
        self.refused: list[str] = []
        """What was not allowed, in the server's words."""

    def add(self, token: str, user: User) -> None:
        self._users[token] = user

    def user(self, authorization: str) -> User:
        """Raises ApiError 401 for a token that nobody gave out."""
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token:
            return _ANONYMOUS if self.enforced else ADMIN
        found = self._known(token.strip())
        if found is not None:
            return found
        if self.enforced:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return ADMIN

    def _known(self, token: str) -> User | None:
        if token in self._users:
            return self._users[token]
        name = self._api.tokens.get(token)
        if name is None:
            return None
        namespace = name.removeprefix(_ACCOUNT).partition(":")[0]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(name, groups)

    def require(self, user: User, asked: Asked) -> None:
        """Raises ApiError 403."""
        of_oneself = asked.resource.startswith("selfsubject") and user is not _ANONYMOUS
        if self.enforced and not of_oneself and not self.allowed(user, asked):
            where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
            resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
            why = f'User "{user.name}" cannot {asked.verb} resource "{resource}" in API group "{asked.group}"{where}'
            self.refused.append(why)
            raise forbidden(asked.group, asked.resource, asked.name, why)

    def allowed(self, user: User, asked: Asked) -> bool:
        return "system:masters" in user.groups or any(_covers(rule, asked) for rule in self._rules(user, asked.namespace))

    def _rules(self, user: User, namespace: str) -> Iterator[Mapping[str, Any]]:
        for plural in ("clusterrolebindings", "rolebindings"):
            for record in self._store.shelf((_RBAC, plural)).records.values():
                binding = record.object()
                if record.key[0] in ("", namespace) and any(
                    _is(user, one, record.key[0]) for one in binding.get("subjects") or ()
                ):
                    yield from self._role(binding["roleRef"], record.key[0])

    def _role(self, reference: Object, namespace: str) -> list[Mapping[str, Any]]:
        local = reference["kind"] == "Role"
        place = (_RBAC, "roles" if local else "clusterroles")
        record = self._store.get(place, (namespace if local else "", reference["name"]))
        rules: list[Mapping[str, Any]] = (record.object().get("rules") or []) if record else []
        return rules

    def review(self, kind: str, content: Object, user: User) -> Object:
        """The answer of an access or token review: the object with its status."""
        spec = content.get("spec") or {}
        if kind == "TokenReview":
            found = self._known(spec.get("token", ""))
            told = {"user": {"username": found.name, "groups": list(found.groups)}} if found else {}
            return {**content, "status": {"authenticated": found is not None, **told}}
        if kind == "SelfSubjectReview":
            return {**content, "status": {"userInfo": {"username": user.name, "groups": list(user.groups)}}}
        if kind == "SelfSubjectRulesReview":
            rules = list(self._rules(user, spec.get("namespace", "")))
            return {**content, "status": {"resourceRules": rules, "nonResourceRules": [], "incomplete": False}}
        if kind in ("SubjectAccessReview", "LocalSubjectAccessReview"):
            user = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
        about = spec.get("resourceAttributes") or {}
        asked = Asked(
            about.get("verb", ""), about.get("group", ""), about.get("resource", ""), about.get("subresource", ""),
            about.get("namespace", ""), about.get("name", ""),
        )  # fmt: skip
        return {**content, "status": {"allowed": not self.enforced or self.allowed(user, asked)}}


def _is(user: User, subject: Mapping[str, Any], namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject["name"] == user.name)
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            return user.name == f"{_ACCOUNT}{subject.get('namespace') or namespace}:{subject['name']}"
    return False


def _covers(rule: Mapping[str, Any], asked: Asked) -> bool:
    resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    names = rule.get("resourceNames") or ()
    return (
        any(one in ("*", asked.verb) for one in rule.get("verbs") or ())
        and any(one in ("*", asked.group) for one in rule.get("apiGroups") or ())
        and any(one in ("*", resource, f"*/{asked.subresource}") for one in rule.get("resources") or ())
        and (not names or asked.name in names)
    )
