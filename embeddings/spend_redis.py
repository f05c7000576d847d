"""The spend ledger in Redis: one call of one script, `spend.lua`, for each of its calls.

All keys share one hash tag, `{spend}`: budgets, leases and reservations change together, so a ledger is one shard.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

import msgspec
import xxhash
from redis.exceptions import NoScriptError

from embeddings.errors import AlreadyCounted, LedgerClosed, StoreUnavailable
from embeddings.events import Source
from embeddings.patience import Patience
from embeddings.redis_connection import UNWATCHED, Command, RedisLine, Watch
from embeddings.spend import (
    KINDS,
    MOST_ROWS,
    Answer,
    Billable,
    Billing,
    Budget,
    Confirmed,
    InFlight,
    Known,
    Lease,
    Reservation,
    SpendLedger,
    Spent,
    Tally,
    Totals,
    Verdict,
    Want,
    Window,
)
from embeddings.spend_checks import check, check_budgets, check_kinds, check_reservations
from embeddings.spend_outcomes import CONVERSIONS_MS

DAY_MS = 86_400_000
_KEPT_MS = {"DAYS": 45 * DAY_MS, "LIFE": 400 * DAY_MS, "SLACK": 2 * DAY_MS, "CONVERSIONS": CONVERSIONS_MS}
"""How long Redis keeps windows of a day, all that is not of a day, decisions past their end, ids of conversions."""
_CONSTANTS = [f"local {name} = {ms}\n" for name, ms in _KEPT_MS.items()]
_NAMED = ", ".join(f"'{name}'" for name in KINDS.values())
SCRIPT = "".join([*_CONSTANTS, f"local KINDS = {{{_NAMED}}}\n"]).encode() + (
    files("embeddings").joinpath("spend.lua").read_bytes()
)
COMMANDS = (
    *("evalsha", "script|load", "get", "set", "setrange", "incr", "del", "pexpire"),
    *("hget", "hset", "hmget", "hgetall", "hincrby", "hdel", "zadd", "zrem", "zrangebyscore"),
)
"""What the ledger asks of Redis, also inside its script."""
_SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, int, Any]).decode
_VERDICTS, _BILLINGS = list(Verdict), list(Billing)
_KIND = {kind: place for place, kind in enumerate(KINDS, 1)}
_EXPOSES = 16


class RedisSpendLedger(SpendLedger):
    """`SpendLedger` on Redis or Valkey."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "mq",
        timeout_s: float = 2.0,
        watch: Watch = UNWATCHED,
        patience: Patience | None = None,
    ) -> None:
        """Nothing connects before the first call.

        Args:
            url: where the server is.
            prefix: first part of every key.
            timeout_s: for each read and write.
            watch: hears of exchanges.
            patience: says instead how long each call may take.
        """
        self._line = RedisLine(url, timeout_s=timeout_s, watch=watch, patience=patience)
        self._state = f"{prefix}:{{spend}}:state".encode()
        self._life = secrets.token_hex(6)
        self._heard = "", 0  # the epoch, and how many calls of this client it had counted

    def closed(self) -> str | None:
        """See `SpendLedger.closed`."""
        return self._done("closed") or None

    def set_budgets(self, budgets: Sequence[Budget]) -> None:
        """See `SpendLedger.set_budgets`."""
        check_budgets(budgets)
        self._done("budgets", [(_name(budget.window), str(budget.micros), budget.version) for budget in budgets])

    def lease(self, worker: str, wants: Sequence[Want], *, now_ms: int, until_ms: int) -> list[Lease]:
        """See `SpendLedger.lease`."""
        check(wants, [want.micros for want in wants])
        rows = [(want.key, [_name(window) for window in want.windows], want.micros) for want in wants]
        got = self._done("lease", (worker, until_ms, rows), now_ms=now_ms)
        return [Lease(want.key, int(micros), until_ms) for want, micros in zip(wants, got, strict=True)]

    def known(self, people: Sequence[str], decision_ids: Sequence[str]) -> Known:
        """See `SpendLedger.known`."""
        firsts = range(0, max(len(people), len(decision_ids), 1), MOST_ROWS)
        parts = [(people[at : at + MOST_ROWS], decision_ids[at : at + MOST_ROWS]) for at in firsts]
        replies = self._exchange(*(self._command("known", part, (), 0) for part in parts))
        told = [self._told(reply) for reply in replies]
        why = next((why or "lost" for (found, why), _, _ in told if found is False), "")
        out = [InFlight(dict(levels), version) for (found, _), _, _ in told for version, _, levels in found or ()]
        return Known(None if why else out, [value for _, _, values in told for value in values], why)

    def reserve(
        self,
        worker: str,
        reservations: Sequence[Reservation],
        tallies: Sequence[Tally] = (),
        *,
        now_ms: int,
        decided: bool = False,
    ) -> list[Answer]:
        """See `SpendLedger.reserve`."""
        check_reservations(reservations, tallies)
        sets = _Sets()
        rows = [_row(one, sets) for one in reservations]
        asked = worker, decided, rows, _tallies(tallies), sets.names
        try:
            codes, _, values = self._asked("reserve", asked, [_kept(one, sets) for one in reservations], now_ms)
        except LedgerClosed:
            if decided:
                raise
            return [Answer(Verdict.closed, b"")] * len(rows)
        return [
            Answer(_VERDICTS[code], value if code else one.decision)
            for one, code, value in zip(reservations, codes, values, strict=True)
        ]

    def confirm(self, billables: Sequence[Billable], tallies: Sequence[Tally] = (), *, now_ms: int) -> list[Confirmed]:
        """See `SpendLedger.confirm`."""
        check(billables, (), tallies)
        check_kinds([one.kind for one in billables])
        places = {tally.source: place for place, tally in enumerate(tallies, 1)}
        rows = [
            (one.decision_id, places.get(one.source, 0), one.offset, _KIND[one.kind], _stamp(one), _conversion(one))
            for one in billables
        ]
        codes, _, values = self._asked("confirm", (rows, _tallies(tallies)), (), now_ms)
        return [
            Confirmed(_BILLINGS[code % _EXPOSES], value, code >= _EXPOSES)
            for code, value in zip(codes, values, strict=True)
        ]

    def folded(self, decision_ids: Sequence[str]) -> None:
        """See `SpendLedger.folded`."""
        check(decision_ids)
        self._done("folded", decision_ids)

    def sweep(self, *, now_ms: int, most: int = 1_000) -> int:
        """See `SpendLedger.sweep`."""
        return int(self._done("sweep", (most,), now_ms=now_ms))

    def totals(self, since: Totals | None = None) -> Totals:
        """See `SpendLedger.totals`."""
        known = (since.epoch, since.number) if since else ("", 0)
        (number, windows, counts, offsets), epoch, _ = self._asked("totals", known, (), 0)
        return Totals(
            epoch=epoch,
            number=number,
            windows={_window(name): _spent(*map(int, sums)) for name, sums in windows},
            counts={key: {name: int(count) for name, count in _pairs(flat)} for key, flat in counts},
            offsets={_source(name): int(offset) for name, offset in _pairs(offsets)},
        )

    def covered(self, sources: Sequence[Source]) -> dict[Source, int]:
        """See `SpendLedger.covered`."""
        found = self._done("covered", [_place(source) for source in sources])
        return {source: offset for source, offset in zip(sources, found, strict=True) if offset is not False}

    def rebuild(self, totals: Totals) -> None:
        """See `SpendLedger.rebuild`."""
        windows = [
            (_name(window), str(one.budget), one.version, str(one.spent), str(-one.spent))
            for window, one in totals.windows.items()
        ]
        offsets = {_place(source): offset for source, offset in totals.offsets.items()}
        self._done("rebuild", (secrets.token_hex(6), windows, totals.counts, offsets))

    def reopen(self) -> dict[Source, int]:
        """See `SpendLedger.reopen`."""
        return {_source(name): int(offset) for name, offset in _pairs(self._done("reopen"))}

    def close(self) -> None:
        """See `SpendLedger.close`."""
        self._line.close()

    def _done(self, op: str, asked: object = (), *, now_ms: int = 0) -> Any:
        return self._asked(op, asked, (), now_ms)[0]

    def _asked(self, op: str, asked: object, values: Sequence[bytes], now_ms: int) -> tuple[Any, str, list[bytes]]:
        """What the script answers, the ledger's epoch, and the values beside the answer."""
        return self._told(self._exchange(self._command(op, asked, values, now_ms))[0])

    def _command(self, op: str, asked: object, values: Sequence[bytes], now_ms: int) -> Command:
        """One call of the script, with what this client was told of calls last."""
        return "EVALSHA", _SHA, 1, self._state, op, now_ms, self._life, *self._heard, _encode(asked), *values

    def _exchange(self, *commands: Command) -> list[Any]:
        """The replies to calls of the script, in one round trip; one more where the server has lost the script."""
        try:
            return self._line.exchange(*commands)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
            return self._line.exchange(("SCRIPT", "LOAD", SCRIPT), *commands)[1:]

    def _told(self, reply: Any) -> tuple[Any, str, list[bytes]]:
        """What a reply of the script says: see `_asked`."""
        kind, epoch, calls, answer = _decode(reply[0])
        if calls:
            self._heard = epoch, calls
        if kind == "ok":
            return answer, epoch, reply[1:]
        if kind == "counted":
            raise AlreadyCounted(*answer)
        if kind == "open":
            raise ValueError("the ledger is open: what is rebuilt would lose what is out")
        raise LedgerClosed(f"the spend ledger is closed: {answer}")


