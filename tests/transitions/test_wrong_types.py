"""Nothing may fail after the first write: with any one key of the wrong type a script refuses and changes nothing."""

import pytest
from redis.exceptions import ResponseError

from scheduler.keys import SUFFIXES
from scheduler.scripts import names, script
from tests.helpers import keys, raw, snapshot
from tests.transitions.cases import CASES, quiet, touched, world

# Every call of every script for each key: a second a key on the fake, a tenth of that on a server.
on_real_servers_and_the_fake_in_long = pytest.mark.parametrize(
    "backend", ["redis", "valkey", pytest.param("fake", marks=pytest.mark.long)], indirect=True
)


def test_each_script_has_a_call_and_together_they_touch_each_of_its_keys():
    found: dict[str, set[str]] = {name: set() for name in names()}
    for case in CASES:
        found[case.script] |= touched(case)

    assert {name: set(script(name).keys) for name in names()} == found


@pytest.mark.unverified
@on_real_servers_and_the_fake_in_long
@pytest.mark.parametrize("suffix", SUFFIXES)
async def test_a_key_of_the_wrong_type_is_refused_and_changes_nothing(store, redis, clock, suffix):
    tokens = await world(store, clock)
    await redis.unlink(keys().at(suffix))
    await redis.set(keys().at(suffix), "of the wrong type")
    before = await snapshot(redis)
    went_on = []

    for case in CASES:
        if (
            suffix not in touched(case) or case.script == "obliterate"
        ):  # its only write takes a key of any type
            continue
        try:
            await raw(store, case.script, *case.args(tokens))
        except ResponseError:
            pass
        else:
            went_on.append(case.name)
        assert before == await snapshot(redis), f"{case} fails after a write"

    assert [] == went_on


@pytest.mark.unverified
@on_real_servers_and_the_fake_in_long
@pytest.mark.parametrize("suffix", SUFFIXES)
async def test_a_call_that_looks_at_fewer_keys_fails_before_it_writes_or_not_at_all(
    store, redis, clock, suffix
):
    """Where nothing is due, known, corrupt or beyond its retention, less is looked at; each call meets what the last left."""
    tokens = await quiet(store)
    await redis.unlink(keys().at(suffix))
    await redis.set(keys().at(suffix), "of the wrong type")
    turn = list(SUFFIXES).index(suffix)

    for case in [*CASES[turn:], *CASES[:turn]]:
        before = await snapshot(redis)
        try:
            await raw(store, case.script, *case.args(tokens))
        except ResponseError:
            assert before == await snapshot(redis), f"{case} fails after a write"


@pytest.mark.unverified
@pytest.mark.parametrize("case", [case for case in CASES if case.script != "list"], ids=str)
async def test_with_every_key_of_its_own_type_the_same_call_goes_through(store, redis, clock, case):
    args = case.args(await world(store, clock))
    before = await snapshot(redis)

    await raw(store, case.script, *args)

    assert case.writes == (before != await snapshot(redis))
