"""What is promised over thirty days, and how fast a budget of failures burns.

The windows and factors are those of Google's SRE workbook, chapter 5 ("Alerting on SLOs", 2018): a page where 2 % of
the budget goes in an hour or 5 % in six, a ticket where 10 % goes in a day or in three. A short window beside each long
one ends the alert soon after the trouble. Where little is asked for a share says little: one slow slate of an idle
night is a budget gone. So there must have been `FEWEST` bad ones too (ibid., "Low-traffic services").
"""

from typing import NamedTuple

DAYS = 30
FEWEST = 10
"""Bad slates in the long window, below which nobody is told."""


class Objective(NamedTuple):
    """A share of slates that is promised to be good.

    Attributes:
        name: in names of rules.
        promise: the share.
        bad: PromQL of the rate of bad ones, with `{*}` for the selector, `by (*)`, and `[*]` for the window.
        all: PromQL of the rate of all.
        says: what is promised, in words.
        since: PromQL of what is above 0 since it has been promised, `[*]` for how long ago that is asked of; empty for
            ever.
    """

    name: str
    promise: float
    bad: str
    all: str
    says: str
    since: str = ""

    @property
    def budget(self) -> float:
        """The share that may be bad."""
        return round(1 - self.promise, 9)

    def record(self, window: str) -> str:
        """The name of the rule that records the share of bad ones over a window."""
        return f"job:marquee_{self.name}_bad:ratio_rate{window}"

    def recorded(self, window: str) -> str:
        """PromQL of what that rule recorded."""
        return f"{self.record(window)}{{*}}"

    def bad_per_second(self, window: str) -> str:
        """PromQL of the rate of bad ones over a window."""
        return self.bad.replace("SUM", "sum by (*) ").replace("[*]", f"[{window}]")

    def share(self, over: str = "by (*) ") -> str:
        """PromQL of the share of bad ones; 0 where there was nothing at all."""
        bad, every = self.bad.replace("SUM", f"sum {over}"), self.all.replace("SUM", f"sum {over}")
        return f"{bad} / ({every} > 0) or 0 * {every}"


AVAILABILITY = Objective(
    name="availability",
    promise=0.999,
    bad='SUM(rate(marquee_slates_degraded_total{*, mode=~"cached|popular"}[*]))',
    all="SUM(rate(marquee_slates_total{*}[*]))",
    says="99.9 % of slates are made of the person's fresh profile and a snapshot, not of what is cached or popular",
    since=(
        "max by (*) (max_over_time(marquee_snapshot_version{*}[1d] offset [*]))"
        " or 0 * group by (*) (marquee_build_info{*})"
    ),
)
LATENCY = Objective(
    name="latency",
    promise=0.99,
    bad=(
        "(SUM(rate(marquee_event_to_slate_seconds_count{*}[*]))"
        ' - SUM(rate(marquee_event_to_slate_seconds_bucket{*, le="0.2"}[*])))'
    ),
    all="SUM(rate(marquee_event_to_slate_seconds_count{*}[*]))",
    says="99 % of slates are acknowledged within 200 ms of the event or request",
)
OBJECTIVES = (AVAILABILITY, LATENCY)


_SECONDS = {"h": 3_600, "d": 86_400}


class Burn(NamedTuple):
    """So many times faster than the budget allows, over a long window and a short one."""

    factor: float
    long: str
    short: str
    severity: str

    @property
    def fewest_per_second(self) -> float:
        """The rate of bad ones over the long window below which nobody is told."""
        return FEWEST / (int(self.long[:-1]) * _SECONDS[self.long[-1]])


PAGE_FAST = Burn(14.4, "1h", "5m", "page")
PAGE_SLOW = Burn(6, "6h", "30m", "page")
TICKET_FAST = Burn(3, "1d", "2h", "ticket")
TICKET_SLOW = Burn(1, "3d", "6h", "ticket")
BURNS = (PAGE_FAST, PAGE_SLOW, TICKET_FAST, TICKET_SLOW)
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""All that a burn looks at."""