class _Sets:
    """Names of windows as reservations of one call have them; most have the same. The first is of none."""

    def __init__(self) -> None:
        self.names: list[list[str]] = [[]]
        self._at: dict[tuple[Window, ...], int] = {(): 0}

    def at(self, windows: tuple[Window, ...]) -> int:
        at = self._at.get(windows)
        if at is None:
            at = self._at[windows] = len(self.names)
            self.names.append([_name(window) for window in windows])
        return at


def _row(one: Reservation, sets: _Sets) -> tuple[object, ...]:
    """What the script judges a reservation by. Places of sets are Lua's; 0 says that nothing is booked."""
    levels, most = zip(*one.rooms, strict=True) if one.rooms else ((), ())
    fields = one.decision_id, one.key, sets.at(one.windows) + 1, one.micros, one.expires_ms, one.kept_ms
    booked = sets.at(one.booked)
    return *fields, one.person, one.version, levels, most, booked + 1 if booked else 0, one.holds if booked else 0


def _kept(one: Reservation, sets: _Sets) -> bytes:
    """What is kept of a reservation behind what becomes of it: see `d:` in the script."""
    names = sets.names
    money = one.micros, one.key, names[sets.at(one.windows)], one.person, [level for level, _ in one.rooms]
    billing = one.kept_ms, _KIND[one.billed_by], one.price, one.last_ms
    booking = names[sets.at(one.booked)], one.holds, _KIND[one.booked_by] if one.booked else 0
    return _encode((*money, *billing, *booking, names[sets.at(one.counted)], one.advertiser)) + one.decision


