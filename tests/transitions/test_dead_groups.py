"""Dead jobs by what they died of: groups that scripts keep while jobs die and leave."""

import pytest

from scheduler.outcomes import Bury
from tests.helpers import (
    QUEUE,
    WORKER,
    claimed,
    damaged,
    enqueued,
    faults,
    keys,
    look,
    nacked,
    on_real_servers,
    released,
    swept,
    take,
)

ALIKE = [
    ("job 12 of 30", "job 7 of 4000"),
    ("no user bob@example.org", "no user ada.l+x@sub.example.net"),
    ("order 550e8400-e29b-41d4-a716-446655440000 is gone", "order 0198c0de-0000-7000-8000-000000000001 is gone"),
    ("customer cus_8fh2k1 has no card", "customer cus_99 has no card"),
    ("at 0x7f3a10", "at 0xdeadbeef00"),
    ("took 1.5 s", "took 12 s"),
    ("10.0.0.1:6379 refused", "192.168.1.20:6380 refused"),
    ("since 2026-11-24T10:00:00.000Z", "since 2027-01-01"),
    ("two  words\n\there", " two words here "),
    ("größe42 fehlt", "größe7 fehlt"),
    ("", "  "),
    ("word " * 400, "word " * 20_000 + "end"),
    ("9" * 100_000, "7"),
]  # fmt: skip


async def died(store, key, message="no", kind="Boom", **fields):
    """A dead letter of this failure: its fingerprint."""
    job = await claimed(store, key, **fields)
    assert ["dead"] == await store.bury(QUEUE, [Bury(key, job.token, kind, message)], worker=WORKER)
    found = (await look(store, key)).fingerprint
    assert found is not None
    return found


async def groups(store, **options):
    """Fingerprint -> how many."""
    return {group.fingerprint: group.count for group in (await store.groups(QUEUE, **options))[0]}


async def by_fingerprint(store, fingerprint, **options):
    return (await store.list(QUEUE, "dead", fingerprint=fingerprint, **options))[0]


@pytest.mark.parametrize(("one", "other"), ALIKE)
async def test_messages_that_differ_in_numbers_and_ids_are_one_group(store, one, other):
    first, second = await died(store, "a", one), await died(store, "b", other)

    assert ({first: 2}, 16) == (await groups(store), len(first))
    assert first == second


async def test_type_kind_and_words_make_another_group(store):
    failures = [
        ("t", "E", "no"),
        ("u", "E", "no"),
        ("t", "F", "no"),
        ("t", "E", "yes"),
        ("tE", "x", "no"),
        ("t", "E", ""),
    ]
    found = [await died(store, f"j{n}", text, kind, type=name) for n, (name, kind, text) in enumerate(failures)]  # fmt: skip

    assert 6 == len(set(found)) == len(await groups(store))


HOSTILE = {
    "megabyte": "x" * 1_000_000,
    "addresses": "@" * 50_000,
    "an address without an end": "a" * 50_000 + " @",
    "numbers and points": "1." * 25_000 + "x",
    "words": "a " * 25_000,
    "zeros": "\0 1\0 " * 100,
    "no text": "\udcff1\ufffe" * 100,
    "patterns": "%f[%w]*(.-)[^%d]-$" * 50,
    "lines": "a|b\n1|2\r\n{}" * 20,
}  # fmt: skip


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE)
async def test_no_message_and_no_kind_breaks_a_group(store, message):
    kind = "a|b\nc:\0 'd' \"e\"%"
    died_of = message.encode(errors="surrogateescape").decode(errors="replace")
    alike = await died(store, "a", died_of, kind)
    await died(store, "b", "another")

    assert {alike: 1} == {
        group.fingerprint: group.count for group in (await store.groups(QUEUE))[0] if group.kind == kind
    }
    assert ["a"] == (await store.list(QUEUE, "dead", kind=kind))[0] == await by_fingerprint(store, alike)
    await store.replay(QUEUE, [("a", None)])
    assert alike not in await groups(store)


async def test_a_group_says_of_what_and_when_its_jobs_died(store, clock):
    await died(store, "a", "job 1 failed", "Timeout")
    first = clock.now
    clock.advance(60)
    await died(store, "b", "job 2 failed", "Timeout")

    [group] = (await store.groups(QUEUE))[0]

    assert ("send", "Timeout", "job 2 failed", 2) == (group.type, group.kind, group.message, group.count)
    assert (first, clock.now) == (group.first_at, group.last_at)


