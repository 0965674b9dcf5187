"""The tests are tested: scripts with a seeded fault, each of which a test of this folder must find.

Each fault is one that a peer had, or that ordinary chaos does not find (FACTS 8.4).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from scheduler.errors import NotFound
from scheduler.scripts import Script, all_scripts
from scheduler.store import Store
from tests.helpers import acked, nacked
from tests.transitions import (
    test_ack,
    test_breaker,
    test_cancel,
    test_claim,
    test_dead_groups,
    test_deadlines,
    test_enqueue,
    test_extend,
    test_fence,
    test_grace,
    test_groups,
    test_lost_replies,
    test_nack,
    test_note,
    test_obliterate,
    test_operate,
    test_order,
    test_promote,
    test_reclaim,
    test_release,
    test_replay,
    test_retention,
    test_schedules,
    test_unique,
)


@dataclass(frozen=True)
class Mutant:
    """A fault in some scripts, and the test that must find it."""

    name: str
    changes: Mapping[str, str]
    """Text of the scripts -> what stands there instead, wherever it stands."""
    found_by: Callable[..., Awaitable[None]]
    given: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of that test."""

    def scripts(self) -> dict[str, Script]:
        made = dict(all_scripts())
        for old, new in self.changes.items():
            changed = {
                name: replace(script, text=script.text.replace(old, new))
                for name, script in made.items()
                if old in script.text
            }
            assert changed, f"{self.name}: no script says {old!r} any more"
            made |= changed
        return made


