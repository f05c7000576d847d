"""Events posted over HTTP: read as the events lane reads them, and acknowledged when their topic has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from embeddings.events import Source
from streams.contract.decode import decode
from streams.contract.messages import Outgoing
from streams.contract.parsing import Rules
from streams.contract.posted import Posted, Receipt, refusals
from streams.process.gathering import Together
from streams.process.threads import Thread
from streams.serving.stages import epoch_ms
from streams.settings import Settings
from streams.worker.outbox import Outbox

_MOST = 256
_Read = tuple[Receipt, list[Outgoing]]


@dataclass(slots=True, kw_only=True)
class PostedEvents:
    """Takes what producers post; of one event loop. What may not be used is counted by who consumes it, as ever."""

    outbox: Outbox
    settings: Settings
    now_ms: Callable[[], int] = epoch_ms
    _rules: Rules = field(init=False)
    _source: Source = field(init=False)
    _thread: Thread = field(init=False, default_factory=lambda: Thread("posted-events"))
    _together: Together[Sequence[Posted], _Read] = field(init=False)

    def __post_init__(self) -> None:
        self._rules = Rules.of(self.settings, {})
        self._source = Source(self.settings.topics.name("events"), 0)
        self._together = Together(answer=self._read_all, most=_MOST)

    async def take(self, records: Sequence[Posted]) -> Receipt:
        """Publish the readable ones, in order; returns when the topic has them.

        Raises:
            BrokersAway, PublishFailed: see `Outbox.send`.
            Crowded: too many wait. Nothing was published.
        """
        receipt, out = await self._together.ask(records)
        await self.outbox.send(out)
        return receipt

    async def _read_all(self, some: Sequence[Sequence[Posted]]) -> Sequence[_Read]:
        return await self._thread.run(self._read, some)

    def _read(self, some: Sequence[Sequence[Posted]]) -> Sequence[_Read]:
        """All bodies at once; a record's offset says for a while where it is among all of them."""
        flat = [record._replace(offset=n) for n, record in enumerate(record for body in some for record in body)]
        decoded = decode([(self._source, flat)], self._rules, self.now_ms())
        batch = decoded.batch
        out = {
            offset: Outgoing(self._source.topic, batch.user_ids[user].encode(), record.value, record.headers)
            for offset, user, record in zip(
                batch.offset_B.tolist(), batch.user_B.tolist(), decoded.records, strict=True
            )
        }
        dead = {letter.offset: letter for letter in decoded.dead}
        read, first = list[_Read](), 0
        for body in some:
            mine = range(first, first := first + len(body))
            refused = [(n - mine.start, dead[n].code.value, dead[n].detail) for n in mine if n in dead]
            good = [out[n] for n in mine if n in out]
            read.append((Receipt(len(good), refusals(refused)), good))
        return read
