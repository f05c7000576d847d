"""How often lanes are sent back: too often is somebody else's doing, or the store's."""

from dataclasses import dataclass, field
from time import monotonic

from streams.transport.failures import Contested

_MOST, _WITHIN_S = 10, 60.0


@dataclass(slots=True)
class Rewinds:
    """The latest times that a lane was sent back, each in a generation of the group."""

    _latest: list[tuple[int, float]] = field(default_factory=list)

    def count(self, topic: str, generation: int) -> None:
        """A lane is sent back.

        Raises:
            Contested: again and again, though the group does not change. The process ends.
        """
        now_s = monotonic()
        lately = [(g, s) for g, s in self._latest if g == generation and now_s - s < _WITHIN_S]
        self._latest = [*lately, (generation, now_s)]
        if len(self._latest) > _MOST:
            raise Contested(
                f"{topic} was sent back {len(self._latest)} times in {_WITHIN_S:g} s though the group did not change:"
                " either another installation claims the same partitions (equal redis.prefix and topics), or the store"
                " keeps losing what was written"
            )
