"""Random users of the REST API, and what each of their jobs must come to."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

ENDED = ("succeeded", "cancelled", "dead")
UNKNOWN = (408, 429, 503, 504, 507)
"""Statuses after which a request is sent again."""


@dataclass
class Expected:
    """A job that was created, and what is known of it."""

    id: str
    n: int
    ends: set[str]
    """States in which it may end."""
    cancelled_at: float | None = None
    """When a cancel was answered with `cancelled`: nothing starts after that."""
    edited: bool = False
    """An edit whose outcome is not known for certain: either payload may have run."""
    deleted: bool = False
    flow: bool = False
    """Part of a flow, whose results others add up: nobody edits, cancels or deletes it."""
    earlier: set[int] = field(default_factory=set)


class Driver:
    """Several users at once, each a loop of random requests. `wrong` has every answer that is not true."""

    def __init__(self, ports: list[int], chance: random.Random) -> None:
        self.ports, self.chance = ports, chance
        self.jobs: dict[str, Expected] = {}
        self.wrong: list[str] = []
        self.answers: dict[str, int] = {}
        """How often which call was answered by which status: tells whether the driver tries anything at all."""
        self.stopping = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._numbers = iter(range(1, 1_000_000))

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, bool]:
        """A request until it has a definite answer: its status, its document, and whether it was sent before."""
        again = False
        end = time.monotonic() + 90
        while True:
            port = self.chance.choice(self.ports)
            try:
                async with self.session.request(
                    method, f"http://127.0.0.1:{port}{path}", json=body, headers=headers
                ) as answer:
                    document = await answer.json(content_type=None) if answer.status != 204 else None
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, ValueError):
                again = True
            else:
                name = f"{method} {path.split('?', maxsplit=1)[0].split(':', maxsplit=1)[0]} {status}"
                self.answers[name] = self.answers.get(name, 0) + 1
                if status == 500:
                    self.wrong.append(f"{method} {path} {body}: {document}")
                if status not in UNKNOWN:
                    return status, document, again
                again = again or status in {503, 504, 408}
            if time.monotonic() > end:
                self.wrong.append(f"{method} {path}: no answer within 90 s")
                return 0, None, again
            await asyncio.sleep(self.chance.uniform(0.05, 0.3))

    # -- one user -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        acts = [
            *[self.post] * 8, *[self.bulk] * 2, *[self.cancel] * 2, *[self.edit] * 2, self.flow, self.replay, self.delete,
            self.run_now, self.lease, self.lease, self.limit, self.pause, self.cancel_by_tag, self.schedule, *[self.look] * 3,
        ]  # fmt: skip
        while not self.stopping.is_set():
            await self.chance.choice(acts)()
            await asyncio.sleep(self.chance.uniform(0, 0.05))

    def new(self) -> tuple[dict[str, Any], Expected]:
        """A job, and what it must come to."""
        n = next(self._numbers)
        kind = self.chance.choice(["async", "async", "thread", "process"])
        queue = "slow" if kind == "process" else "mail"
        how = self.chance.choices(["", "raise", "later", "permanent", "die"], [70, 12, 8, 6, 1])[0]
        if how == "die" and kind == "process":
            how = ""  # the death of a child is a failure and no crash
        payload: dict[str, Any] = {"n": n, "how": how, "until": self.chance.randint(1, 3)}
        if not how and self.chance.random() < 0.2:
            payload["seconds"] = self.chance.choice([0.1, 0.5, 2, 5])
        if how == "die":
            payload["until"] = 1_000
        ends = {"dead"} if how in {"permanent", "die"} else {"succeeded"}
        job: dict[str, Any] = {
            "type": kind, "queue": queue, "id": uuid.uuid4().hex, "payload": payload,
            "retry": {"max_attempts": 900, "base": 0.1, "max_delay": 1, "max_crashes": 3 if how == "die" else 100},
        }  # fmt: skip
        options = {
            "priority": lambda: self.chance.randint(-100, 100),
            "delay": lambda: self.chance.uniform(0, 2),
            "group": lambda: f"g{self.chance.randint(0, 4)}",
            "tags": lambda: ["doomed"] if self.chance.random() < 0.2 else ["kept"],
            "deadline": lambda: 4 * 3_600,
            "expires_in": lambda: 5 * 3_600,
        }
        for name, value in options.items():
            if self.chance.random() < 0.25:
                job[name] = value()
        # The server's clock may step over these.
        if "deadline" in job or "expires_in" in job:
            ends |= {"cancelled", "dead"}
        if "doomed" in job.get("tags", ()):
            ends.add("cancelled")
        return job, Expected(f"{queue}:{job['id']}", n, ends)

    async def post(self) -> None:
        job, expected = self.new()
        status, found, again = await self.call("POST", "/v1/jobs", job)
        if status == 0:
            return
        if status != 201 and not (again and status == 200):
            self.wrong.append(f"a new job was answered {status} {found}")
            return
        self.jobs[expected.id] = expected
        if found["id"] != expected.id:
            self.wrong.append(f"{expected.id} was answered as {found['id']}")

    async def bulk(self) -> None:
        made = [self.new() for _ in range(self.chance.randint(1, 20))]
        left = dict(enumerate(made))
        sent: set[int] = set()
        for _ in range(200):
            numbers = sorted(left)
            status, found, again = await self.call("POST", "/v1/jobs/bulk", [left[n][0] for n in numbers])
            if status != 200:
                if status:
                    self.wrong.append(f"bulk was answered {status} {found}")
                return
            if again:
                sent |= set(numbers)
            for number, item in zip(numbers, found["items"], strict=True):
                if item["status"] in UNKNOWN:
                    sent.add(number)
                    continue
                _job, expected = left.pop(number)
                if item["status"] != 201 and not (item["status"] == 200 and number in sent):
                    self.wrong.append(f"a new job of a bulk was answered {item}")
                self.jobs[expected.id] = expected
            if not left:
                return

    async def flow(self) -> None:
        key = uuid.uuid4().hex
        jobs = [
            {
                "name": f"p{k}",
                "type": "async",
                "queue": self.chance.choice(["mail", "slow"]),
                "payload": {"n": k},
            }
            for k in range(3)
        ]
        jobs.append(
            {
                "name": "end",
                "type": "sum",
                "queue": "mail",
                "payload": {"n": 100},
                "after": ["p0", "p1", "p2"],
            }
        )
        status, found, again = await self.call(
            "POST", "/v1/flows", {"id": key, "queue": "mail", "jobs": jobs}
        )
        if status == 0:
            return
        if status != 201 and not (again and status == 200):
            self.wrong.append(f"a new flow was answered {status} {found}")
            return
        for job in found["jobs"]:
            n = 103 if job["name"] == "end" else int(job["name"][1:])
            self.jobs[job["id"]] = Expected(job["id"], n, {"succeeded"}, flow=True)

    def some(self) -> Expected | None:
        newest = [job for job in list(self.jobs.values())[-200:] if not job.deleted and not job.flow]
        return self.chance.choice(newest) if newest else None

    async def cancel(self) -> None:
        job = self.some()
        if job is None or (job.ends == {"succeeded"} and self.chance.random() < 0.7):
            return
        job.ends = job.ends | {"cancelled"}
        status, found, _ = await self.call("POST", f"/v1/jobs/{job.id}/cancel")
        if status == 200 and found["state"] == "cancelled":
            job.cancelled_at = time.time()
        elif status == 202:
            if found["state"] not in {"running", "succeeded"}:
                self.wrong.append(f"cancel of {job.id} was answered 202 {found}")
        elif status not in {409, 404, 0}:
            self.wrong.append(f"cancel of {job.id} was answered {status} {found}")

    async def edit(self) -> None:
        job = self.some()
        if job is None or "dead" in job.ends:
            return
        n = next(self._numbers)
        job.earlier.add(n)
        before, job.edited = job.edited, True
        status, found, again = await self.call("PATCH", f"/v1/jobs/{job.id}", {"payload": {"n": n}})
        if status == 200:
            job.earlier.add(job.n)
            job.n = n
            job.edited = before or again
        elif status in {404, 409}:
            job.edited = before or again
        elif status:
            self.wrong.append(f"an edit of {job.id} was answered {status} {found}")

    async def run_now(self) -> None:
        if job := self.some():
            status, found, _ = await self.call("POST", f"/v1/jobs/{job.id}/run")
            if status not in {200, 404, 409, 0}:
                self.wrong.append(f"run of {job.id} was answered {status} {found}")

    async def replay(self) -> None:
        job = self.some()
        if job is None or "dead" not in job.ends:
            return
        n = next(self._numbers)
        # Until the answer is known the job may be either.
        job.earlier |= {job.n, n}
        job.edited, before = True, job.edited
        job.ends = job.ends | {"succeeded"}
        status, found, again = await self.call("POST", f"/v1/jobs/{job.id}/replay", {"payload": {"n": n}})
        if status == 200 and not again:
            job.ends, job.n, job.edited = (job.ends | {"succeeded"}) - {"dead"} | {"dead"}, n, before
        elif status not in {200, 404, 409, 0}:
            self.wrong.append(f"replay of {job.id} was answered {status} {found}")

    async def delete(self) -> None:
        job = self.some()
        if job is None:
            return
        job.deleted = True
        status, found, again = await self.call("DELETE", f"/v1/jobs/{job.id}")
        if status == 204:
            status, found, _ = await self.call("GET", f"/v1/jobs/{job.id}")
            if status not in {404, 0}:
                self.wrong.append(f"{job.id} was deleted and is there: {status} {found}")
        elif status == 409:
            job.deleted = again
        elif status not in {404, 0}:
            self.wrong.append(f"delete of {job.id} was answered {status} {found}")

    async def lease(self) -> None:
        """A worker of another language, which settles by hand."""
        worker = f"hand-{uuid.uuid4().hex[:8]}"
        body = {"worker": worker, "max": 3, "request_id": uuid.uuid4().hex}
        status, found, _ = await self.call("POST", "/v1/queues/mail/lease", body)
        if status != 200:
            if status:
                self.wrong.append(f"lease was answered {status} {found}")
            return
        acks = []
        for job in found["jobs"]:
            if job["payload"].get("how") in {"permanent", "die"} or job["type"] == "sum":
                acks.append(("release", {"id": job["id"], "token": job["token"]}))
            else:
                acks.append(("ack", {"id": job["id"], "token": job["token"], "result": job["payload"]["n"]}))
        body = {
            "worker": worker,
            "ack": [a for w, a in acks if w == "ack"],
            "release": [a for w, a in acks if w == "release"],
        }
        for _ in range(2):  # a settlement that is repeated is answered as the first one
            status, answer, _ = await self.call("POST", "/v1/queues/mail/settle", body)
            if status != 200:
                if status:
                    self.wrong.append(f"settle was answered {status} {answer}")
                return
            for item in answer["items"]:
                if not item["ok"] and item.get("code") not in {"stale_lease", "not_found"}:
                    self.wrong.append(f"a settlement was answered {item}")

    async def limit(self) -> None:
        change = self.chance.choice([
            {"rate": "500/s"}, {"rate": None}, {"concurrency": 20}, {"concurrency": None},
            {"group_concurrency": 4}, {"group_concurrency": None}, {"group_rate": "200/s"}, {"group_rate": None},
        ])  # fmt: skip
        await self.expect({200}, "PATCH", "/v1/queues/mail", change)

    async def pause(self) -> None:
        await self.expect({200}, "POST", "/v1/queues/slow/pause")
        await asyncio.sleep(self.chance.uniform(0, 0.5))
        await self.expect({200}, "POST", "/v1/queues/slow/resume")

    async def cancel_by_tag(self) -> None:
        await self.expect(
            {202}, "POST", "/v1/operations", {"act": "cancel", "queue": "mail", "filter": {"tag": "doomed"}}
        )

    async def schedule(self) -> None:
        queue = self.chance.choice(["slow", "poison"])
        body = {"queue": queue, "type": "tick", "payload": {"n": 1}, "every": "500ms", "overlap": "allow"}
        await self.expect({200, 201}, "PUT", f"/v1/schedules/{queue}-{self.chance.randint(1, 3)}", body)

    async def look(self) -> None:
        """Lists and pages are answered whatever is stored."""
        paths = [
            "/v1/jobs?limit=20&include=payload,result", "/v1/jobs?state=dead&limit=5", "/v1/queues", "/v1/queues/mail",
            "/v1/schedules", "/v1/workers", "/v1/stats", "/v1/operations", "/v1/queues/mail/dlq?by=fingerprint",
            "/v1/queues/poison/dlq", "/v1/queues/mail/demand", "/v1/queues/poison/types", "/v1/queues/mail/types",
        ]  # fmt: skip
        if job := self.some():
            paths += [f"/v1/jobs/{job.id}", f"/v1/jobs/{job.id}/explain", f"/v1/jobs/{job.id}/log"]
        await self.expect({200, 404}, "GET", self.chance.choice(paths))

    async def expect(self, statuses: set[int], method: str, path: str, body: Any = None) -> Any:
        status, found, _ = await self.call(method, path, body)
        if status not in statuses | {0}:
            self.wrong.append(f"{method} {path} {body} was answered {status} {found}")
        return found

    # -- the end --------------------------------------------------------------------------------------------------

    async def settle_down(self, seconds: float) -> None:
        """Lifts every limit and waits until each job has ended. Jobs that wait for a time are run now."""
        for queue in ("mail", "slow"):
            lifted = dict.fromkeys(("rate", "concurrency", "group_rate", "group_concurrency"))
            await self.expect({200}, "PATCH", f"/v1/queues/{queue}", lifted)
            await self.expect({200}, "POST", f"/v1/queues/{queue}/resume")
        end = time.monotonic() + seconds
        left = set(self.jobs)
        while left:
            for job_id in list(left):
                status, job, _ = await self.call("GET", f"/v1/jobs/{job_id}?wait=1")
                if status == 404 or (status == 200 and job["state"] in ENDED):
                    self.judge(self.jobs[job_id], status, job)
                    left.discard(job_id)
                elif status == 200 and job["state"] in {"scheduled", "retrying"}:
                    await self.call("POST", f"/v1/jobs/{job_id}/run")
                elif time.monotonic() > end:
                    left.discard(job_id)
                    explained = await self.call("GET", f"/v1/jobs/{job_id}/explain")
                    self.wrong.append(f"{job_id} has not ended: {job} {explained[1]}")
            await asyncio.sleep(0.2)

    def judge(self, expected: Expected, status: int, job: Any) -> None:
        """Compares a job that has ended with what was answered about it."""
        if status == 404:
            if not expected.deleted:
                self.wrong.append(f"{expected.id} is lost")
            return
        if job["state"] not in expected.ends:
            self.wrong.append(f"{expected.id} must end as {sorted(expected.ends)}: {job}")
        if expected.cancelled_at is not None and job["state"] != "cancelled":
            self.wrong.append(f"{expected.id} was answered as cancelled and is {job['state']}")
        if job["state"] == "succeeded":
            results = {expected.n} | (expected.earlier if expected.edited else set())
            if job["result"] not in results:
                self.wrong.append(f"{expected.id} has the result {job['result']}, not {sorted(results)}")
