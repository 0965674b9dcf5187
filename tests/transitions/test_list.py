"""A page of the ids of one state; read only."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from tests.helpers import (
    ENDED,
    QUEUE,
    STATES,
    acked,
    buried,
    claimed,
    enqueued,
    in_every_state,
    in_state,
    nacked,
    new,
    raw,
    released,
    snapshot,
    take,
    taken,
)


async def pages(store, state: str, **options) -> list[list[str]]:
    """Every page, from the first to the one without a cursor."""
    found, cursor = [], ""
    while True:
        page, cursor = await store.list(QUEUE, state, after=cursor, **options)
        found.append(page)
        if not cursor:
            return found


async def all_of(store, state: str, **options) -> list[str]:
    return [key for page in await pages(store, state, **options) for key in page]


async def test_each_state_lists_its_own_and_nothing_changes(store, redis):
    await in_every_state(store)
    before = await snapshot(redis)

    assert [[state] for state in STATES] == [await all_of(store, state) for state in STATES]
    assert ([], "") == await store.list("nowhere", "ready")
    assert before == await snapshot(redis)


async def test_ready_jobs_are_listed_in_the_order_they_will_run(store):
    for n, priority in enumerate([0, 5, -5, 5, 0]):
        await enqueued(store, f"k{n}", priority=priority)

    assert [["k1", "k3"], ["k0", "k4"], ["k2"]] == await pages(store, "ready", limit=2)
    assert ["k1", "k3", "k0", "k4", "k2"] == [job.key for job in await take(store, 5)]


async def test_scheduled_and_retrying_jobs_are_listed_by_due_time(store, clock):
    for n, delay in enumerate([3000, 1000, 2000, 1000]):
        await enqueued(store, f"s{n}", delay_ms=delay)
        job = await claimed(store, f"r{n}", retry={"immediate": 0})
        await nacked(store, job, retry_in_ms=delay)

    assert ["s1", "s3", "s2", "s0"] == await all_of(store, "scheduled", limit=1)
    assert ["r1", "r3", "r2", "r0"] == await all_of(store, "retrying", limit=1)


async def end_many(store, clock, state: str, count: int, *, per_ms: int, own=lambda n: False):
    """Ends so many jobs, several in each millisecond; some with a retention of their own. Answers the time of each end."""
    ended = {}
    for n in range(count):
        fields: dict[str, Any] = {"retention_ms": 10**8} if own(n) else {}
        if state == "succeeded":
            await acked(store, await claimed(store, f"k{n:03}", **fields))
        else:
            await in_state(store, state, f"k{n:03}", **fields)
        ended[f"k{n:03}"] = clock.now
        if n % per_ms == per_ms - 1:
            clock.advance(0.001)
    return ended


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_ended_jobs_are_listed_newest_first_whoever_decides_on_their_retention(
    store, clock, state, limit
):
    own = {"own": lambda n: n % 3 == 0, "none": lambda n: False, "all": lambda n: True}
    for name, mine in own.items():
        times = await end_many(store, clock, state, 12, per_ms=4, own=mine)

        listed = await all_of(store, state, limit=limit)
        assert sorted(times) == sorted(listed), name
        assert [times[key] for key in listed] == sorted(times.values(), reverse=True), name
        assert listed == await all_of(store, state, limit=1000), name
        await store.purge(QUEUE, listed)


async def test_a_cursor_survives_the_job_it_stands_on(store, clock):
    await end_many(store, clock, "dead", 6, per_ms=2)
    page, cursor = await store.list(QUEUE, "dead", limit=3)
    await store.purge(QUEUE, page)

    rest, end = await store.list(QUEUE, "dead", after=cursor, limit=100)
    assert ("", 6, 6) == (end, len(page + rest), len({*page, *rest}))


async def test_what_moves_meanwhile_is_shown_at_most_once(store, clock):
    await enqueued(store, *(f"k{n}" for n in range(10)))
    seen, cursor = [], ""
    while True:
        page, cursor = await store.list(QUEUE, "ready", after=cursor, limit=3)
        seen += page
        if not cursor:
            break
        [job] = await take(store)
        await released(store, job, delay_ms=5)
        await enqueued(store, f"new-{len(seen)}")

    assert len(seen) == len(set(seen))
    assert {"k8", "k9"} <= set(seen)


async def test_a_page_may_be_short_or_empty_and_still_have_a_cursor(store):
    await store.enqueue(QUEUE, [new(f"k{n}", type="odd" if n % 10 else "even") for n in range(30)])

    found = await pages(store, "ready", type="even", look=7)
    assert [["k0"], ["k10"], ["k20"], [], []] == found
    assert ["k0", "k10", "k20"] == await all_of(store, "ready", type="even", limit=1)


FILTERS = [
    ({"type": "a"}, ["1"]),
    ({"type": "b"}, ["2", "3"]),
    ({"group": "g"}, ["1", "3"]),
    ({"group": "g.1"}, ["2"]),
    ({"tag": "x"}, ["1", "2"]),
    ({"tag": "x.y"}, ["3"]),
    ({"tag": "g"}, []),
    ({"group": "x"}, []),
    ({"type": "b", "tag": "x", "group": "g.1"}, ["2"]),
    ({"type": "nothing"}, []),
]


@pytest.mark.parametrize(("filters", "found"), FILTERS)
async def test_a_list_is_filtered_by_type_group_and_tag(store, filters, found):
    await enqueued(store, "1", type="a", group="g", tags=["x"])
    await enqueued(store, "2", type="b", group="g.1", tags=["z", "x"])
    await enqueued(store, "3", type="b", group="g", tags=["x.y"], payload=b'{"group":"x","tags":["g"]}')

    assert found == await all_of(store, "ready", **filters)


async def test_a_list_of_running_jobs_is_ordered_by_the_end_of_their_leases(store):
    await enqueued(store, "a", "b", "c")
    for lease in (3000, 1000, 2000):
        await take(store, lease_ms=lease)

    assert ["b", "c", "a"] == await all_of(store, "running")


async def test_a_cursor_of_another_kind_is_refused(store):
    for cursor in ("x", "1|3|a", "|1|a", "1|1"):
        with pytest.raises(ResponseError, match="INVALID cursor"):
            await raw(store, "list", "ready", cursor, "", "", "", "", "", "", "", "", "")


async def test_the_count_of_the_dead_equals_their_list(store, clock):
    for n in range(5):
        await buried(store, await claimed(store, f"k{n}"))
    await store.replay(QUEUE, [("k1", None)])
    await taken(store, "k1")

    assert (await store.census(QUEUE)).counts["dead"] == len(await all_of(store, "dead", limit=2)) == 4
