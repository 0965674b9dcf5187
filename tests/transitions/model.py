"""A queue in plain Python: what the scripts must do, without Redis, batches, or anything that can fail half-way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

STEP = 60_000_000
WAITING = ("scheduled", "retrying")
UNSTARTED = ("scheduled", "retrying", "ready")
ENDED = ("succeeded", "cancelled", "dead")
WHILE_IT_WAITED = "DeadlineExceeded, while it waited"


@dataclass
class Policy:
    """A retry policy without jitter."""

    max_attempts: int = 3
    immediate: int = 1
    base: int = 2000
    factor: int = 2
    max_delay: int = 3_600_000
    max_crashes: int = 2
    jitter: int = 0


@dataclass
class ModelJob:
    key: str
    request: tuple[object, ...]
    policy: Policy
    priority: int
    retention: int | None
    timeout: int
    state: str = ""
    score: int = 0
    """Microseconds: the place in line, or when it is due."""
    attempt: int = 0
    crashes: int = 0
    snoozes: int = 0
    errors: int = 0
    unhandled: int = 0
    since: int = 0
    reason: str | None = None
    died_of: str = ""
    """The kind of its last error, which says what it died of but for a deadline: that may pass while it waits or runs."""
    progress: bytes | None = None
    settled: tuple[int, str, str] | None = None
    """By which token and verb its last run ended, and where that led."""
    token: int = 0
    held: int = 0
    """The attempt that runs, counted from 1."""
    lease_end: int = 0
    timeout_end: int = 0
    asked: bool = False
    ended_at: int = 0
    unique: str = ""
    deadline: int | None = None
    expires: int | None = None

    def late(self, now: int) -> bool:
        """It has no more time to start. An expiry means nothing after a first start that was not given back."""
        times = (self.deadline, self.expires if self.attempt == 0 else None)
        return self.state in UNSTARTED and any(time is not None and time <= now for time in times)


@dataclass
class Tomb:
    """What stays known of a job that is gone."""

    request: tuple[object, ...]
    state: str
    at: int
    settled: tuple[int, str, str] | None
    unique: str = ""


@dataclass
class Model:
    now: int
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    tombs: dict[str, Tomb] = field(default_factory=dict)
    holders: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of each unique key: who took it last, and until its start or its end."""
    created: bool = False
    paused: bool = False
    place: int = 0
    token: int = 0
    due: tuple[int, int] = (0, 0)
    swept_at: int | None = None
    grace_until: int = 0

    # -- producing

    def enqueue(
        self, key: str, policy: Policy, priority: int, delay: int, retention: int | None, timeout: int,
        unique: str = "", until: str = "", deadline: int | None = None, expires: int | None = None,
    ) -> str:  # fmt: skip
        times = (deadline, expires)
        request = (policy.__dict__.copy(), priority, delay, retention, timeout, unique, until, times)
        if key in self.jobs:
            return "exists" if self.jobs[key].request == request else "conflict"
        if key in self.tombs:
            tomb = self.tombs[key]
            if tomb.at + 60_000 > self.now or tomb.unique:
                return "exists" if tomb.request == request else "conflict"
        if any(time is not None and time <= 0 for time in times):
            return "past"
        if unique and self._holds(*self.holders.get(unique, ("", "")), unique):
            return "held"  # nothing has changed: an ended id is known on until its expiry, or until it is taken anew
        self.tombs.pop(key, None)
        self.created = True
        job = ModelJob(key, request, policy, priority, retention, timeout)
        job.unique = unique
        job.deadline, job.expires = (None if time is None else self.now + time for time in times)
        if unique:
            self.holders[unique] = (key, until)
        self.jobs[key] = job
        if delay:
            self._schedule(job, self.now + delay)
        else:
            self._line_up(job)
        return job.state

    def _holds(self, key: str, until: str, unique: str) -> bool:
        job = self.jobs.get(key)
        return (
            job is not None
            and job.unique == unique
            and (job.state in UNSTARTED or (job.state == "running" and until == "end"))
            and not job.late(self.now)
        )

    def _line_up(self, job: ModelJob) -> None:
        self.place = max(self.place + 1, self.now * 1000)
        job.state, job.score = "ready", self.place - job.priority * STEP

    def _schedule(self, job: ModelJob, due: int) -> None:
        if due == self.due[0]:
            score = self.due[1] + 1
        else:
            ties = [
                other.score
                for other in self.jobs.values()
                if other.state == "scheduled" and due * 1000 <= other.score <= due * 1000 + 999
            ]
            score = max(ties) + 1 if ties else due * 1000
        self.due = (due, score)
        job.state, job.score = "scheduled", score

    # -- working

    def promote(self) -> int:
        due = [
            job for job in self.jobs.values() if job.state in WAITING and job.score <= self.now * 1000 + 999
        ]
        for job in due:
            job.state, job.score = "ready", job.score - job.priority * STEP
        return len(due)

    def claim(self, count: int, lease: int) -> list[ModelJob]:
        if not self.created:
            return []
        self.promote()
        if self.paused:
            return []
        line = sorted((job.score, job.key) for job in self.jobs.values() if job.state == "ready")
        found = [self.jobs[key] for _, key in line[:count]]
        # A job whose last run crashed is given alone.
        suspects = [n for n, job in enumerate(found) if job.crashes]
        if suspects:
            found = found[: max(1, suspects[0])]
        taken = [job for job in found if not job.late(self.now)]
        token = max(self.token + 1, self.now * 1000)
        for job in taken:
            job.state, job.token, job.held, job.asked = "running", token, job.attempt + 1, False
            ends = self.now + job.timeout
            job.timeout_end = min(ends, job.deadline or ends)
            job.lease_end = min(self.now + lease, job.timeout_end + 5000)
            self.token = token
            token += 1
        for job in found:
            self._lapse(job)
        return taken

    def _lapse(self, job: ModelJob) -> None:
        """Ends a job that waited until its time was over. Also one that is not to be kept stays until the next sweep."""
        if not job.late(self.now):
            return
        if job.attempt:
            job.errors, job.died_of = job.errors + 1, WHILE_IT_WAITED
        job.state, job.reason = ("dead", "deadline") if job.attempt else ("cancelled", "expired")
        job.ended_at = self.now

    def _refused(self, key: str, token: int, verb: str) -> str | None:
        """What a settlement is answered that does not own its job."""
        job, tomb = self.jobs.get(key), self.tombs.get(key)
        if job is not None and job.state == "running":
            return None if job.token == token else "stale"
        settled = job.settled if job else tomb.settled if tomb else None
        if settled is not None and settled[:2] == (token, verb):
            return settled[2]
        return "stale" if job or tomb else "missing"

    def ack(self, key: str, token: int) -> str:
        if refused := self._refused(key, token, "ack"):
            return refused
        job = self.jobs[key]
        job.attempt, job.crashes, job.reason = job.held, 0, None
        job.settled = (token, "ack", "succeeded")
        self._end(job, "succeeded", None)
        return "succeeded"

    def nack(self, key: str, token: int, kind: str, retry_in: int | None) -> str:
        return self._refused(key, token, "nack") or self._fail(self.jobs[key], "nack", kind, retry_in)

    def bury(self, key: str, token: int, kind: str) -> str:
        return self._refused(key, token, "bury") or self._fail(
            self.jobs[key], "bury", kind, None, reason="permanent"
        )

    def _fail(
        self,
        job: ModelJob,
        verb: str,
        kind: str,
        retry_in: int | None,
        *,
        reason: str | None = None,
        crash: bool = False,
        shared: bool = False,
    ) -> str:
        """`shared`: the worker that went silent held other jobs too (here there is one worker), and none is dead by it."""
        job.attempt, job.errors, job.unhandled, job.since = job.held, job.errors + 1, 0, 0
        job.died_of = kind
        job.crashes = job.crashes + 1 if crash else 0
        if shared:
            job.crashes = min(job.crashes, max(1, job.policy.max_crashes - 1))
        state, why = self._after_failure(job, retry_in, reason, crash, shared)
        job.settled = (job.token, verb, state)
        self._end(job, state, why)
        return state

    def _after_failure(
        self, job: ModelJob, retry_in: int | None, reason: str | None, crash: bool, shared: bool = False
    ) -> tuple[str, str | None]:
        policy = job.policy
        if job.asked:
            return "cancelled", "asked"
        if reason:
            return "dead", reason
        if job.deadline is not None and job.deadline <= self.now:
            return "dead", "deadline"
        if crash and not shared and job.crashes >= policy.max_crashes:
            return "dead", "crashes"
        if job.attempt >= policy.max_attempts:
            return "dead", "attempts"
        delay = retry_in
        if crash or (delay is None and job.attempt <= policy.immediate):
            delay = 0
        elif delay is None:
            delay = math.ceil(
                min(policy.max_delay, policy.base * policy.factor ** (job.attempt - policy.immediate - 1))
            )
        if delay and job.deadline is not None and self.now + delay >= job.deadline:
            return "dead", "deadline"
        if delay:
            job.score = (self.now + delay) * 1000
        return ("retrying" if delay else "ready"), None

    def _end(self, job: ModelJob, state: str, reason: str | None) -> None:
        """Leaves running (or a waiting set) for another state; what waits again keeps the score that was set."""
        job.state, job.reason, job.asked = state, reason, False
        if state in ENDED:
            job.ended_at = self.now
            if job.retention == 0:
                self._forget(job)

    def _forget(self, job: ModelJob) -> None:
        """Lets go an ended job whose own retention is over. Its id stays known for a minute after its end."""
        if job.ended_at + 60_000 > self.now:
            self.tombs[job.key] = Tomb(job.request, job.state, job.ended_at, job.settled, job.unique)
        del self.jobs[job.key]

    def release(self, key: str, token: int, delay: int, why: str, patience: int) -> str:
        if refused := self._refused(key, token, "release"):
            return refused
        job = self.jobs[key]
        since = job.since if job.unhandled else self.now
        if why == "no_handler" and self.now - since >= patience and not job.asked:
            return self._fail(job, "release", "NoHandler", None, reason="no_handler")
        if why == "no_handler":
            delay = min(60_000, 1000 * 2 ** min(job.unhandled, 6))
            job.unhandled, job.since = job.unhandled + 1, since
        else:
            job.unhandled, job.since = 0, 0
        job.snoozes += why == "snooze"
        # A run that was asked to stop is used.
        job.attempt, job.crashes = job.held if job.asked else job.held - 1, 0
        state = "cancelled" if job.asked else "scheduled" if delay else "ready"
        if state == "scheduled":
            job.score = (self.now + delay) * 1000
        job.settled = (token, "release", state)
        self._end(job, state, "asked" if job.asked else None)
        return state

    def extend(self, key: str, token: int, lease: int) -> str:
        answer = self._heard(key, token)
        if answer in {"running", "cancel"}:
            job = self.jobs[key]
            job.lease_end = max(job.lease_end, min(self.now + lease, job.timeout_end + 5000))
        return answer

    def note(self, key: str, token: int, progress: bytes) -> str:
        answer = self._heard(key, token)
        if answer in {"running", "cancel"}:
            self.jobs[key].progress = progress
        return answer

    def _heard(self, key: str, token: int) -> str:
        job = self.jobs.get(key)
        if job is None or job.state != "running" or job.token != token:
            return "stale" if job or key in self.tombs else "missing"
        return "cancel" if job.asked else "running"

    def reclaim(self, lease: int, period: int) -> int:
        if not self.created:
            return 0
        pause = lease // 3 + 1000
        self.grace_until = min(self.grace_until, self.now + pause)
        running = sorted((job.lease_end, job.key) for job in self.jobs.values() if job.state == "running")
        gap = self.swept_at is None or self.swept_at > self.now or self.now - self.swept_at > 1.5 * period
        before, last = self.grace_until, self.swept_at
        if running and gap:
            self.grace_until = self.now + pause
        self.swept_at = self.now
        upto = self.now
        if self.now < self.grace_until:
            # Only what had run out at the last sweep, and had its grace since then.
            if self.now < before or last is None or last > self.now:
                return 0
            upto = last
        overdue = [self.jobs[key] for lease_end, key in running if lease_end <= upto]
        for job in overdue:
            crash = job.lease_end < job.timeout_end
            ended = "DeadlineExceeded" if job.timeout_end == job.deadline else "TimeoutError"
            kind = "LeaseExpired" if crash else ended
            self._fail(job, "reclaim", kind, None, crash=crash, shared=crash and len(running) > 1)
        return len(overdue)

    def times(self) -> list[tuple[ModelJob, int]]:
        """The jobs that have not ended and have a deadline or an expiry to come, and when that is."""
        unfinished = [job for job in self.jobs.values() if job.state not in ENDED]
        found = [(job, time) for job in unfinished for time in (job.deadline, job.expires)]
        return [(job, time) for job, time in found if time is not None and time > self.now]

    # -- acting on jobs

    def _known_state(self, key: str) -> str:
        job, tomb = self.jobs.get(key), self.tombs.get(key)
        return job.state if job else tomb.state if tomb else "missing"

    def run(self, key: str) -> str:
        state = self._known_state(key)
        if state in WAITING:
            self._line_up(self.jobs[key])
            return "ready"
        return "already" if state == "ready" else state

    def cancel(self, key: str) -> str:
        state = self._known_state(key)
        if state == "running":
            self.jobs[key].asked = True
        elif state in UNSTARTED:
            self._end(self.jobs[key], "cancelled", "asked")
            return "cancelled"
        return state

    def replay(self, key: str) -> str:
        job = self.jobs.get(key)
        if job is None or job.state != "dead":
            state = self._known_state(key)
            return "already" if state == "ready" else state
        job.attempt = job.crashes = job.unhandled = job.since = 0
        job.reason = job.expires = None
        if job.deadline is not None and job.deadline <= self.now:
            job.deadline = None
        self._line_up(job)
        return "ready"

    def update(self, key: str, priority: int | None, delay: int | None) -> str:
        state = self._known_state(key)
        if state not in UNSTARTED:
            return state
        job = self.jobs[key]
        before, job.priority = job.priority, job.priority if priority is None else priority
        if state == "ready":
            job.score += (before - job.priority) * STEP
        if delay is not None and delay <= 0 and state != "ready":
            self._line_up(job)
        elif delay:
            job.state, job.score = ("scheduled" if state == "ready" else state), (self.now + delay) * 1000
        return job.state

    def purge(self, key: str) -> str:
        state = self._known_state(key)
        if state == "running" or (key not in self.jobs and key not in self.tombs):
            return state
        self.jobs.pop(key, None)
        self.tombs.pop(key, None)
        return "gone"

    def groups(self) -> dict[str, int]:
        """How many dead jobs died of what."""
        kinds = [job.died_of for job in self.jobs.values() if job.state == "dead"]
        return {kind: kinds.count(kind) for kind in kinds}

    def over_all(self, act: str, state: str) -> tuple[int, int]:
        """An operation over all jobs (of a state): how many matched, and on how many it acted."""
        looks = {"cancel": (*UNSTARTED, "running"), "run": WAITING, "replay": ("dead",), "purge": (state,)}
        matched = done = 0
        for look in looks[act]:
            found = [job for job in self.jobs.values() if job.state == look]
            if look in ENDED:
                found.sort(key=lambda job: job.key, reverse=True)
                # What its own retention keeps comes after the others of its millisecond, the other way round.
                own = [job for job in reversed(found) if job.retention is not None]
                found = [job for job in found if job.retention is None] + own
                found.sort(key=lambda job: job.ended_at, reverse=True)
            else:
                found.sort(key=lambda job: (job.score, job.key))
            matched += len(found)
            for job in found:
                done += not job.asked
                getattr(self, act)(job.key)
        return matched, done

    def expire(self) -> None:
        for key in [key for key, tomb in self.tombs.items() if tomb.at + 60_000 <= self.now]:
            del self.tombs[key]
        for job in list(self.jobs.values()):
            if job.state in ENDED and job.retention == 0:
                self._forget(job)
            self._lapse(job)