MUTANTS = [
    Mutant(
        "a call that takes what it has made for somebody else's",
        {'again and "again" or same': "same"},
        test_enqueue.test_a_repeated_call_knows_again_what_it_has_made,
    ),
    Mutant(
        "a call that is known again by a part of its name",
        {'(its_flags or "") .. " ", call .. " "': '(its_flags or ""), call'},
        test_enqueue.test_a_repeated_call_knows_again_what_it_has_made,
    ),
    Mutant(
        "a call that makes anew what it has changed",
        {'if string.find(flags .. " ", asked.call .. " ", 1, true) then': "if false then"},
        test_unique.test_a_repeated_call_finds_the_job_that_it_has_changed_though_that_has_started,
    ),
    Mutant(
        "a slot that is fired whether it stands or not",
        {'elseif slot ~= "" and its.slot ~= tonumber(slot) then': "elseif false then"},
        test_schedules.test_a_slot_that_was_fired_is_taken_and_nothing_changes,
    ),
    Mutant(
        "a schedule that fires as it was before it was changed",
        {"elseif tonumber(version) ~= its.version then": "elseif false then"},
        test_schedules.test_another_version_fires_nothing,
    ),
    Mutant(
        "a schedule whose put takes an old slot for the next one",
        {'local slot = keep == "1" and its and its.slot or first': "local slot = its and its.slot or first"},
        test_schedules.test_another_time_counts_from_now,
    ),
    Mutant(
        "an overlap that looks only at who runs",
        {'for _, state in ipairs({ "ready", "running", "scheduled", "retrying", "blocked" }) do\n      there': 'for _, state in ipairs({ "running" }) do\n      there'},
        test_schedules.test_skip_leaves_out_a_slot_while_the_last_job_has_not_ended,
    ),
    Mutant(
        "a schedule that counts no runs",
        {'if one.slot ~= "" then its.runs = its.runs + 1 end': ""},
        test_schedules.test_after_so_many_runs_it_has_finished,
    ),
    Mutant(
        "claim that does not look at the time of what it gives",
        {"elseif over and over <= now then\n    late": "elseif false then\n    late"},
        test_deadlines.test_a_claim_gives_no_job_whose_time_is_over_though_no_sweep_came,
        {"by": {"expires_in_ms": 60_000}},
    ),
    Mutant(
        "attempts that outlive the deadline",
        {"if timed then timeout = math.min(": "if false then timeout = math.min("},
        test_deadlines.test_an_attempt_ends_with_the_deadline_when_that_is_earlier_than_its_timeout,
    ),
    Mutant(
        "a retry after the deadline",
        {"elseif deadline and deadline <= now then": "elseif false then"},
        test_deadlines.test_an_attempt_that_fails_at_the_deadline_is_dead_by_it,
    ),
    Mutant(
        "a backoff beyond the deadline",
        {"if due and deadline and due >= deadline then": "if false then"},
        test_deadlines.test_a_backoff_that_lasts_beyond_the_deadline_is_not_waited_for,
    ),
    Mutant(
        "an expiry that is forgotten when an attempt is given back",
        {'local over = move.flags ~= "" and not': "local over = false and not"},
        test_deadlines.test_a_job_that_is_given_back_after_its_expiry_is_cancelled,
    ),
    Mutant(
        "an ack that leaves its deadline behind",
        {'if #timed > 0 then redis.call("ZREM", expiries, unpack(timed)) end': ""},
        test_deadlines.test_what_ended_in_time_is_kept_as_long_as_any, {"state": "succeeded", "by": {"deadline_in_ms": 60_000}},
    ),
    Mutant(
        "a deadline that takes an ended job away",
        {"if score < 0 then drop(keys, state, { member }, now) end": "drop(keys, state, { member }, now)"},
        test_deadlines.test_a_member_that_is_no_jobs_any_more_goes_when_it_is_due,
    ),
    Mutant(
        "a replay into a deadline that has passed",
        {"if job.deadline and tonumber(job.deadline) <= now then job.deadline = nil end": ""},
        test_deadlines.test_a_replay_drops_a_deadline_that_has_passed,
    ),
    Mutant(
        "an expiry that counts after the start",
        {"if attempt > 0 or not expiry then return deadline end": "if not expiry then return deadline end"},
        test_deadlines.test_an_expiry_means_nothing_to_a_job_that_has_started,
    ),
    Mutant(
        "a deadline in the past that is taken in",
        {"elseif over and over <= now then\n      reply": "elseif false then\n      reply"},
        test_deadlines.test_a_deadline_in_the_past_is_refused_and_nothing_stored, {"before_ms": 1},
    ),
    Mutant(
        "ack without a look at the token",
        {"if its == token and not done[id] then": "if its and not done[id] then"},
        test_fence.late_one_changes_nothing, {"verb": "ack"},
    ),
    Mutant(
        "nack without a look at the token",
        {"if lease and lease.token == token then": "if lease then"},
        test_fence.late_one_changes_nothing, {"verb": "nack"},
    ),
    Mutant(
        "bury without a look at the token",
        {"if lease and lease.token == token then": "if lease then"},
        test_fence.late_one_changes_nothing, {"verb": "bury"},
    ),
    Mutant(
        "release without a look at the token",
        {"if not lease or lease.token ~= token then": "if not lease then"},
        test_fence.late_one_changes_nothing, {"verb": "release"},
    ),
    Mutant(
        "extend without a look at the token",
        {"if its == token and ends_now[i] then": "if its and ends_now[i] then"},
        test_fence.late_one_changes_nothing, {"verb": "extend"},
    ),
    Mutant(
        "progress without a look at the token",
        {"if its == token then\n    if field": "if its then\n    if field"},
        test_fence.late_one_changes_nothing, {"verb": "progress"},
    ),
    Mutant(
        "extend that makes a lease again",
        {
            "if its == token and ends_now[i] then": "ends, ends_now[i] = ends or 9e15, ends_now[i] or 0\n  if true then",
            '"ZADD", running, "XX", ': '"ZADD", running, ',
        },
        test_extend.test_an_extend_after_the_ack_is_stale_and_makes_no_lease,
    ),
    Mutant(
        "lease left behind by ack",
        {'redis.call("HDEL", leases, unpack(mine))\n': ""},
        test_ack.test_the_lease_is_gone_with_the_run,
    ),
    Mutant(
        "claim that leaves its jobs in line, as if taking were a second call",
        {'redis.call("ZREMRANGEBYRANK", ready, 0, #records - 1)': ""},
        test_claim.test_a_claim_takes_at_most_what_was_asked_for,
    ),
    Mutant(
        "claim that takes its jobs out of line and hands them to nobody",
        {'redis.call("ZADD", running, unpack(ends_of))': ""},
        test_claim.test_a_claimed_job_runs_under_a_lease,
    ),
    Mutant(
        "tokens by the clock alone",
        {"math.max((tonumber(marks[1]) or 0) + 1, micros)": "micros"},
        test_claim.test_tokens_rise_with_every_claim_and_stay_above_the_clock,
    ),
    Mutant(
        "attempt not counted on reclaim",
        {"course.attempt, course.token, course.verb = lease.attempt,": "course.attempt, course.token, course.verb = failure.crash and lease.attempt - 1 or lease.attempt,"},
        test_reclaim.test_a_job_whose_lease_ran_out_is_ready_at_once_and_has_used_its_attempt,
    ),
    Mutant(
        "crashes without end",
        {"if course.crashes >= policy.max_crashes and not failure.shared then": "if false then"},
        test_reclaim.test_a_row_of_crashes_is_dead_when_it_reaches_its_limit,
    ),
    Mutant(
        "a shared crash that ends a job",
        {"course.crashes >= policy.max_crashes and not failure.shared then": "course.crashes >= policy.max_crashes then"},
        test_reclaim.test_a_crash_that_several_jobs_shared_ends_none_of_them,
    ),
    Mutant(
        "a crashed job that is given with others",
        {'local alone = runs[i] and string.find(runs[i], "^%d+|[1-9]")': "local alone = false"},
        test_reclaim.test_after_a_crash_a_job_is_given_alone_and_dies_of_its_own_crashes_only,
    ),
    Mutant(
        "crashes that a settlement does not forget",
        {"failure.crash and course.crashes + 1 or 0": "failure.crash and course.crashes + 1 or course.crashes"},
        test_reclaim.test_any_settlement_starts_the_count_again, {"settle": nacked},
    ),
    Mutant(
        "a timeout taken for a crash",
        {"if until_ms >= lease.ends then": "if false then"},
        test_reclaim.test_a_lease_that_ended_at_the_timeout_is_a_failure_and_no_crash,
    ),
    Mutant(
        "sweep without grace after a gap",
        {"> 1.5 * period_ms) then grace_until = now + pause end": "> 1.5 * period_ms) then grace_until = 0 end"},
        test_grace.test_in_the_grace_a_live_worker_extends_and_keeps_its_job,
    ),
    Mutant(
        "a clock that went back without grace",
        {"not swept_at or swept_at > now or now": "not swept_at or now"},
        test_grace.test_a_clock_that_went_back_begins_the_grace_where_none_was_before,
    ),
    Mutant(
        "extend that shortens a lease",
        {"if until_ms > tonumber(ends_now[i]) then": "if true then"},
        test_extend.test_a_lease_is_never_made_shorter,
    ),
    Mutant(
        "a receipt that is not renewed",
        {"(not kept_until or tonumber(kept_until) < now + spell / 2)": "not kept_until"},
        test_retention.test_a_receipt_is_renewed_for_as_long_as_its_worker_claims,
    ),
    Mutant(
        "receipts ignored",
        {'if turn ~= "" and last == turn then': "if false then"},
        test_lost_replies.test_the_same_turn_again_gives_the_same_jobs_with_the_same_tokens,
    ),
    Mutant(
        "a lower turn taken for a new one",
        {"tonumber(turn) < tonumber(last) then": "false then"},
        test_lost_replies.test_a_lower_turn_gives_nothing_and_changes_nothing,
    ),
    Mutant(
        "a receipt that gives what another has by now",
        {"if held == int(nth) and until_ms then": "held = int(nth)\n    if until_ms then"},
        test_lost_replies.test_a_repeated_turn_gives_nothing_that_another_has_by_now,
    ),
    Mutant(
        "a repeated settlement taken for a stale one",
        {"if to then return to end": ""},
        test_ack.test_an_ack_repeated_is_answered_again_and_changes_nothing,
    ),
    Mutant(
        "any settlement taken for a repeat of another",
        {"return last == token and by == verb and to or nil": "return last == token and to or nil"},
        test_lost_replies.test_one_settlement_is_no_repeat_of_another, {"first": acked, "second": nacked},
    ),
    Mutant(
        "ack that drops the result",
        {'redis.call("HSET", results, unpack(records))': ""},
        test_ack.test_an_acked_job_has_succeeded_with_its_result,
    ),
    Mutant(
        "promotion that leaves its jobs where they were",
        {'if #moved > 0 then redis.call("ZREM", keys[state], unpack(moved)) end': ""},
        test_promote.test_promoting_again_changes_nothing,
    ),
    Mutant(
        "promotion a millisecond early",
        {"int(now * 1000 + 999)": "int(now * 1000 + 1999)"},
        test_promote.test_what_is_due_becomes_ready_and_what_is_not_waits,
    ),
    Mutant(
        "limit of attempts ignored",
        {'if attempt >= policy.max_attempts then return "dead", nil, "attempts" end': ""},
        test_nack.test_the_last_attempt_becomes_a_dead_letter,
    ),
    Mutant(
        "jitter beyond its range",
        {"(1 - policy.jitter * math.random())": "(1 + policy.jitter * math.random())"},
        test_nack.test_a_backoff_grows_by_its_factor_and_is_drawn_within_the_jitter, {"k": 0, "seconds": 2},
    ),
    Mutant(
        "one draw of the jitter for all",
        {"math.random()": "0.5"},
        test_nack.test_a_backoff_grows_by_its_factor_and_is_drawn_within_the_jitter, {"k": 0, "seconds": 2},
    ),
    Mutant(
        "max_delay ignored",
        {"math.min(policy.max_delay, ": "math.min(math.huge, "},
        test_nack.test_a_backoff_is_never_longer_than_max_delay,
    ),
    Mutant(
        "wish to stop ignored by nack",
        {"if lease.asked then\n": "if false then\n"},
        test_nack.test_a_job_that_was_asked_to_stop_and_fails_is_cancelled,
    ),
    Mutant(
        "wish to stop ignored by release",
        {'local state = lease.asked and "cancelled" or "ready"': 'local state = "ready"'},
        test_release.test_a_job_that_was_asked_to_stop_is_cancelled_however_it_is_released,
    ),
    Mutant(
        "cancel that does not take a job out of line",
        {'redis.call("ZREM", keys[job.from], job.id)': ""},
        test_cancel.test_a_job_that_does_not_run_is_cancelled_and_never_starts, {"state": "ready"},
    ),
    Mutant(
        "release that uses an attempt",
        {"lease.asked and lease.attempt or lease.attempt - 1, 0": "lease.attempt, 0"},
        test_release.test_a_released_job_is_ready_and_has_used_no_attempt,
    ),
    Mutant(
        "place lost on release",
        {"move = { id = id, score = lease.score, token = token": "move = { id = id, score = now * 1000 + 999, token = token"},
        test_order.test_a_job_given_back_keeps_its_place,
    ),
    Mutant(
        "priority ignored",
        {"write(place - rank * step)\n": "write(place)\n"},
        test_order.test_higher_priority_starts_first_and_equal_ones_keep_their_order,
    ),
    Mutant(
        "a line is not read on where its booked turns end",
        {"    group.spent = #found < want\n": "    group.spent = true\n"},
        test_groups.test_a_line_goes_on_where_its_booked_turns_end,
    ),
    Mutant(
        "all jobs of a line have one turn",
        {"set[#set + 2] = start + at - 1, line[at]": "set[#set + 2] = start, line[at]"},
        test_groups.test_groups_take_turns,
    ),
    Mutant(
        "a group that comes back is served at once",
        {"start = math.max(mark or turn, turn)\n": "start = turn\n"},
        test_groups.test_a_group_that_comes_back_gains_nothing,
    ),
    Mutant(
        "a claim cut short forgets what it has not taken",
        {"local gone, set = upto < n and (passed[upto] or upto) or seen, {}": "local gone, set = seen, {}"},
        test_groups.test_a_claim_that_its_bytes_end_leaves_the_rest_in_turn,
    ),
    Mutant(
        "filing goes on where its last job went",
        {"local rank = stays and redis": "local rank = id and redis"},
        test_groups.test_a_job_that_moves_while_the_queue_is_filed_takes_no_others_with_it, {"priority": -100},
    ),
    Mutant(
        "places by the clock alone",
        {"place = math.max(place + 1, micros)": "place = micros"},
        test_order.test_places_only_rise_though_the_clock_goes_back, {"lead": 60},
    ),
    Mutant(
        "ties of a millisecond by chance",
        {"due_score = due_score + 1": "due_score = due_score", "tonumber(last[2]) + 1 or due * 1000": "due * 1000 or due * 1000"},
        test_enqueue.test_a_thousand_jobs_of_one_millisecond_keep_their_order,
    ),
    Mutant(
        "a standing id taken again",
        {"local record = standing[i] or seen[id]": "local record = seen[id]"},
        test_enqueue.test_the_same_request_again_is_the_same_job,
    ),
    Mutant(
        "known ids ignored by enqueue",
        {"local tomb = not record and tombs[i]": "local tomb = false"},
        test_enqueue.test_the_id_of_a_job_that_has_just_gone_is_not_taken_again_for_a_minute,
    ),
    Mutant(
        "pause ignored",
        {"if paused then\n  waiting": "if false then\n  waiting"},
        test_claim.test_a_paused_queue_starts_nothing_and_what_runs_goes_on,
    ),
    Mutant(
        "a bad record given to a worker",
        {'[^|\\n]*\\n[^\\n]*\\n.")': '[^|\\n]*\\n?[^\\n]*")'},
        test_claim.test_a_bad_record_is_buried_as_corrupt_and_the_others_run, {"record": "send|||1||f|c"},
    ),
    Mutant(
        "replay that keeps the attempts",
        {'course.attempt, course.crashes, course.unhandled, course.since, course.reason, course.alike = 0, 0, 0, 0, "", ""': 'course.reason, course.alike = "", ""'},
        test_replay.test_a_replayed_job_begins_again_and_keeps_its_errors,
    ),
    Mutant(
        "retention by count forgets one",
        {"{ over = ": "{ over = -1 + "},
        test_retention.test_the_count_is_never_exceeded_and_the_oldest_leave_first, {"state": "dead"},
    ),
    Mutant(
        "replay that forgets the group",
        {"  ungroup(keys, ids)\n  for i, job": "  for i, job"},
        test_dead_groups.test_whoever_leaves_dead_leaves_the_group_and_the_last_one_ends_it,
    ),
    Mutant(
        "purge that forgets the group",
        {'if state == "dead" then ungroup(keys, ids) end': ""},
        test_dead_groups.test_whoever_leaves_dead_leaves_the_group_and_the_last_one_ends_it,
    ),
    Mutant(
        "numbers in what it died of",
        {r'string.reverse(string.gsub(text, "%d[%w_\128-\255-]*", "\1"))': "string.reverse(text)"},
        test_dead_groups.test_messages_that_differ_in_numbers_and_ids_are_one_group, {"one": "job 12", "other": "job 7"},
    ),
    Mutant(
        "a page taken twice",
        {"or of.page ~= tonumber(page) then": "then"},
        test_operate.test_of_ten_who_carry_out_the_same_page_one_does, {"act": "cancel"},
    ),
    Mutant(
        "a page that is not counted",
        {"of.done + done": "of.done"},
        test_operate.test_a_page_acts_and_is_counted_in_one_step, {"act": "replay"},
    ),
    Mutant(
        "replay of what died since",
        {'state == "dead" and last and math.abs(died) > last': "false"},
        test_operate.test_replay_by_id_refuses_what_died_after_its_time,
    ),
    Mutant(
        "obliterated under a running job",
        {'force ~= "1" and redis.call("ZCARD", running) > 0': "false"},
        test_obliterate.test_nothing_of_the_queue_is_left,
    ),
    Mutant(
        "an old run told to an open breaker",
        {"(not its.mark or its.mark == run.mark)": "true"},
        test_breaker.test_what_ran_when_it_opened_tells_no_probe,
    ),
    Mutant(
        "more probes than it wants",
        {"tonumber(probes) - tonumber(passed)": "tonumber(probes)"},
        test_breaker.test_when_all_probes_do_well_it_closes_and_the_others_follow_at_once,
    ),
    Mutant(
        "a killed probe that tells nothing",
        {'if state ~= "cancelled" and not failure.reason': 'if state ~= "cancelled" and not failure.crash and not failure.reason'},
        test_breaker.test_a_probe_whose_worker_was_killed_opens_it_again,
    ),
    Mutant(
        "what is permanent counted",
        {'not failure.reason and reason ~= "permanent"': "not failure.reason"},
        test_breaker.test_what_is_permanent_given_back_or_cancelled_counts_neither_way,
    ),
    Mutant(
        "windows that never end",
        {"now - since >= 2 * its.window": "false"},
        test_breaker.test_what_failed_long_ago_counts_no_more,
    ),
    Mutant(
        "a reset that brings nobody back",
        {'redis.call("ZADD", waits, "XX", 0, "t" .. type)': ""},
        test_breaker.test_a_reset_closes_it_and_rings,
    ),
    Mutant(
        "a slowed type that is not held long enough",
        {"math.max(still_ahead(held or 0, set_at, now), math.ceil(its.wait))": "math.ceil(its.wait)"},
        test_breaker.test_a_shorter_one_does_not_shorten_it_and_a_repeat_does_not_lengthen_it,
    ),
    Mutant(
        "log without end",
        {"if over > 0 then": "if false then"},
        test_note.test_the_newest_thousand_lines_of_a_job_are_kept,
    ),
]  # fmt: skip


def test_there_are_many_and_no_two_alike():
    assert len(MUTANTS) == len({mutant.name for mutant in MUTANTS}) > 12


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_the_fault_is_found_and_without_it_there_is_none(clients, clock, backend, mutant):
    async def check(store: Store) -> None:
        await store.connect()
        began = clock.now
        given = {
            "store": store,
            "redis": clients.commands,
            "clock": clock,
            "backend": backend,
            **mutant.given,
        }
        if "schedules" in inspect.signature(mutant.found_by).parameters:
            given["schedules"] = test_schedules.at_nine(store, clock)
        if mutant.found_by.__module__.endswith("test_reclaim"):  # whose tests begin with a sweep
            await clients.commands.hset("{scheduler:mail}:counters", "swept_at", began)
        await mutant.found_by(**{name: given[name] for name in inspect.signature(mutant.found_by).parameters})
        clock.now = began
        await clients.commands.flushall()

    await check(Store(clients, now=clock))

    faulty = Store(clients, now=clock)
    faulty._scripts = mutant.scripts()
    # A job that cannot be found or taken fails a test as well as a wrong answer; a script that breaks does not count.
    with pytest.raises((AssertionError, NotFound, ValueError, pytest.fail.Exception)):
        await check(faulty)
