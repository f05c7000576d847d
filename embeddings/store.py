"""Where user states live: the promise every store keeps, and the values it hands out.

A store belongs to one worker. `claim` makes the worker the owner of input partitions; from then on every `load` and
`flush` is refused once another worker has claimed them. `load`, fold, `keep` is one step: what is kept is valid only
on top of what that load returned, so a batch that fails between them starts again with `load`. The next batch may be
loaded before what was kept is flushed: it sees it, and is flushed with it or after it.

>>> mark = PartitionMark(offset=4, totals=(5, 0, 0, 0, 0, 0, 0, 0, 0, 0))
>>> PartitionMark.from_bytes(mark.to_bytes()) == mark
True
"""

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import Fenced, StoreUnavailable
from embeddings.events import Fate, Source
from embeddings.exposures import Exposures
from embeddings.fatigue import Unanswered
from embeddings.seen import SeenSets, SeenUpdate
from embeddings.state_columns import NO_OFFSET, Tastes, UserStates, source_code
from embeddings.stoprule import WELL, BadRun, StopRule

STATE_TTL_S = 180 * 86_400
#: Marks, fences and the topic list outlive the states that refer to them.
MARK_TTL_S = 2 * STATE_TTL_S


def renewed_every_s(state_ttl_s: int) -> int:
    """Seen sets are stored when they grow, and once in such a while of a user's events; they live so much longer."""
    return max(state_ttl_s // 8, 1)


class StoreRewound(StoreUnavailable):
    """The store is older than this worker's last save: it restarted without its data, or failed over and lost a tail.

    Claim again if the partitions are still assigned, and seek back to the marks that `claim` returns.
    """


@dataclass(frozen=True, slots=True)
class PartitionMark:
    """How far an input partition is in the store, and what became of its records; written with the states.

    Attributes:
        offset: last offset considered; -1 = none.
        totals: records of each `Fate` so far. They add up to the records considered, each counted once.
        run: how many of the last ones became dead letters, and whether the partition is paused for it.
        log: which log the offset is of, an opaque name; empty where that was not known.
    """

    offset: int = NO_OFFSET
    totals: tuple[int, ...] = (0,) * len(Fate)
    run: BadRun = WELL
    log: str = ""

    def to_bytes(self) -> bytes:
        """The mark as JSON."""
        fields = {"offset": self.offset, "totals": self.totals, "log": self.log}
        run = {} if self.run == WELL else {"run": asdict(self.run)}
        return json.dumps(fields | run, separators=(",", ":")).encode()

    def go_on(self) -> "PartitionMark":
        """The mark once an operator says to go on."""
        return replace(self, run=self.run.release())

    @classmethod
    def from_bytes(cls, value: bytes | None) -> "PartitionMark":
        """The mark in a stored value; None is a partition nobody has read. Fates it does not know yet count 0."""
        if value is None:
            return cls()
        fields = json.loads(value)
        totals = [int(total) for total in fields["totals"]]
        run, log = BadRun(**fields["run"]) if "run" in fields else WELL, fields.get("log", "")
        return cls(int(fields["offset"]), (*totals, *[0] * (len(Fate) - len(totals))), run, log)


def advance(
    marks: Mapping[Source, PartitionMark],
    sources: Sequence[Source],
    source_R: NDArray[np.int32],
    offset_R: NDArray[np.int64],
    fate_R: NDArray[np.uint8],
    logs: Mapping[Source, str] | None = None,
) -> dict[Source, PartitionMark]:
    """The marks after R records, in any order; `source_R` indexes `sources`. Records at or below a mark count nothing.

    `logs` names the logs that the offsets are of, where that is known.

    Pass every record of the batch, also those that never became events (misrouted, dead-lettered), or the totals will
    not add up.
    """
    advanced = {}
    for s, source in enumerate(sources):
        mark = marks[source]
        new_R = (source_R == s) & (offset_R > mark.offset)
        counted = np.bincount(fate_R[new_R], minlength=len(Fate)).tolist()
        totals = tuple(total + more for total, more in zip(mark.totals, counted, strict=True))
        log = (logs or {}).get(source) or mark.log
        advanced[source] = PartitionMark(int(offset_R[new_R].max(initial=mark.offset)), totals, mark.run, log)
    return advanced


def judged(
    before: Mapping[Source, PartitionMark],
    after: Mapping[Source, PartitionMark],
    rule: StopRule,
    sources: Collection[Source],
    code: Callable[[Source], str],
) -> dict[Source, PartitionMark]:
    """Marks with the runs of some partitions brought up to date; `code` says why most of one were dead-lettered."""
    out = dict(after)
    for source in sources:
        mark = after[source]
        dead = mark.totals[Fate.dead_lettered] - before[source].totals[Fate.dead_lettered]
        if dead or mark.run != WELL:
            records = sum(mark.totals) - sum(before[source].totals)
            run = rule.after(mark.run, records=records, dead=dead, code=code(source) if dead else "")
            out[source] = replace(mark, run=run)
    return out


class Profiles(NamedTuple):
    """What is stored of U users."""

    states: UserStates
    tastes: Tastes
    unanswered: Unanswered
    exposures: Exposures
    seen: SeenSets


class Loaded(NamedTuple):
    """What a fold starts from: U users' profiles, and S partitions' marks, codes and floors in the order asked for."""

    states: UserStates
    tastes: Tastes
    unanswered: Unanswered
    exposures: Exposures
    seen: SeenSets
    marks: dict[Source, PartitionMark]
    source_code_S: NDArray[np.int32]
    floor_offset_S: NDArray[np.int64]


class SlateUpdate(NamedTuple):
    """The latest slates of N users: index of the user in the batch, opaque bytes, and seconds to keep them."""

    user_N: Sequence[int]
    values: Sequence[bytes]
    ttl_s: int


class UserStore(Protocol):
    """User states, seen sets and latest slates, by user id. Calls may block; each is one round trip unless said.

    `claim`, `release`, `load`, `keep`, `flush` and `discard` are for one thread; the others may be called from any.
    """

    def claim(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """Become the owner of input partitions and learn how far each is; what was kept is dropped. A few round trips.

        Raises:
            StoreUnavailable: nothing is owned that was not before; ask again.
            StoreRefused: from this and every other call that asks the store: it never will. Stop.
            ValueError: more topics or partitions than marks can name; nothing was written. A setting is wrong.
        """

    def verify(self, sources: Sequence[Source]) -> None:
        """See that the store still has what was claimed and saved of partitions, as `load` does.

        Raises:
            Fenced, StoreRewound, StoreUnavailable: see `load`.
        """

    def release(self, sources: Sequence[Source]) -> None:
        """Forget that partitions were claimed here. No round trip; their next owner claims them anyway."""

    def load(self, user_ids: Sequence[str], sources: Sequence[Source]) -> Loaded:
        """The profiles of a batch's users, to fold into.

        Raises:
            Fenced: another worker claimed one of `sources`, or nobody did here. Drop the batch unacknowledged.
            StoreRewound: see there; then the batch comes again by itself.
            StoreUnavailable: retry the whole batch.
            UnreadableState: a newer release wrote a value. Stop.
        """

    def keep(
        self,
        user_ids: Sequence[str],
        states: UserStates,
        *,
        changed_U: NDArray[np.bool_],
        taste_UD: NDArray[np.float32],
        taste_version: int,
        unanswered: Unanswered,
        exposures: Exposures,
        seen: SeenUpdate | None = None,
        slates: SlateUpdate | None = None,
        marks: Mapping[Source, PartitionMark],
    ) -> int:
        """Take down what a batch changed, on top of what the last `load` returned; no round trip.

        Later loads see it; it is stored by `flush`. Returns its number.

        Args:
            user_ids: the users, as loaded.
            states: their states after the batch, and `taste_UD` their taste vectors of snapshot `taste_version`.
            changed_U: whose state to write.
            taste_UD: taste vectors, float32.
            taste_version: their snapshot's number; 0 = none, rebuild at next use.
            unanswered: what they were shown without an answer, all of it; part of the state.
            exposures: which ads they saw, all of it; likewise.
            seen: the seen sets that grew, indexed like `user_ids`.
            slates: the latest slate of those who got one.
            marks: of partitions of that load.

        Raises:
            StoreUnavailable: nothing was loaded, or a claim came between. Retry the whole batch.
        """

    def flush(self, number: int) -> None:
        """Store what was kept up to this number: all of it or nothing.

        Raises:
            Fenced: another worker claimed a partition since, or what was kept was dropped by a claim of this one;
                nothing was written. Drop the batches unacknowledged.
            StoreRewound: see there.
            StoreUnavailable: it may or may not be stored. Call again: it is written once.
        """

    def discard(self) -> None:
        """Forget what was kept and is not stored. No round trip."""

    def read(self, user_ids: Sequence[str]) -> Profiles:
        """The profiles of users, to answer a request; needs no claim, and may be older than a batch under way.

        Raises:
            StoreUnavailable: answer without a profile.
        """

    def marks(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """How far partitions are; needs no claim.

        Raises:
            StoreUnavailable: ask again.
        """

    def go_on(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """Release those of some partitions that are paused; returns their marks as they were. Needs no claim.

        Raises:
            StoreUnavailable: some may be released; ask again.
        """

    def latest_slate(self, user_id: str) -> bytes | None:
        """The slate kept last, None where there is none or it expired.

        Raises:
            StoreUnavailable: there is no answer now.
        """

    def read_slates(self, user_ids: Sequence[str]) -> tuple[list[bytes | None], Profiles]:
        """The slates kept last, as `latest_slate` says, and the profiles of their users, in one round trip.

        Raises:
            StoreUnavailable: there is no answer now.
        """

    def ping(self) -> None:
        """Write something that means nothing, and read it: a store that can only do one of them cannot do its work.

        Raises:
            StoreUnavailable: nothing can be written now.
        """

    def forget(self, user_id: str) -> int:
        """Remove everything held under a user's id; returns how many values that were.

        A batch between `load` and `keep` would write the user back: call it from the thread that keeps, or again
        after that batch, and refuse the user's events from then on.

        Raises:
            StoreUnavailable: repeat it.
        """

    def close(self) -> None:
        """Give back connections. The store stays usable; the next call connects again."""


def next_token(held: bytes | None) -> bytes:
    """A fence token above the one found: a number that rises with each claim, and a part nobody else draws."""
    return f"{_rank(held) + 1}-{secrets.token_hex(6)}".encode()


def check_fence(source: Source, mine: bytes | None, found: bytes | None) -> None:
    """Is the partition still this worker's?

    Raises:
        Fenced: a later claim is there, or there is none here. The batch is dropped unacknowledged.
        StoreRewound: the claim is gone or older than ours, so the store is.
    """
    if mine is None:
        raise Fenced(f"{source.topic}/{source.partition} is not claimed here")
    if found == mine:
        return
    if _rank(found) < _rank(mine):
        raise StoreRewound(f"the claim on {source.topic}/{source.partition} is gone from the store")
    raise Fenced(f"{source.topic}/{source.partition} was claimed by another worker")


def check_mark(source: Source, saved: int, found: PartitionMark) -> None:
    """Is the partition's mark where this worker left it?

    Raises:
        StoreRewound: it is behind.
    """
    if found.offset < saved:
        raise StoreRewound(f"{source.topic}/{source.partition} is at {found.offset} in the store, saved was {saved}")


def known_topics(value: bytes | None, sources: Sequence[Source]) -> list[str]:
    """The store's list of topics, its order for life, with those of `sources` appended where they are new."""
    topics: list[str] = json.loads(value) if value else []
    for source in sources:
        if source.topic not in topics:
            topics.append(source.topic)
    return topics


def topics_anew(value: bytes | None, topic: str) -> list[str]:
    """The store's list of topics with a new number for one of them: users' marks of its old log mean nothing now.

    >>> topics_anew(b'["a", "b"]', "a")
    ['', 'b', 'a']

    Raises:
        ValueError: there are no numbers left.
    """
    topics: list[str] = json.loads(value) if value else []
    if topic in topics:
        topics[topics.index(topic)] = ""
    source_code([*topics, topic], Source(topic, 0))
    return [*topics, topic]


def loaded(
    profiles: Profiles, sources: Sequence[Source], marks: dict[Source, PartitionMark], topics: Sequence[str]
) -> Loaded:
    """Profiles and marks as one value, with the partitions' codes and floors as arrays."""
    codes = [source_code(topics, source) for source in sources]
    floors = [marks[source].offset for source in sources]
    return Loaded(*profiles, marks, np.array(codes, np.int32), np.array(floors, np.int64))


def _rank(token: bytes | None) -> int:
    return int(token.split(b"-")[0]) if token else 0
