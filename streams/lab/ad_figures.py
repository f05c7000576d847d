"""The ads of a demo in plain words and numbers, for terminal and report alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.contract.ad_records import AdDecision, AdStats
from streams.lab.ad_campaigns import CAP, CAPPED, PACED
from streams.lab.ad_showing import AdRun, PlanPoint

_BARS = "▁▂▃▄▅▆▇█"
_WORDS = {
    "capped": "the person has seen them often enough",
    "paced": "held back, so that their budgets last",
    "budget_exhausted": "their budgets are used up",
    "outbid": "others stood before them or bid more",
    "below_floor": "bid below what the place asks",
    "below_deal_floor": "bid below the price of their deal",
    "lost_to_deal": "a deal came first",
    "invalid": "asked for by a deal that the place does not name",
    "wrong_format": "their ads do not fit the place",
    "size_not_allowed": "their ads do not fit the place",
    "creative_filtered": "their ads do not fit the place",
    "separation_block": "one of their kind stands on the page already",
    "not_near": "others suited the person more",
}


@dataclass(frozen=True, slots=True)
class Won:
    """One win explained: facts, each a name and its value, and who else there was: how many, and why they lost."""

    title: str
    facts: tuple[tuple[str, str], ...]
    losses: tuple[tuple[int, str], ...]


def explained(run: AdRun) -> Won | None:
    """The win that there is most to tell of; None where nothing was won."""
    ad = run.explained
    if ad is None:
        return None
    key = f"{ad.campaign_id}/{ad.line_item_id}"
    lost_to = sorted(ad.lost_to.items(), key=lambda each: -each[1])
    facts = [
        ("where", f"{ad.tagid}, for person {ad.user_id}"),
        ("pays", _mille(ad.price_micros, ad.currency)),
        ("bid", _mille(ad.bid_micros, ad.currency)),
        ("would still have won at", _mille(ad.min_to_win_micros, ad.currency)),
        ("billed", f"{ad.event_micros / 1e6:.4f} {ad.currency} per {ad.billed_by}" if ad.event_micros else ""),
        ("chance of a click", f"{ad.pctr:.2%}" if ad.pctr is not None else ""),
        ("matched", "; ".join(ad.matched) or "anybody, anywhere"),
        ("others lost it to", ", ".join(f"{name} {many}" for name, many in lost_to)),
    ]
    return Won(key, tuple((name, said) for name, said in facts if said), losses(ad))


def losses(ad: AdDecision) -> tuple[tuple[int, str], ...]:
    """How many others lost, and why, in words; most first, and last those whose ads are of another shape."""
    told: dict[str, int] = {}
    for name, many in ad.losses.items():
        words = _WORDS.get(name, name.replace("_", " "))
        told[words] = told.get(words, 0) + many
    return tuple((many, words) for words, many in sorted(told.items(), key=_order))


def capped_words(run: AdRun) -> str:
    """The capped person in a sentence; empty where nobody reached the cap."""
    person = run.most_capped()
    if person is None:
        return ""
    return (
        f"person {person.user} saw {CAPPED} {person.shown} of at most {CAP} times; in the {person.held_back} slots "
        f"asked for after that it was held back, though it bids most"
    )


def paced(run: AdRun) -> AdStats | None:
    """The line item whose budget is shown beside its plan, as it stands; None without figures of it."""
    return run.figures.get(PACED)


def plan_words(run: AdRun) -> str:
    """How the paced budget ended; empty without figures of it."""
    one = paced(run)
    if one is None or one.budget_micros is None or not run.plan:
        return ""
    last = run.plan[-1]
    return (
        f"{PACED}: {last.spent / 1e6:.2f} spent of {last.due / 1e6:.2f} due by then, "
        f"budget {one.budget_micros / 1e6:.2f} {one.currency}"
    )


def bars(points: Sequence[PlanPoint], width: int = 48) -> tuple[str, str]:
    """Money spent and money due, each as a line of bars as high as they are beside the highest of both.

    >>> bars([PlanPoint(0, 0, 10), PlanPoint(1, 40, 40), PlanPoint(2, 80, 80)], 3)
    ('▁▅█', '▂▅█')
    """
    if not points:
        return "", ""
    at_W = np.linspace(points[0].at_s, points[-1].at_s, width)
    time_N = [point.at_s for point in points]
    most = max(max(point.spent for point in points), max(point.due for point in points), 1)
    drawn = []
    for of_N in ([point.spent for point in points], [point.due for point in points]):
        height_W = np.interp(at_W, time_N, of_N) / most * (len(_BARS) - 1)
        drawn.append("".join(_BARS[round(height)] for height in height_W.tolist()))
    return drawn[0], drawn[1]


def _order(told: tuple[str, int]) -> tuple[bool, int]:
    return told[0] == _WORDS["wrong_format"], -told[1]


def _mille(micros: int, currency: str) -> str:
    return f"{micros / 1e3:,.2f} {currency} per thousand"