def _stamp(one: Billable) -> str:
    """Tells the record of an impression from another one's: eight letters; others need none."""
    place = f"{one.source.topic}/{one.source.partition}/{one.offset}"
    return xxhash.xxh32_hexdigest(place.encode()) if one.kind == "impression" else ""


def _conversion(one: Billable) -> str:
    """What a conversion's id is kept as: 32 letters, however long it is; empty of all else."""
    told = one.kind == "conversion" and one.conversion_id
    return xxhash.xxh128_hexdigest(told.encode()) if told else ""


def _tallies(tallies: Sequence[Tally]) -> list[tuple[str, int, int, list[tuple[str, str, int]], bool]]:
    return [
        (_place(one.source), one.above, one.upto, [(*what, count) for what, count in one.counts.items()], one.follows)
        for one in tallies
    ]


def _spent(left: int, budget: int, version: int, spent: int, reserved: int) -> Spent:
    return Spent(budget, version, spent, reserved, budget - left - spent - reserved)


def _name(window: Window) -> str:
    return f"{window.day}{'|#'[window.counts]}{window.key}"


def _window(name: str) -> Window:
    day, unit, key = re.split("([|#])", name, maxsplit=1)
    return Window(key, day, unit == "#")


def _place(source: Source) -> str:
    return f"{source.topic}/{source.partition}"


def _source(place: str) -> Source:
    topic, _, partition = place.rpartition("/")
    return Source(topic, int(partition))


def _pairs(flat: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)
