"""running stays running; what its handler tells of it is kept."""

from scheduler.outcomes import Note
from tests.helpers import (
    QUEUE,
    STATES,
    acked,
    claimed,
    enqueued,
    in_every_state,
    keys,
    look,
    nacked,
    on_real_servers,
    race,
    snapshot,
    take,
    taken,
)


async def note(store, job, field: str, value: bytes):
    [answer] = await store.note(QUEUE, [Note(job.key, job.token, field, value)])
    return answer


async def lines(redis) -> list[bytes]:
    return [member.split(b" ", 2)[2] for member in await redis.zrange(keys().at("logs"), 0, -1)]


async def test_the_newest_progress_stands(store):
    job = await claimed(store)

    assert ["running"] * 3 == [
        await note(store, job, "progress", value) for value in (b"1", b'{"a": 2}', b"[3]")
    ]
    assert b"[3]" == (await look(store)).progress


async def test_the_newest_checkpoint_comes_with_the_next_attempt(store):
    job = await claimed(store)
    await note(store, job, "checkpoint", b"[1]")
    await note(store, job, "checkpoint", b'"\\u0000|\\n"')
    await nacked(store, job)

    job = await taken(store)
    assert b'"\\u0000|\\n"' == job.checkpoint
    await nacked(store, job, retry_in_ms=0)
    assert b'"\\u0000|\\n"' == (await taken(store)).checkpoint


async def test_log_lines_keep_their_order_within_a_millisecond_and_over_a_clock_that_goes_back(
    store, redis, clock
):
    job = await claimed(store)
    await store.note(QUEUE, [Note("a", job.token, "log", b"line %d" % n) for n in range(12)])
    clock.advance(-3600)
    await note(store, job, "log", b"a line\nof two \xff")

    assert [*(b"line %d" % n for n in range(12)), b"a line\nof two \xff"] == await lines(redis)


async def test_two_equal_lines_are_two(store, redis):
    job = await claimed(store)
    await store.note(QUEUE, [Note("a", job.token, "log", b"same")] * 2)

    assert [b"same", b"same"] == await lines(redis)


async def test_a_numbered_line_that_is_told_again_stands_once(store, redis):
    job = await claimed(store)
    told = [Note("a", job.token, "log", b"line %d" % n, seq=n) for n in range(1, 11)]
    await store.note(QUEUE, told[:6])
    before = await snapshot(redis)

    assert ["running"] * 6 == await store.note(QUEUE, told[:6])
    assert before == await snapshot(redis)
    await store.note(QUEUE, [*told[3:], *told[8:], Note("a", job.token, "progress", b"1")])
    assert [b"line %d" % n for n in range(1, 11)] == await lines(redis)
    assert b"1" == (await look(store)).progress


async def test_lines_of_several_runs_keep_their_order_whatever_their_numbers(store, redis):
    job = await claimed(store)
    await store.note(QUEUE, [Note("a", job.token, "log", b"first run", seq=99_999_999_999)])
    await nacked(store, job, retry_in_ms=0)
    job = await taken(store)
    await store.note(QUEUE, [Note("a", job.token, "log", b"second run", seq=n) for n in (10, 9)])
    await store.note(QUEUE, [Note("a", job.token, "log", b"without a number")])

    assert [b"first run", b"second run", b"second run", b"without a number"] == await lines(redis)


async def test_the_lines_of_another_job_or_run_are_no_repetition(store, redis):
    await enqueued(store, "a", "a.b")
    one, other = await take(store, 2)
    for job in (one, other):
        await store.note(QUEUE, [Note(job.key, job.token, "log", b"same", seq=1)])

    assert [b"same", b"same"] == await lines(redis)


