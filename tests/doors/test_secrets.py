"""No secret of the process, and none of its callers, is in an answer, the document or a log."""

from __future__ import annotations

import logging

import pytest

from scheduler.clients import open_clients
from scheduler.errors import SchedulerError
from tests.doors.conftest import served

KEY, PASSWORD, SENT = "canary-key-4c1d", "canary-password-93ab", "canary-sent-71fe"


async def everything(api, **headers):
    """What is answered to calls of all sorts, to the well-meaning and to others."""
    calls = [
        ("GET", "/livez", None), ("GET", "/readyz", None), ("GET", "/openapi.json", None), ("GET", "/docs", None), ("GET", "/nope", None),
        ("GET", "/v1/queues", None), ("GET", f"/v1/jobs?key={SENT}", None), ("GET", "/v1/jobs/mail:nope", None),
        ("POST", "/v1/jobs", {"type": "t"}), ("POST", "/v1/jobs", SENT.encode()), ("POST", "/v1/jobs", [SENT]),
        ("POST", "/v1/jobs/bulk", [{"type": "t"}]), ("POST", "/v1/queues/mail/lease", {"worker": "w"}),
        ("GET", "/v1/workers", None), ("GET", "/v1/stats", None), ("PUT", "/v1/queues/mail", {}),
    ]  # fmt: skip
    said = []
    for method, path, body in calls:
        answer = await api.call(method, path, body, **headers)
        said.append(answer.raw.decode() + str(answer.headers))
    return "\n".join(said)


@pytest.mark.parametrize("backend", ["valkey"])
@pytest.mark.parametrize("right", [True, False], ids=["at work", "its password is wrong"])
async def test_what_redis_and_callers_are_told_stays_with_them(servers, clients, redis, said, caplog, right):
    caplog.set_level(logging.DEBUG)
    await redis.execute_command(
        "ACL", "SETUSER", "canary", "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all"
    )
    password = PASSWORD if right else PASSWORD[::-1]
    try:
        url = servers.url("valkey").replace("unix://", f"unix://canary:{password}@")
        ours = await open_clients(url)
        try:
            async with served(ours, api_key=KEY, log_level="debug") as api:
                answers = await everything(api, Authorization=f"Bearer {KEY}")
                answers += await everything(api, Authorization=f"Bearer {SENT}")
        finally:
            await ours.close()
    finally:
        await redis.execute_command("ACL", "DELUSER", "canary")

    assert right == ('"status":"ready"' in answers)
    for secret in (KEY, password, SENT):
        assert secret not in answers
        assert secret not in caplog.text


@pytest.mark.parametrize("backend", ["fake"])
async def test_a_store_that_is_away_is_named_without_its_password(said, caplog, backend):
    caplog.set_level(logging.DEBUG)
    ours = await open_clients(f"redis://canary:{PASSWORD}@127.0.0.1:1/0?client_name={SENT}")
    try:
        async with served(ours, log_level="debug") as api:
            answers = await everything(api)
            with pytest.raises(SchedulerError) as raised:
                await api.store.connect()
    finally:
        await ours.close()

    assert "127.0.0.1:1" in answers
    assert PASSWORD not in answers + caplog.text + str(raised.value)
