"""GET /v1/stats: rates and times, sampled."""

import msgspec
import pytest

from scheduler import stats
from scheduler.shown import StatsShown
from scheduler.stats import percentile
from tests.doors.conftest import held, on_valkey
from tests.helpers import keys, on_the_fake


async def measured(api, query=""):
    answer = await api.get(f"/v1/stats{query}")
    assert 200 == answer.status, answer.raw
    msgspec.convert(answer.doc, StatsShown)
    return answer.doc


async def ran(api, key, waited=0, took=0, ago=0, **fields):
    """A job that succeeded: it waited and took so many ms, and ended so many ms ago."""
    job = await api.running(key, **fields)
    await api.settle(ack=[held(job)])
    await shift(api, key, waited, took, ago)


async def shift(api, key, waited, took, ago, state="succeeded"):
    """Moves what is written of a job that has ended: no test waits for an hour."""
    score = await api.redis.zscore(keys().at(state), key)
    ended = int(abs(score)) - ago
    await api.redis.zadd(keys().at(state), {key: -ended if score < 0 else ended})
    place = keys().at("results" if state == "succeeded" else "attempts")
    line, _, rest = (await api.redis.hget(place, key)).partition(b"\n")
    parts = line.split(b"|")
    parts[6] = b"%d" % (ended - took)
    await api.redis.hset(place, key, b"|".join(parts) + b"\n" + rest)
    record = (await api.redis.hget(keys().at("jobs"), key)).split(b"|", 4)
    record[3] = b"%d" % (ended - took - waited)
    await api.redis.hset(keys().at("jobs"), key, b"|".join(record))


async def test_percentiles_of_waiting_and_running_are_of_a_sample(api):
    for n in range(1, 11):
        await ran(api, f"k{n}", waited=100 * n, took=1000 * n, type="slow" if n > 5 else "quick")
    [queue] = (await measured(api))["items"]

    assert ("mail", 10, 10) == (queue["queue"], queue["counts"]["succeeded"], queue["sample"]["jobs"])
    assert {"p50": 0.5, "p95": 1, "p99": 1} == queue["wait"]
    assert {"p50": 5, "p95": 10, "p99": 10} == queue["run"]
    assert [("quick", 5, 3, 5), ("slow", 5, 8, 10)] == [
        (t["type"], t["jobs"], t["run"]["p50"], t["run"]["p99"]) for t in queue["types"]
    ]
    assert all(0 < t["rate"] <= 5 for t in queue["types"])


async def test_what_ended_is_counted_in_three_windows_whoever_decides_on_its_retention(api):
    for n, (ago, retention) in enumerate([(0, None), (30, "30d"), (120, None), (1800, "30d"), (7200, None)]):
        await ran(api, f"k{n}", ago=ago * 1000, retention=retention)
    await api.dead("d")
    await api.enqueue("c")
    await api.post("/v1/jobs/mail:c/cancel")
    [queue] = (await measured(api))["items"]

    assert {
        "1m": {"succeeded": 2, "cancelled": 1, "dead": 1},
        "5m": {"succeeded": 3, "cancelled": 1, "dead": 1},
        "1h": {"succeeded": 4, "cancelled": 1, "dead": 1},
    } == queue["ended"]
    assert {"1m": 0.067, "5m": 0.017, "1h": 0.002} == queue["rates"]
    assert 6 == queue["sample"]["jobs"], "what was cancelled did not run"
    assert queue["sample"]["since"] == (await api.get("/v1/jobs/mail:k4")).doc["finished_at"]


async def test_of_a_job_that_ran_before_nobody_knows_how_long_it_waited(api):
    job = await api.running("a")
    error = {"kind": "Boom", "message": "no"}
    await api.settle(nack=[{**held(job), "error": error, "retry_in": 0}])
    [job] = await api.lease()
    await api.settle(nack=[{**held(job), "error": error, "permanent": True}])
    await shift(api, "a", 0, 2000, 0, "dead")
    [queue] = (await measured(api))["items"]

    assert (None, 2) == (queue["wait"], queue["run"]["p50"])


async def test_a_queue_in_which_nothing_ended_has_no_times(api):
    await api.enqueue()
    [queue] = (await measured(api))["items"]

    nothing = {"succeeded": 0, "cancelled": 0, "dead": 0}
    assert (1, {"jobs": 0, "since": None}, None, None, []) == tuple(
        queue["counts"]["ready"] if n == "counts" else queue[n]
        for n in ("counts", "sample", "wait", "run", "types")
    )
    assert [nothing] * 3 == list(queue["ended"].values())
    assert queue["oldest_wait"] >= 0


async def test_the_newest_are_sampled_and_no_more(api, monkeypatch):
    monkeypatch.setattr(stats, "MOST_OF_QUEUE", 10)
    for n in range(15):
        await ran(api, f"k{n}", took=n * 1000, ago=(15 - n) * 1000)
    [queue] = (await measured(api))["items"]

    assert 10 == queue["sample"]["jobs"]
    assert (await api.get("/v1/jobs/mail:k5")).doc["finished_at"] == queue["sample"]["since"]
    assert 15 == queue["ended"]["1m"]["succeeded"]


async def test_queues_come_by_name_or_one_alone(api):
    assert {"items": [], "next_cursor": None} == await measured(api)
    for queue in ("c", "a", "b"):
        await api.enqueue(queue=queue)
    first = await measured(api, "?limit=2")
    rest = await measured(api, f"?limit=2&cursor={first['next_cursor']}")

    assert [["a", "b"], ["c"]] == [[q["queue"] for q in page["items"]] for page in (first, rest)]
    assert None is rest["next_cursor"]
    assert ["b"] == [q["queue"] for q in (await measured(api, "?queue=b"))["items"]]
    assert [] == (await measured(api, "?queue=nowhere"))["items"]


@on_the_fake
@pytest.mark.parametrize(
    "query", ["queue=", "queue=a%20b", "limit=0", "cursor=x", "type=x", "queue=a&queue=b"]
)
async def test_what_is_not_taken_is_refused_by_name(api, query):
    answer = await api.get(f"/v1/stats?{query}")

    assert (422, "validation", [f"/{query.split('=')[0]}"]) == (answer.status, answer.code, answer.paths)


@on_valkey
async def test_nothing_is_written_for_it(api):
    for n in range(3):
        await ran(api, f"k{n}")
    await api.redis.config_resetstat()
    await measured(api)

    wrote = {"hset", "zadd", "xadd", "incr", "hincrby", "rpush", "zrem", "hdel"}
    assert set() == wrote & {name.removeprefix("cmdstat_") for name in await api.redis.info("commandstats")}


def test_a_percentile_is_the_least_that_so_many_do_not_exceed():
    assert [1, 1, 1] == [percentile([1], p) for p in (50, 95, 99)]
    assert [50, 95, 99] == [percentile(range(1, 101), p) for p in (50, 95, 99)]
    assert [2, 3, 3] == [percentile([1, 2, 3], p) for p in (50, 95, 99)]
