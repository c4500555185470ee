"""Tasks whose results are kept. They return a stamp that is new in every computation."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta

import flyte
from speak import children, say, tell

env = flyte.TaskEnvironment(name="caching")

AGE = timedelta(seconds=4)


def kept(**options: object) -> flyte.Cache:
    return flyte.Cache(behavior="override", version_override="1", **options)


@env.task(cache=kept())
async def stamp(word: str) -> str:
    return uuid.uuid4().hex


@env.task(cache=kept(ignored_inputs=("when",)))
async def stamp_ignoring(word: str, when: int) -> str:
    return uuid.uuid4().hex


@env.task(cache=kept(max_age=AGE))
async def stamp_aging(word: str) -> str:
    return uuid.uuid4().hex


@env.task(cache=kept(serialize=True))
async def stamp_slowly(word: str) -> str:
    await asyncio.sleep(1)
    return uuid.uuid4().hex


@env.task(cache=kept(serialize=True))
async def stamp_or_fail(word: str) -> str:
    await asyncio.sleep(1)
    raise ValueError("nothing to keep")


@env.task
async def parent(word: str) -> str:
    return await stamp(word)


if __name__ == "__main__":
    flyte.init_from_config()
    word = uuid.uuid4().hex
    fresh = flyte.with_runcontext(overwrite_cache=True)
    tell("first", flyte.run(stamp, word=word))
    again = flyte.run(stamp, word=word)
    tell("again", again)
    tell("another input", flyte.run(stamp, word=f"{word}!"))
    child = flyte.run(parent, word=word)
    tell("child", child)
    say("child children", actions=children(child))
    tell("overwritten", fresh.run(stamp, word=word))
    tell("after overwriting", flyte.run(stamp, word=word))
    tell("here", flyte.with_runcontext(cache_lookup_scope="project-domain").run(stamp, word=word))
    tell("here again", flyte.with_runcontext(cache_lookup_scope="project-domain").run(stamp, word=word))
    tell("there", flyte.with_runcontext(domain="staging").run(stamp, word=word))
    tell("only there", flyte.with_runcontext(domain="staging", cache_lookup_scope="project-domain").run(stamp, word=word))
    tell("ignored first", flyte.run(stamp_ignoring, word=word, when=1))
    tell("ignored again", flyte.run(stamp_ignoring, word=word, when=2))
    tell("young", flyte.run(stamp_aging, word=word))
    born = time.monotonic()
    tell("younger", flyte.run(stamp_aging, word=word))
    together = [flyte.run(stamp_slowly, word=word) for _ in range(3)]
    failing = [flyte.run(stamp_or_fail, word=word) for _ in range(2)]
    for number, run in enumerate(together):
        tell(f"together {number}", run)
    for number, run in enumerate(failing):
        tell(f"failing {number}", run)
    time.sleep(max(0.0, born + AGE.total_seconds() - time.monotonic()))
    tell("old", flyte.run(stamp_aging, word=word))
