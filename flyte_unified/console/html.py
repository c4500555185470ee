"""HTML as values: whatever is not ``Html`` already is escaped, so that forgetting it is impossible."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable


class Html(str):
    """Text that is HTML. Made by the functions here, and of constants."""

    __slots__ = ()


Content = str | int | None | Iterable["Content"]
"""What can stand between tags: text, markup, nothing, or many of these."""

Attribute = str | int | bool | None
"""True writes the bare name; False and None leave the attribute out."""

_VOID = frozenset({"meta"})
_WEB = re.compile(r"https?://|/(?![/\\])")


def render(content: Content) -> Html:
    """``content`` as HTML, escaped unless it is ``Html``."""
    if content is None:
        return Html()
    if isinstance(content, Html):
        return content
    if isinstance(content, str | int):
        return Html(html.escape(str(content)))
    return Html("".join(map(render, content)))


def tag(name: str, /, *content: Content, **attributes: Attribute) -> Html:
    """An element. ``class_`` is ``class``, and ``aria_label`` is ``aria-label``."""
    opening = "".join((name, *(_attribute(key, value) for key, value in attributes.items())))
    return Html(f"<{opening}>" if name in _VOID else f"<{opening}>{render(content)}</{name}>")


def link(href: str, /, *content: Content, **attributes: Attribute) -> Html:
    """A link within the console or to another site; where ``href`` is of another kind (``javascript:``), only its text."""
    if not _WEB.match(href):
        return tag("span", *content)
    return tag("a", *content, href=href, **attributes)


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
