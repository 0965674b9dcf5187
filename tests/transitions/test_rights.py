"""A process that lacks a right does not start, and says which: it must not find out after a script's first write."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from scheduler.clients import Clients
from scheduler.errors import StoreRefused
from scheduler.keys import LAYOUT, QUEUE_KEYS, Keys
from scheduler.presence import Presence
from scheduler.rights import check_rights, wanted
from scheduler.store import Store
from tests.helpers import QUEUE, faults, look, on_real_servers, raw, snapshot
from tests.transitions.cases import CASES, world

pytestmark = on_real_servers

COMMANDS = sorted(
    {
        "|".join(form[:2]).lower() if form[0] == "SCRIPT" else form[0].lower()
        for form in wanted(Keys("scheduler", QUEUE))
    }
)
KEYS = [
    *(f"{{scheduler:*}}:{key.suffix}" for key in QUEUE_KEYS),
    "{scheduler}:queues",
    "{scheduler}:layout",
    "{scheduler}:wake:*",
    "{scheduler}:workers",
    "{scheduler}:operations",
    "{scheduler}:schemas",
    "{scheduler}:schedule_queues",
    "{scheduler}:declared_schedules",
    "{scheduler}:worker:*",
    "{scheduler:=*}:request",
    "{scheduler:=*}:answer",
]
OURS = ("flushall", "client|setname")
"""What the tests and the client library send besides."""

Login = Callable[..., Awaitable[Store]]


@pytest.fixture
async def login(servers, backend, redis, clock):
    """Connects as a user who may send these commands on these keys, and nothing else."""
    opened: list[Clients] = []

    async def login(
        commands: Sequence[str] = COMMANDS, keys: Sequence[str] = KEYS, *, read: Sequence[str] = ()
    ) -> Store:
        patterns = [*(f"~{key}" for key in keys), *(f"%R~{key}" for key in read)]
        rights = [command if command.startswith("-") else f"+{command}" for command in (*OURS, *commands)]
        await redis.execute_command("ACL", "SETUSER", "tester", "reset", "on", ">secret", *patterns, *rights)
        clients = await servers.open(backend, user="tester:secret@")
        opened.append(clients)
        store = Store(clients, now=clock)
        await store.connect(queue=QUEUE)
        return store

    yield login
    for clients in opened:
        await clients.close()
    await redis.execute_command("ACL", "DELUSER", "tester")


@pytest.mark.unverified
async def test_these_commands_on_these_keys_are_enough_for_everything(login, store, redis, clock):
    user = await login()
    for case in CASES:
        await redis.flushall()
        args = case.args(await world(user, clock))
        await raw(user, case.script, *args)

    presence = Presence(user)
    await presence.sign("w", {"queues": [QUEUE]}, 1_000)
    assert ["w"] == [worker.name for worker in await presence.present()]
    await presence.leave("w")

    assert ([], [QUEUE], "master") == (await faults(user), await user.queues(), (await user.server())["role"])
    assert ({"send"}, (0, [])) == (set(await user.types(QUEUE)), await user.stray_queues(0))
    assert "dead" == (await look(user, "dead")).state


@pytest.mark.parametrize("command", COMMANDS)
async def test_without_any_one_command_nothing_starts(login, redis, command):
    with pytest.raises(StoreRefused) as raised:
        await login([other for other in COMMANDS if other != command])

    assert command.replace("|", " ") in str(raised.value).lower().replace("|", " ")
    assert set(await snapshot(redis)) <= {"{scheduler}:layout"}


@pytest.mark.parametrize("key", KEYS)
async def test_without_any_one_key_nothing_starts(login, key):
    with pytest.raises(StoreRefused) as raised:
        await login(keys=[other for other in KEYS if other != key])

    assert key.replace("*", QUEUE).removesuffix(QUEUE) in str(raised.value)


@pytest.mark.parametrize("key", KEYS)
async def test_a_key_that_may_only_be_read_is_not_enough(login, key):
    with pytest.raises(StoreRefused):
        await login(keys=[other for other in KEYS if other != key], read=[key])


async def test_without_the_command_that_names_a_connection_nothing_starts(login):
    with pytest.raises(StoreRefused, match="client"):
        await login([*COMMANDS, "-client|setname"])


async def test_everything_that_is_missing_is_named_at_once(login):
    with pytest.raises(StoreRefused) as raised:
        await login([other for other in COMMANDS if other not in {"zadd", "hset", "xadd"}])

    assert ["HSET", "XADD", "ZADD"] == [
        name for name in ("HSET", "XADD", "ZADD") if name in str(raised.value)
    ]


async def test_a_user_of_other_keys_is_told_which_are_meant_not_each_command(login):
    user = await login()
    with pytest.raises(StoreRefused) as raised:
        await check_rights(user.clients.commands, Keys("elsewhere", QUEUE))

    assert "every command on its keys, those like {elsewhere*" in str(raised.value)
    assert "HGET" not in str(raised.value)


async def test_a_wrong_password_is_refused(servers, backend, redis, clock):
    clients = await servers.open(backend, user="nobody:wrong@")
    with pytest.raises(StoreRefused, match=r"redis://user:password@host"):
        await Store(clients, now=clock).connect()
    await clients.close()


@pytest.mark.parametrize("number", [LAYOUT + 1, 0, "x"])
async def test_a_layout_that_is_not_known_is_refused(clients, redis, clock, number):
    await redis.set("{scheduler}:layout", number)
    before = await snapshot(redis)

    with pytest.raises(StoreRefused, match=f"layout {number}, this release knows layout {LAYOUT}"):
        await Store(clients, now=clock).connect()
    assert before == await snapshot(redis)
