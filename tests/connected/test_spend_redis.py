"""What only a real server can show of the spend ledger: kills, lost replies, refusals, expiry, slots."""

import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from deploy.embedded import Valkey
from embeddings.errors import LedgerClosed, StoreRefused, StoreUnavailable
from embeddings.redis_connection import Watch
from embeddings.spend import Billing, Room, SpendLedger, Verdict, Window
from embeddings.spend_redis import COMMANDS, RedisSpendLedger
from tests.connected.relays import CutLine
from tests.embeddings.spending import (
    DAY,
    LIFE,
    LINE,
    NOW,
    REQUESTS,
    a_reservation,
    billables,
    confirm,
    ids,
    lease,
    opened,
    reserve,
    sums,
    tally,
)

pytestmark = pytest.mark.embedded


@pytest.fixture
def server() -> Iterator[Valkey]:
    """One of its own: it is killed, and its keys are listed."""
    with Valkey() as own:
        yield own


@pytest.fixture
def ledger(server: Valkey) -> Iterator[RedisSpendLedger]:
    own = RedisSpendLedger(server.url, timeout_s=30.0)
    opened(own, (LIFE, 100), (DAY, 100))
    yield own
    own.close()


def a_day(ledger: SpendLedger) -> None:
    """Everything that a ledger does."""
    lease(ledger, 60, LIFE, DAY)
    rooms = (Room(LINE, 9),)
    made = [a_reservation(n, 10, LIFE, DAY, person="p", rooms=rooms, expires_ms=NOW + n) for n in range(4)]
    assert reserve(ledger, *made, tallies=[tally(-1, 5, REQUESTS, bid=4)]) == [Verdict.reserved] * 4
    assert ledger.sweep(now_ms=NOW + 1) == 2
    told = confirm(ledger, billables(1, 2), [tally(-1, 1, served=2)], now_ms=NOW)
    assert told == [Billing.late, Billing.billed]
    ledger.folded(ids([1, 2]))
    assert ledger.in_flight(["p"])[0].out == {LINE: 1}
    assert sums(ledger) == (50, 20, 10, 20)
    assert ledger.closed() is None


def test_every_key_has_a_time_to_live_and_one_slot(server: Valkey, ledger: RedisSpendLedger) -> None:
    a_day(ledger)
    reserve(ledger, a_reservation("no budget", 1, Window("c/new")), decided=True)
    confirm(ledger, [one._replace(conversion_id="order 7") for one in billables(3, kind="conversion")])
    with pytest.raises(LedgerClosed):
        confirm(ledger, [], [tally(7, 9)], now_ms=NOW)
    with redis.Redis.from_url(server.url) as client:
        keys = client.keys("*")
        kinds = {key.rpartition(b"}:")[2].decode().partition(":")[2].partition(":")[0] for key in keys}
        assert kinds == {"", *"wdpckv", "leases", "ends", "due", "off", "dirty", "seq"}
        assert {key.partition(b"}")[0] for key in keys} == {b"mq:{spend"}
        assert all(client.ttl(key) > 86_400 for key in keys)


def test_a_batch_of_pages_is_looked_up_in_one_round_trip(server: Valkey) -> None:
    class Counts(Watch):
        exchanges = 0

        def exchanged(self, seconds: float) -> None:
            self.exchanges += 1

    watch = Counts()
    own = RedisSpendLedger(server.url, watch=watch)
    opened(own)
    before = watch.exchanges
    found = own.known(["p"] * 512, ids(range(512 * 20)))
    assert (len(found.decisions), watch.exchanges - before) == (512 * 20, 1)
    with redis.Redis.from_url(server.url) as admin:
        admin.script_flush()
    assert (own.known(["p"], ids(range(9_000))).why, watch.exchanges - before) == ("", 3), "the script came with it"
    own.close()


