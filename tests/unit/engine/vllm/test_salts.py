"""What of a salt reaches vLLM."""

from __future__ import annotations

import asyncio

import pytest

from serving.engine.vllm.salts import Salts


def salted(space: str, own: str | None) -> str | None:
    salts = Salts()
    salts.enter(space)
    return salts.salt(own)


def test_a_space_of_ones_own() -> None:
    assert salted("a", None) == salted("a", None)
    # As routers name them.
    spaces = ["0" * 64, "0" * 63 + "1", "1" + "0" * 63]
    owns = [None, "a", "b", "\0", "a" * 128, "\ud800"]
    found = {salted(space, own) for space in spaces for own in owns}
    assert len(found) == len(spaces) * len(owns), "two callers meet"
    assert all(salt is not None and len(salt) == 64 for salt in found)


def test_a_caller_that_knows_anothers_salt_gets_nowhere() -> None:
    theirs = salted("a", None)
    assert salted("b", theirs) not in (theirs, salted("a", theirs))


@pytest.mark.parametrize("own", [None, "mine"])
def test_where_all_share_the_cache_salts_are_the_callers(own: str | None) -> None:
    assert salted("", own) == own
    assert Salts().salt(own) == own


async def test_calls_at_the_same_time_have_their_own() -> None:
    salts = Salts()

    async def call(space: str) -> bool:
        salts.enter(space)
        await asyncio.sleep(0)
        # vLLM adds requests in tasks of its own, too.
        found = await asyncio.create_task(added())
        return found == salted(space, None)

    async def added() -> str | None:
        return salts.salt(None)

    assert all(await asyncio.gather(*map(call, ["a", "b", "c"])))