async def test_whatever_leads_to_dead_leads_into_a_group(store, clock):
    await died(store, "buried")
    await nacked(store, await claimed(store, "used_up", retry={"max_attempts": 1}))
    await released(store, await claimed(store, "unhandled"), why="no_handler", no_handler_after_ms=0)
    await claimed(store, "crashed", retry={"max_crashes": 1})
    clock.advance(31)
    await swept(store, clock)
    await enqueued(store, "corrupt")
    await damaged(store, "corrupt")
    assert [] == await take(store)

    names = ("buried", "used_up", "unhandled", "crashed", "corrupt")
    found = {name: (await look(store, name)).fingerprint for name in names}
    assert dict.fromkeys(found.values(), 1) == await groups(store)
    assert 5 == len(await groups(store))
    assert {name: [name] for name in names} == {
        name: await by_fingerprint(store, fingerprint) for name, fingerprint in found.items()
    }


async def test_damaged_records_are_a_group_that_says_so(store):
    await nacked(store, await claimed(store, "corrupt", retry={"max_attempts": 5}))
    await damaged(store, "corrupt")
    assert [] == await take(store)

    [group] = (await store.groups(QUEUE))[0]
    assert ("corrupt", "the record is damaged", 1) == (group.kind, group.message, group.count)


async def test_whoever_leaves_dead_leaves_the_group_and_the_last_one_ends_it(store, clock):
    [alike] = {await died(store, key, f"job {key}1") for key in ("a", "b", "c", "d")}
    other = await died(store, "e", "another")

    await store.replay(QUEUE, [("a", None)])
    assert {alike: 3, other: 1} == await groups(store)
    assert None is (await look(store, "a")).fingerprint
    await store.purge(QUEUE, ["b", "e"])
    assert {alike: 2} == await groups(store)
    await store.replay_page(QUEUE, limit=1)
    await store.configure(QUEUE, {"keep_dead_count": "0"})
    await store.expire(QUEUE)

    assert {} == await groups(store)
    assert 0 == await store.clients.commands.exists(keys().at("dead_index"), keys().at("dead_groups"))


async def test_a_job_whose_own_retention_is_nothing_is_in_no_group(store):
    job = await claimed(store, retention_ms=0)
    await store.bury(QUEUE, [Bury("a", job.token, "Boom", "no")], worker=WORKER)

    assert {} == await groups(store)


async def test_one_that_dies_again_of_something_else_changes_its_group(store):
    await died(store, "a", "one")
    await store.replay(QUEUE, [("a", None)])
    [job] = await take(store)
    await store.bury(QUEUE, [Bury("a", job.token, "Boom", "two")], worker=WORKER)

    [group] = (await store.groups(QUEUE))[0]
    assert ("two", 1) == (group.message, group.count)


async def test_groups_come_a_page_at_a_time_those_that_grew_last_first(store, clock):
    messages = ["alpha", "beta", "gamma", "delta", "epsilon"]
    for n, message in enumerate(messages):
        await died(store, f"j{n}", message)
        if n != 2:  # the third and the fourth grow in one millisecond
            clock.advance(1)
    await died(store, "again", "alpha")

    found, cursor = [], ""
    for _ in range(10):
        page, cursor = await store.groups(QUEUE, after=cursor, limit=2)
        found += [group.message for group in page]
        if not cursor:
            break

    assert ["alpha", "epsilon"] == found[:2]
    assert {"gamma", "delta"} == set(found[2:4])
    assert ("beta", 5) == (found[4], len(found))


async def test_those_that_died_alike_are_found_without_looking_at_others(store, clock):
    alike = await died(store, "a00", "job 0")
    for n in range(1, 30):
        await died(store, f"a{n:02}", f"job {n}")
        await died(store, f"b{n:02}", "another")
        clock.advance(1)

    found, cursor = [], ""
    for _ in range(10):
        page, cursor = await store.list(QUEUE, "dead", fingerprint=alike, after=cursor, limit=7, look=7)
        found += page
        if not cursor:
            break

    assert [f"a{n:02}" for n in range(29, -1, -1)] == found


