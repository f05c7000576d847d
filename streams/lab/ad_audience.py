"""Who asks for ads while a log goes by, and what they do with them: people click ads for the genres that they take.

A request is made at the moment of an event, with the log's own clock: caps count days of the log, not of the replay.
"""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from streams.contract.ad_records import AdDecision
from streams.contract.records import Event, encode
from streams.lab.ad_campaigns import BANNER, COUNTRIES, DEAL, LONGEST_S, SHARE, VIDEO
from streams.lab.datasets import Log

_VIEWABLE, _TO_THE_END = 0.7, 0.6
_ANYWAY, _BY_TASTE = 0.005, 0.25
_EXP_S, _DEADLINE_MS = 5, 20_000


class Audience:
    """The people of a log as a publisher knows them: where they are, what they are fans of, what they click.

    Everything about a person is made of the id and of what was taken so far; the rest is drawn from `seed`.
    """

    def __init__(self, log: Log, seed: int = 7) -> None:
        """Nobody has taken anything yet."""
        self._log = log
        self._random = np.random.default_rng(seed)
        self._taken: dict[str, Counter[str]] = defaultdict(Counter)

    def took(self, r: int) -> None:
        """Event r happened."""
        self._taken[self._log.user_R[r]].update(self._log.facts(self._log.item_R[r]).categories)

    def request(self, r: int, *, items: int = 0) -> tuple[bytes, bytes]:
        """Key and value of what is asked at the moment of event r: a banner, a video, and so many items beside them."""
        log = self._log
        user, genres = log.user_R[r], log.facts(log.item_R[r]).categories
        said = {
            "request_id": f"demo-{r}",
            "user_id": user,
            "n": items,
            "event_time": int(log.time_s_R[r]) * 1000,
            "deadline_ms": _DEADLINE_MS,
            "context": {"country": country_of(user)},
            "device": {"devicetype": 1 + _draw(user, "device") % 4},
            "site": {"domain": "films.example", "content": {"genre": ", ".join(genres)}},
            "keyvalues": {"section": list(genres[:1])} if genres else {},
            "user": {"data": [{"name": "the house", "segment": self._segments(user)}]},
            "imp": _slots(),
        }
        return user.encode(), encode(said)

    def reacts(self, ad: AdDecision, genres: tuple[str, ...], r: int) -> list[tuple[str, bytes]]:
        """What becomes of an ad decided at event r: kinds of events and their values; nothing where it was not shown.

        Args:
            ad: what was decided.
            genres: what it is about.
            r: the event.
        """
        if self._random.random() >= SHARE:
            return []
        seen = ["impression"]
        if self._random.random() < _VIEWABLE:
            seen.append("viewable")
        if ad.dur and self._random.random() < _TO_THE_END:
            seen.append("complete")
        if self._random.random() < self.chance(ad.user_id, genres):
            seen.append("click")
        at_ms = int(self._log.time_s_R[r]) * 1000
        return [
            (kind, encode(Event(type=kind, user_id=ad.user_id, decision_id=ad.decision_id, event_time=at_ms)))
            for kind in seen
        ]

    def chance(self, user: str, genres: tuple[str, ...]) -> float:
        """That they click an ad about these genres: the share of them in what they took makes it."""
        taken = self._taken[user]
        share = sum(taken[genre] for genre in genres) / max(sum(taken.values()), 1)
        return _ANYWAY + _BY_TASTE * share

    def _segments(self, user: str) -> list[dict[str, str]]:
        return [{"id": f"fans of {genre}"} for genre, _ in self._taken[user].most_common(2)]


def country_of(user: str) -> str:
    """Where a person is: the same always.

    >>> country_of("7") in COUNTRIES
    True
    """
    return COUNTRIES[_draw(user, "country") % len(COUNTRIES)]


def _draw(user: str, what: str) -> int:
    return xxh3_64_intdigest(f"{what}:{user}".encode())


def _slots() -> list[dict[str, Any]]:
    """The two slots of a page. What is not shown within `exp` seconds is sold to others."""
    banner = {"id": "1", "tagid": BANNER, "exp": _EXP_S, "bidfloor": 0.5, "banner": {"w": 300, "h": 250}}
    deals = {"deals": [{"id": DEAL}]}
    video = {"maxduration": LONGEST_S, "startdelay": 0}
    return [banner, {"id": "2", "tagid": VIDEO, "exp": _EXP_S, "bidfloor": 1.0, "video": video, "pmp": deals}]