def test_a_server_that_was_killed_sells_nothing_until_it_was_rebuilt(server: Valkey, ledger: RedisSpendLedger) -> None:
    a_day(ledger)
    published = ledger.totals()
    server.kill()
    with pytest.raises(StoreUnavailable):
        reserve(ledger, a_reservation("while away"))
    server.start()
    assert (ledger.closed(), reserve(ledger, a_reservation("after"))) == ("lost", [Verdict.closed])
    with pytest.raises(LedgerClosed):
        lease(ledger, 10)
    with pytest.raises(LedgerClosed):
        confirm(ledger, billables(3, first=2), [tally(1, 2)], now_ms=NOW)
    ledger.rebuild(published)
    reserve(ledger, *(a_reservation(n, 10, LIFE, DAY) for n in range(4)), decided=True)
    assert confirm(ledger, billables(1, 2), [tally(-1, 1)], now_ms=NOW) == [Billing.known] * 2
    assert list(ledger.reopen().values()) == [2]
    assert confirm(ledger, billables(3, first=2), [tally(1, 2)], now_ms=NOW) == [Billing.billed]
    assert (ledger.reopen(), sums(ledger)) == ({}, (60, 0, 10, 30))


@pytest.mark.parametrize("what", ["lease", "reserve", "confirm", "sweep"])
def test_after_a_lost_reply_the_same_call_is_done_once(server: Valkey, ledger: RedisSpendLedger, what: str) -> None:
    line = CutLine(server.port)
    worker = RedisSpendLedger(line.url, timeout_s=30.0)
    lease(ledger, 60)
    reserve(ledger, a_reservation(1), a_reservation(2, expires_ms=NOW + 1))
    calls: dict[str, Callable[[], object]] = {
        "lease": lambda: lease(worker, 50),
        "reserve": lambda: reserve(worker, a_reservation(3), tallies=[tally(-1, 5, REQUESTS, bid=4)]),
        "confirm": lambda: confirm(worker, billables(1), [tally(-1, 0, served=1)], now_ms=NOW),
        "sweep": lambda: worker.sweep(now_ms=NOW + 1),
    }
    assert worker.closed() is None
    line.cut = b"EVALSHA"
    with pytest.raises(StoreUnavailable):
        calls[what]()
    first = sums(ledger), ledger.totals().counts
    calls[what]()
    assert (sums(ledger), ledger.totals().counts) == first
    assert (
        first[0]
        == {
            "lease": (30, 50, 20, 0),
            "reserve": (40, 30, 30, 0),
            "confirm": (40, 40, 10, 10),
            "sweep": (50, 40, 10, 0),
        }[what]
    )
    worker.close()
    line.close()


def test_a_full_batch_of_people_and_windows_fits_into_one_call(ledger: RedisSpendLedger) -> None:
    lease(ledger, 4_096)
    rooms = (Room(LINE, 1), Room("c", 1))
    made = [a_reservation(n, 0, person=f"p{n}", rooms=rooms) for n in range(4_096)]
    assert reserve(ledger, *made) == [Verdict.reserved] * 4_096
    assert confirm(ledger, billables(*range(4_096)), now_ms=NOW) == [Billing.billed] * 4_096
    ledger.folded(ids(range(4_096)))
    assert ledger.in_flight([f"p{n}" for n in range(4_096)])[17].out == {}


def test_workers_at_once_sell_a_budget_once(server: Valkey, ledger: RedisSpendLedger) -> None:
    sold: list[Verdict] = []

    def work(name: str) -> None:
        mine = RedisSpendLedger(server.url)
        for n in range(60):
            lease(mine, 2, worker=name)
            sold.extend(reserve(mine, a_reservation(f"{name}{n}", 1), worker=name))
            confirm(mine, billables(f"{name}{n}"), now_ms=NOW)
        mine.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sold) == 180
    assert sold.count(Verdict.reserved) == sums(ledger)[3] == 100 - sums(ledger)[1]


@pytest.mark.parametrize("lacking", ["", *COMMANDS])
def test_the_commands_it_lists_are_those_it_needs(server: Valkey, lacking: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        granted = [f"+{name}" for name in COMMANDS if name != lacking]
        client.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">x", "~mq:*", *granted)
    ledger = RedisSpendLedger(server.url.replace("//", "//narrow:x@"))

    def everything() -> None:
        opened(ledger, (LIFE, 100), (DAY, 100))
        a_day(ledger)
        confirm(ledger, billables(3), now_ms=NOW)
        ledger.folded(ids([3]))
        lease(ledger, 0, LIFE, DAY)

    if lacking:
        with pytest.raises(StoreRefused, match="`marquee doctor --acl` lists it"):
            everything()
    else:
        everything()
    ledger.close()
