"""What fifty thousand events must lead to: the log itself, every user's life, and where a run differs from them.

Nothing here but the decoding of stored values comes from the code under test; states are `tests.embeddings.oracle`'s.
"""

import json
import random
from bisect import bisect
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import xxhash

from embeddings.cooccurrence import PairCounts
from embeddings.events import CONSENT_ALL, TAKES, TOUCHES, Action
from embeddings.ids import item_id
from embeddings.store import Profiles
from ranking.weights import part_of
from streams.learning.checkpoints import Checkpoint
from tests.embeddings.oracle import HISTORY, SITTING_S, Event, Person, stored

USERS, ITEMS, LATENESS_S, MAX_BYTES = 600, 300, 3600, 4096
ITEM_ACTIONS = ["play"] * 6 + ["complete", "skip", "like", "dislike", "add", "unlike", "remove", "view", "progress"]


@dataclass
class Sent:
    """A record, what it means, and after publication where it stands. `event` is None where no worker may apply it."""

    user: str
    value: bytes | None
    headers: list[tuple[str, bytes]]
    event: tuple[int, int, int, int] | None = None
    """Second, item id, action code, hash of the identity (0: none)."""
    fate: str = ""
    code: str = ""
    repeats: bool = False
    partition: int = -1
    offset: int = -1


def a_log(events: int, rng: random.Random, now_s: int) -> list[Sent]:
    """Numbered events of Zipf-like users, some of them late, nameless, refused; 10 % repeated, 1 % garbage between."""
    weights = list(accumulate(1 / (rank + 20) for rank in range(USERS)))
    recent: dict[str, deque[Sent]] = defaultdict(lambda: deque(maxlen=7))
    out: list[Sent] = []
    for n in range(events):
        user = f"user-{bisect(weights, rng.random() * weights[-1])}"
        clock_s = now_s - 12 * 86_400 + n * 10 * 86_400 // events
        out.append(an_event(n, user, clock_s, rng))
        if out[-1].event is not None and out[-1].event[3]:
            recent[user].append(out[-1])
        if rng.random() < 0.1 and recent[user]:
            first = rng.choice(recent[user])
            out.append(Sent(user, first.value, first.headers, first.event, repeats=True))
        if rng.random() < 0.01:
            code, value = rng.choice(GARBAGE)
            out.append(Sent(user, value, [("ce_id", b"%d" % n)], fate="dead_lettered", code=code))
    return out


