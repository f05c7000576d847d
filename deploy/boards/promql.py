"""PromQL with rooms for what is chosen later, so that no query names a job, a cluster or an interval.

`{*}` or `{*, fate="late"}` takes the matchers of a selector, `[*]` the interval of a rate, `by (*)` or `on (*)` the
labels that tell installations apart.

>>> fill('sum by (*, fate) (rate(marquee_events_total{*}[*]))', selector='job="a"', interval="5m")
'sum by (job, cluster, fate) (rate(marquee_events_total{job="a"}[5m]))'
>>> fill('marquee_events_total{*, fate="late"} / marquee_slates_total{*}')
'marquee_events_total{fate="late"} / marquee_slates_total'
"""

import re

SITE = "job, cluster"
"""Labels that tell installations apart; one that a Prometheus does not have is empty there and does no harm."""
ON_BOARDS = 'job=~"$job", cluster=~"$cluster", instance=~"$instance"'
"""The selector on boards: their variables."""
RATE_INTERVAL = "$__rate_interval"
"""What Grafana replaces by four scrapes at least."""
_MATCHERS = re.compile(r"\{\*(?:,\s*)?")
_LABELS = re.compile(r'(\w+)\s*[=!]~?\s*"')
_NAMES = re.compile(r"(?<![\w:])(?:marquee|process|python)_\w+")


def fill(text: str, *, selector: str = "", interval: str = RATE_INTERVAL) -> str:
    """The query with its rooms filled.

    Args:
        text: PromQL with rooms.
        selector: matchers for every series, such as `job="recs", cluster="eu1"`; empty for all there are.
        interval: of rates.
    """

    def matchers(found: re.Match[str]) -> str:
        return "{" + selector + (", " if selector and "," in found[0] else "")

    filled = _MATCHERS.sub(matchers, text).replace("{}", "").replace("[*]", f"[{interval}]")
    return re.sub(r"\b(by|on) \(\*", rf"\1 ({site_of(selector)}", filled)


def site_of(selector: str) -> str:
    """The labels by which installations are told apart, where a selector names others.

    >>> site_of('namespace="media", job=~"recs.*"')
    'job, cluster, namespace'
    """
    named = [label for label in _LABELS.findall(selector) if label != "instance"]
    return ", ".join(dict.fromkeys([*SITE.split(", "), *named]))


def share(part: str, whole: str, by: str = "") -> str:
    """A share of two rates, by a label of the part; 0 where there was nothing at all.

    >>> share("a_total{*}", "b_total{*}")
    'sum(rate(a_total{*}[*])) / (sum(rate(b_total{*}[*])) > 0) or 0 * sum(rate(b_total{*}[*]))'
    """
    total = f"sum(rate({whole}[*]))"
    if not by:
        return f"sum(rate({part}[*])) / ({total} > 0) or 0 * {total}"
    parts = f"sum by ({by}) (rate({part}[*]))"
    return f"{parts} / on () group_left () ({total} > 0) or 0 * {parts}"


def names(text: str) -> set[str]:
    """The series that a query reads."""
    return set(_NAMES.findall(text))
