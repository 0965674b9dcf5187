"""Who runs next in a queue with groups: they take turns, in order of their weights."""

from tests.helpers import acked, enqueued, take


async def test_groups_take_turns(store):
    await enqueued(store, *(f"a{n}" for n in range(5)), group="a")
    await enqueued(store, "b0", "b1", group="b")
    await enqueued(store, "c0", group="c")

    assert ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"] == [job.key for job in await take(store, 10)]


async def test_one_at_a_time_is_the_same(store):
    await enqueued(store, *(f"a{n}" for n in range(5)), group="a")
    await enqueued(store, "b0", "b1", group="b")
    await enqueued(store, "c0", group="c")

    found = []
    for _ in range(8):
        [job] = await take(store)
        found.append(job.key)
        await acked(store, job)
    assert ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"] == found
    assert [] == await take(store)


async def test_jobs_that_stood_there_before_are_filed(store):
    await enqueued(store, "x", "y", "z")
    await enqueued(store, "a0", "a1", group="a")

    assert ["x", "a0", "y", "a1", "z"] == [job.key for job in await take(store, 10)]