def an_event(n: int, user: str, clock_s: int, rng: random.Random) -> Sent:
    """Event n, up to 50 minutes behind its user's clock; one in fifty is hours behind, where late ones come from."""
    chance = rng.random()
    behind_s = rng.randrange(5_000, 90_000) if chance < 0.02 else rng.randrange(3_000) if chance < 0.3 else 0
    time_ms = (clock_s - behind_s) * 1000 + rng.randrange(1000)
    item = f"item-{int(ITEMS * rng.random() ** 2)}"
    kind = "impression" if chance > 0.97 else rng.choice(ITEM_ACTIONS)
    body: dict[str, Any] = {"user_id": user, "item_id": item, "type": kind, "event_time": time_ms, "value": n}
    if 0.95 < chance <= 0.955:
        return Sent(user, encoded(body | {"type": "levitate"}), [], fate="unknown_type")
    if 0.955 < chance <= 0.96:
        return Sent(user, encoded(body | {"consent": {"gdpr": 1}}), [], fate="unconsented")
    headers, identity = named(n, chance, body) if behind_s < 5_000 else ([], b"")
    dedupe = (xxhash.xxh32_intdigest(identity) or 1) if identity else 0
    return Sent(user, encoded(body), headers, (time_ms // 1000, item_id(item), int(Action[kind]), dedupe))


def named(n: int, chance: float, body: dict[str, Any]) -> tuple[list[tuple[str, bytes]], bytes]:
    """An event's headers and identity: CloudEvents headers mostly, sometimes the `event_id`, sometimes nothing."""
    if 0.90 < chance <= 0.93:
        body["event_id"] = f"e{n}"
        return [], f"e{n}".encode()
    if 0.93 < chance <= 0.95:
        return [], b""
    return [("ce_source", b"/test"), ("ce_id", b"%d" % n)], b"/test\0%d" % n


def encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()


#: So long that no count fades during a test, and when it begins.
HALF_LIFE_S = 10 * 365 * 86_400
SINCE_S = 1_700_000_000
_FINE = {"type": "play", "event_time": 1, "item_id": "item-1"}
GARBAGE: list[tuple[str, bytes | None]] = [
    ("malformed", b"neither JSON nor anything"),
    ("malformed", encoded(_FINE)[:-3]),
    ("malformed", encoded(_FINE | {"event_time": "yesterday"})),
    ("missing_field", encoded({"item_id": "item-1", "type": "play"})),
    ("missing_field", encoded({"event_time": 1, "type": "play"})),
    ("too_deep", b'{"deep":' + b"[" * 40 + b"]" * 40 + b"}"),
    ("null_value", None),
    ("bad_utf8", encoded(_FINE).replace(b"item-1", b"item-\xff")),
    ("too_large", encoded(_FINE | {"padding": "x" * MAX_BYTES})),
    ("nan", encoded(_FINE | {"value": float("nan")})),
]


@dataclass
class Life:
    """All that must be known of one user, and what the learner must have learned from them."""

    person: Person = field(default_factory=Person)
    fates: list[tuple[int, str]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    taken: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    pairs: defaultdict[tuple[int, int], float] = field(default_factory=lambda: defaultdict(float))
    _window: list[Event] = field(default_factory=list)

    def meet(self, sent: Sent) -> None:
        """One more record, in the order of the log."""
        fate = sent.fate
        if sent.event is not None:
            time_s, item, action, dedupe = sent.event
            share = 255 if action == Action.complete else 0
            event, last_s = Event(sent.partition, sent.offset, time_s, item, action, dedupe, share), self.person.last_s
            fate = self.person.meet(event, LATENESS_S)
            if fate == "applied" and action < 16:
                self._apply(event, last_s)
        self.fates.append((sent.partition, fate))

    def _apply(self, event: Event, last_s: int) -> None:
        if TAKES[event.action] and self._counts(event, last_s):
            unit = 2.0 ** ((event.time_s - SINCE_S) / HALF_LIFE_S)
            self.taken[event.item] += unit
            for k, held in enumerate([held.item for held in self._window if TAKES[held.action]], 1):
                if held == event.item:
                    continue
                self.pairs[held, event.item] += unit / k
                self.pairs[event.item, held] += unit * 0.5 / k
        before, self._window = self._window, self.person.all_items()[:HISTORY]
        after = [held.item for held in self._window]
        gone = [held for held in (*(held.item for held in before), event.item) if held not in after]
        if TOUCHES[event.action]:
            self.seen += [held for held in gone if held not in self.seen]

    def _counts(self, event: Event, last_s: int) -> bool:
        """An item is taken once in a sitting; what only goes on with it is no take of its own."""
        held = next((held for held in self._window if held.item == event.item), None)
        if held is None or event.time_s - stored(held.time_s, last_s) >= SITTING_S:
            return True
        return not TAKES[held.action] and event.action not in {Action.progress, Action.complete}

    @property
    def last_applied(self) -> Event:
        return self.person.applied[-1]


def lives_of(log: Sequence[Sent]) -> dict[str, Life]:
    lives: dict[str, Life] = {}
    for sent in sorted(log, key=lambda sent: (sent.partition, sent.offset)):
        lives.setdefault(sent.user, Life()).meet(sent)
    return lives


def state_differences(lives: Mapping[str, Life], user_ids: Sequence[str], profiles: Profiles) -> list[str]:
    """Users whose stored state or seen set is not what it must be."""
    return [user for u, user in enumerate(user_ids) if as_stored(profiles, u) != as_expected(lives.get(user, Life()))]


def as_stored(profiles: Profiles, u: int) -> dict[str, Any]:
    s, seen, count = profiles.states, profiles.seen, int(profiles.states.count_U[u])
    packed = seen.data_N[seen.start_U[u] :][: 5 * seen.count_U[u]].tobytes()
    assert seen.count_U[u] >= 0, "a filter cannot be compared"
    shown = [column[u].tolist() for column in profiles.unanswered]
    columns = (s.item_UH[u], s.action_UH[u], s.time_UH[u], s.share_UH[u])
    return {
        "history": list(zip(*(column[:count].tolist() for column in columns), strict=True)),
        "beyond": any(column[count:].any() for column in columns),
        "last_s": int(s.last_s_U[u]),
        "events": int(s.events_U[u]),
        "marks": list(zip(s.mark_source_U2[u].tolist(), s.mark_offset_U2[u].tolist(), strict=True)),
        "ring": s.ring_UR[u].tolist(),
        "consent": int(s.consent_U[u]),
        "shown": [(item, once_s) for item, once_s in zip(*shown, strict=True) if item],
        "seen": [int.from_bytes(packed[at : at + 5], "little") for at in range(0, len(packed), 5)],
    }


def as_expected(life: Life) -> dict[str, Any]:
    person = life.person
    return {
        "history": person.history(),
        "beyond": False,
        "last_s": person.last_s,
        "events": len(person.applied),
        "marks": [*person.marks, (-1, -1)][:2],
        "ring": person.ring(),
        "consent": CONSENT_ALL if person.applied else 0,
        "shown": list(person.shown().items()),
        "seen": life.seen,
    }


def learner_differences(lives: Mapping[str, Life], checkpoint: Checkpoint) -> list[str]:
    """Items and pairs whose counts are not what they must be.

    A row weighs by its event time; that of a record may stand for it, a day apart at most, 2 in 10,000 of its weight.
    """
    counts = PairCounts.restore(part_of(checkpoint.arrays, "pairs."), logs=checkpoint.steps).state()
    arrays = checkpoint.arrays | {f"pairs.{name}": array for name, array in counts.items()}
    known = json.loads(checkpoint.text)
    ids, (latest_s, origin) = arrays["ids"].tolist(), arrays["pairs.clock"].tolist()
    unit, since = 2.0 ** (latest_s / HALF_LIFE_S - origin), 2.0 ** (SINCE_S / HALF_LIFE_S - origin)
    applied = sum(len(life.person.applied) for life in lives.values())
    taken: defaultdict[int, float] = defaultdict(float)
    pairs: defaultdict[tuple[int, int], float] = defaultdict(float)
    for life in lives.values():
        for item, weight in life.taken.items():
            taken[item] += weight * since / unit
        for pair, weight in life.pairs.items():
            pairs[pair] += weight * since
    wrong = [] if known["rows"] == applied else [f"{known['rows']} rows of {applied}"]
    found = {item: count for item, count in zip(ids, (arrays["pairs.count_N"] / unit).tolist(), strict=False) if count}
    wrong += [f"item {i}: {found.get(i)} of {taken.get(i)}" for i in found.keys() ^ taken.keys()]
    wrong += [f"item {i}: {found[i]} of {n}" for i, n in taken.items() if abs(found.get(i, n) - n) > 0.3]
    learned = dict(learned_pairs(arrays, ids))
    wrong += [f"pair {pair} of nobody" for pair in learned.keys() - pairs.keys()]
    return wrong + [
        f"pair {pair}: {learned.get(pair)} of {weight}"
        for pair, weight in pairs.items()
        if abs(learned.get(pair, 0.0) - weight) > 3e-4 * weight
    ]


def learned_pairs(arrays: Mapping[str, Any], ids: Sequence[int]) -> Iterator[tuple[tuple[int, int], float]]:
    """The pool of `embeddings.pairs`, slot by slot."""
    rows, weights = arrays["pairs.pool_row"].tolist(), arrays["pairs.pool_weight"].tolist()
    for item, (start, size) in enumerate(zip(arrays["pairs.start_N"], arrays["pairs.size_N"], strict=True)):
        for at in range(start, start + size):
            if rows[at] >= 0:
                yield (ids[item], ids[rows[at]]), weights[at]