async def test_a_log_is_read_oldest_first_a_page_at_a_time(store, redis, clock):
    await enqueued(store, "a", "a.b", "a0")
    jobs = {job.key: job for job in await take(store, 3)}
    for n in range(120):
        clock.advance(1)
        await store.note(
            QUEUE,
            [
                Note(key, job.token, "log", b"%s %d" % (key.encode(), n), seq=n + 1)
                for key, job in jobs.items()
            ],
        )
    before = await snapshot(redis)
    found, after, more = [], "", True
    while more:
        page, more = await store.log(QUEUE, "a", after=after, limit=50)
        found += page
        after = page[-1].place

    assert [f"a {n}" for n in range(120)] == [line.text for line in found]
    assert [clock.now - 1000 * n for n in reversed(range(120))] == [line.at_ms for line in found]
    assert ((), False) == (
        tuple((await store.log(QUEUE, "nobody"))[0]),
        (await store.log(QUEUE, "nobody"))[1],
    )
    assert before == await snapshot(redis)


async def test_a_page_of_long_lines_is_short(store):
    job = await claimed(store)
    for first in range(0, 160, 40):
        await store.note(
            QUEUE, [Note("a", job.token, "log", b"x" * 65_000, seq=first + n) for n in range(1, 41)]
        )
    page, more = await store.log(QUEUE, "a", limit=1000)
    rest, end = await store.log(QUEUE, "a", after=page[-1].place, limit=1000)

    assert (True, 160, False) == (more, len(page) + len(rest), end)
    assert len(page) < 160


async def test_the_newest_thousand_lines_of_a_job_are_kept(store, redis, backend):
    await enqueued(store, "a", "a.b")
    job, other = await take(store, 2)
    await note(store, other, "log", b"of another")
    for first in range(0, 1300, 325):
        await store.note(QUEUE, [Note("a", job.token, "log", b"%d" % n) for n in range(first, first + 325)])

    assert [b"of another", *(b"%d" % n for n in range(300, 1300))] == sorted(
        await lines(redis), key=lambda line: (line.isdigit(), int(line) if line.isdigit() else 0)
    )


async def test_only_a_running_job_is_noted(store, redis):
    tokens = await in_every_state(store)
    before = await snapshot(redis)

    for field in ("progress", "checkpoint", "log"):
        assert ["stale"] * 8 == await store.note(QUEUE, [Note(s, tokens[s] + 1, field, b"1") for s in STATES])
        rest = [state for state in STATES if state != "running"]
        assert ["stale"] * 7 == await store.note(QUEUE, [Note(s, tokens[s], field, b"1") for s in rest])
    assert ["missing"] == await store.note(QUEUE, [Note("nobody", 1, "log", b"x")])
    assert before == await snapshot(redis)


async def test_a_note_of_a_job_that_was_asked_to_stop_is_kept_and_says_so(store):
    job = await claimed(store)
    await store.cancel(QUEUE, ["a"])

    assert "cancel" == await note(store, job, "progress", b"1")
    assert b"1" == (await look(store)).progress


async def test_progress_repeated_changes_nothing(store, redis):
    job = await claimed(store)
    await note(store, job, "progress", b"1")
    before = await snapshot(redis)

    assert "running" == await note(store, job, "progress", b"1")
    assert before == await snapshot(redis)


async def test_each_of_a_batch_has_its_answer(store, redis):
    await enqueued(store, "a", "b")
    a, b = await take(store, 2)

    answers = await store.note(
        QUEUE,
        [
            Note("a", a.token, "progress", b"1"),
            Note("b", a.token, "progress", b"2"),
            Note("b", b.token, "log", b"x"),
            Note("c", 1, "log", b"y"),
        ],
    )
    assert ["running", "stale", "running", "missing"] == answers
    assert (b"1", None, [b"x"]) == (
        (await look(store, "a")).progress,
        (await look(store, "b")).progress,
        await lines(redis),
    )


@on_real_servers
async def test_a_note_and_an_ack_at_once_leave_the_job_whole(store, another_store):
    for n in range(10):
        job = await claimed(store, f"k{n}")
        answer, state = await race(note(store, job, "progress", b"1"), acked(another_store, job))

        assert "succeeded" == state
        assert (answer, (await look(store, job.key)).progress) in [("running", b"1"), ("stale", None)]