async def test_a_list_of_dead_letters_by_kind_and_time(store, clock):
    await died(store, "a", kind="Boom")
    clock.advance(10)
    middle = clock.now
    await died(store, "b", kind="Bang")
    clock.advance(10)
    await died(store, "c", kind="Boom")

    assert ["c", "a"] == (await store.list(QUEUE, "dead", kind="Boom"))[0]
    assert ["a"] == (await store.list(QUEUE, "dead", before_ms=middle))[0]
    assert ["b", "a"] == (await store.list(QUEUE, "dead", before_ms=middle + 1))[0]
    assert [] == (await store.list(QUEUE, "dead", before_ms=0))[0]


async def test_what_waits_is_listed_by_when_it_was_created(store, clock):
    await enqueued(store, "old", delay_ms=3_600_000)
    clock.advance(10)
    await enqueued(store, "new", delay_ms=1_000)

    assert ["old"] == (await store.list(QUEUE, "scheduled", before_ms=clock.now))[0]


# -- verify ---------------------------------------------------------------------------------------------------


@pytest.mark.unverified
async def test_verify_finds_and_mends_a_dead_job_in_no_group(store, redis):
    alike = await died(store, "a", 'job 7: "C:\\x/y" ü\n', "Kind/1")
    await redis.unlink(keys().at("dead_index"), keys().at("dead_groups"))

    assert {"is dead but in no group of those that died alike"} == {
        fault.what for fault in await faults(store)
    }
    assert all([fault.repaired async for fault in store.verify(QUEUE, repair=True)])
    assert ({alike: 1}, []) == (await groups(store), await faults(store))


@pytest.mark.unverified
async def test_verify_finds_and_mends_a_group_that_no_list_shows(store, redis):
    alike = await died(store, "a")
    await redis.unlink(keys().at("dead_groups"))
    assert {} == await groups(store)

    assert ["is dead but in no group of those that died alike"] == [
        fault.what for fault in await faults(store)
    ][:1]
    assert all([fault.repaired async for fault in store.verify(QUEUE, repair=True)])
    assert ({alike: 1}, []) == (await groups(store), await faults(store))


@pytest.mark.unverified
async def test_a_dead_job_of_before_there_were_groups_is_put_into_the_same_one(store, redis):
    alike = await died(store, "a", 'job 7: "C:\\x/y"\n', "Kind/1")
    course = await redis.hget(keys().at("attempts"), "a")
    await redis.hset(keys().at("attempts"), "a", course.replace(f"|{alike}".encode(), b""))
    await redis.unlink(keys().at("dead_index"), keys().at("dead_groups"))

    assert all([fault.repaired async for fault in store.verify(QUEUE, repair=True)])
    assert ({alike: 1}, alike) == (await groups(store), (await look(store)).fingerprint)


@pytest.mark.unverified
async def test_verify_finds_and_mends_what_is_in_a_group_and_not_dead(store, redis):
    await died(store, "a")
    await redis.zadd(keys().at("dead_index"), {"f" * 16 + "000000000000005" + "gone": 0})
    await redis.zadd(keys().at("dead_groups"), {"f" * 16: 5, "e" * 16: 5})

    assert ["is in a group of dead jobs but not dead", "is a group of dead jobs without any"] == [
        fault.what for fault in await faults(store)
    ]
    assert all([fault.repaired async for fault in store.verify(QUEUE, repair=True)])
    assert (1, []) == (len(await groups(store)), await faults(store))


@on_real_servers
async def test_a_group_is_counted_without_a_scan(store):
    """A read of a group of 5,000 costs what one of 5 does, within a factor that a busy machine stays under."""
    for start in range(0, 5_000, 500):
        await enqueued(store, *(f"j{n}" for n in range(start, start + 500)))
        jobs = await take(store, 500)
        await store.bury(QUEUE, [Bury(job.key, job.token, "Boom", "no") for job in jobs], worker=WORKER)
    redis = store.clients.commands
    await redis.config_resetstat()

    assert [5_000] == list((await groups(store)).values())

    stats = await redis.info("commandstats")
    assert 1 == stats["cmdstat_zlexcount"]["calls"]
    assert "cmdstat_zscan" not in stats
    assert 2 >= sum(
        stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("zrangebylex", "zrevrangebylex")
    )
