"""What is news to an informer."""

from __future__ import annotations

from typing import Any

from flyte_unified.kube.cache import Cache


def obj(name: str, version: str, *, uid: str = "u", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "uid": uid, "resourceVersion": version, **more}}


def told(news: Any) -> list[tuple[str, str, str]]:
    return [(change, it["metadata"]["name"], it["metadata"]["resourceVersion"]) for change, it in news]


def test_an_object_is_added_then_modified_then_deleted():
    """The words are those of what we knew, whatever the server calls it."""
    cache = Cache(None)
    assert told(cache.watched("MODIFIED", obj("a", "1"))) == [("ADDED", "a", "1")]
    assert told(cache.watched("ADDED", obj("a", "2"))) == [("MODIFIED", "a", "2")]
    assert told(cache.watched("DELETED", obj("a", "3"))) == [("DELETED", "a", "3")]
    assert (len(cache), cache.get(("n", "a"))) == (0, None)


def test_what_is_known_or_was_overtaken_is_no_news():
    """A watch that begins anew may repeat; numbers are not compared as text."""
    cache = Cache(None)
    assert told(cache.watched("ADDED", obj("a", "10")))
    assert told(cache.watched("MODIFIED", obj("a", "10"))) == []
    assert told(cache.watched("MODIFIED", obj("a", "9"))) == []
    assert told(cache.watched("DELETED", obj("a", "9"))) == []
    assert told(cache.watched("DELETED", obj("b", "11"))) == []
    assert cache.get(("n", "a")) == obj("a", "10")


def test_versions_that_are_no_numbers_are_equal_or_not():
    """Nothing is dropped that could be new."""
    cache = Cache(None)
    assert told(cache.watched("ADDED", obj("a", "x2")))
    assert told(cache.watched("MODIFIED", obj("a", "x2"))) == []
    assert told(cache.watched("MODIFIED", obj("a", "x1"))) == [("MODIFIED", "a", "x1")]


def test_a_list_is_the_truth():
    """What it shows changed is news, be it older; what it lacks ended in the state last seen."""
    cache = Cache(None)
    for name in "abc":
        assert told(cache.listed(obj(name, "5")))
    assert told(cache.listed(obj("a", "5"))) == []
    assert told(cache.listed(obj("b", "3"))) == [("MODIFIED", "b", "3")]
    assert told(cache.absent({("n", "a"), ("n", "b")})) == [("DELETED", "c", "5")]
    assert [it["metadata"]["name"] for it in cache] == ["a", "b"]


def test_another_object_of_the_same_name_is_another():
    """Its predecessor is told as deleted first, though nobody saw it go."""
    cache = Cache(None)
    assert told(cache.listed(obj("a", "1", uid="old")))
    assert told(cache.listed(obj("a", "7", uid="new"))) == [("DELETED", "a", "1"), ("ADDED", "a", "7")]
    assert told(cache.watched("MODIFIED", obj("a", "8", uid="newer"))) == [("DELETED", "a", "7"), ("ADDED", "a", "8")]


def test_only_what_trim_gives_is_kept_and_told():
    """Even without its metadata; and never the book-keeping of managed fields."""
    cache = Cache(lambda it: {"kept": it["metadata"]["name"]})
    assert list(cache.watched("ADDED", obj("a", "1"))) == [("ADDED", {"kept": "a"})]
    assert list(cache.watched("MODIFIED", obj("a", "1"))) == []
    assert cache.get(("n", "a")) == {"kept": "a"}
    whole = Cache(None)
    assert list(whole.watched("ADDED", obj("a", "1", managedFields=[{"manager": "x"}]))) == [("ADDED", obj("a", "1"))]
