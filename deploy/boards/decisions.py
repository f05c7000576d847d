"""How good slates are, and what they are made of."""

from deploy.boards.panels import Board, Mark, Query, Row, lines
from deploy.boards.promql import share

_OF_SLATES = "marquee_slates_total{*}"
_HIT = Row(
    "Do people take what they are offered?",
    (
        lines(
            "Hit rate",
            (
                "Takes of what stood in the person's last slate, of takes by people who had one: among the first "
                "three, the first ten, anywhere."
            ),
            "percentunit",
            *(
                Query(
                    share(f'marquee_takes_total{{*, place=~"{places}"}}', 'marquee_takes_total{*, place!="unknown"}'),
                    legend,
                )
                for places, legend in (
                    ("first_3", "first 3"),
                    ("first_3|first_10", "first 10"),
                    ("first_3|first_10|later", "anywhere"),
                )
            ),
        ),
        lines(
            "Hit rate of the learner's judgement",
            "Takes that stood among the first ten candidates: by the ranker's order, and by retrieval's own.",
            "percentunit",
            Query("max by (order) (marquee_learner_hit_ratio{*})", "{{order}}"),
        ),
        lines(
            "Takes",
            "Takes by where the item stood in the person's last slate. Unknown: this worker published none for them.",
            "cps",
            Query("sum by (place) (rate(marquee_takes_total{*}[*]))", "{{place}}"),
            area=True,
        ),
    ),
)
_LESS = Row(
    "Made of less",
    (
        lines(
            "Degraded slates",
            (
                "Of all slates. Cached or popular: no fresh profile or no snapshot. Contextual: the person did not "
                "agree to more."
            ),
            "percentunit",
            Query(share("marquee_slates_degraded_total{*}", _OF_SLATES, "mode"), "{{mode}}"),
        ),
        lines(
            "Untaught and short slates",
            "Of all slates: those the ranker's order did not serve, and those with fewer items than places.",
            "percentunit",
            Query(share("marquee_slates_untaught_total{*}", _OF_SLATES), "untaught"),
            Query(share("marquee_slates_short_total{*}", _OF_SLATES), "short"),
        ),
        lines(
            "Cold start",
            "Slates for people of whom nothing is known, or whose profile may not be used, of all slates.",
            "percentunit",
            Query(share("marquee_slates_cold_total{*}", _OF_SLATES), "cold"),
        ),
        lines(
            "State of the ranker",
            "How many workers are in each state: serves, or why retrieval's order does.",
            "none",
            Query("sum by (state) (marquee_ranker_state{*} >= 0)", "{{state}}"),
            area=True,
        ),
        lines(
            "Ranker's gain",
            "How much better the ranker's order is than retrieval's, mean of log ranks; it serves above 0.",
            "none",
            Query("max(marquee_learner_ranker_gain{*})", "gain"),
            marks=(Mark(-100, "red"), Mark(0, "green")),
        ),
        lines(
            "Consent refused",
            "Events whose person did not agree to a use. A step: a consent banner or a string changed.",
            "cps",
            Query("sum by (use) (rate(marquee_consent_refused_total{*}[*]))", "{{use}}"),
        ),
    ),
)
_MADE_OF = Row(
    "What is shown",
    (
        lines(
            "Sources",
            "Who proposed what is shown, of all places filled; an item of two sources counts in both.",
            "percentunit",
            Query(
                share("marquee_slate_items_by_source_total{*}", "marquee_slate_items_total{*}", "source"), "{{source}}"
            ),
        ),
        lines(
            "Coverage",
            (
                "Distinct items in slates of the last hour, of those that can be found, per worker. Low: everybody is "
                "shown the same."
            ),
            "percentunit",
            Query(
                "max by (instance) (marquee_items_shown{*}) / (max by (instance) (marquee_index_items{*}) > 0)",
                "{{instance}}",
            ),
        ),
        lines(
            "Explored places",
            "Places that chance filled, of all places.",
            "percentunit",
            Query(share("marquee_slate_items_explored_total{*}", "marquee_slate_items_total{*}"), "explored"),
        ),
    ),
)
_LEARNING = Row(
    "Learning",
    (
        lines(
            "Calibration",
            "Sum of what was predicted over the sum of what came, of impressions; 1 is true.",
            "none",
            Query("max by (objective, surface) (marquee_learner_calibration_ratio{*})", "{{objective}} {{surface}}"),
            marks=(Mark(0, "yellow"), Mark(0.5, "green"), Mark(2, "red")),
        ),
        lines(
            "Loss before learning",
            "Decayed mean of each objective's loss, measured before each batch is learned.",
            "none",
            Query("max by (objective) (marquee_learner_loss{*})", "{{objective}}"),
        ),
        lines(
            "Rows learned",
            "Observations learned, and skipped because they had been learned before a restart.",
            "cps",
            Query("sum(rate(marquee_learner_rows_total{*}[*]))", "learned"),
            Query("sum(rate(marquee_learner_rows_skipped_total{*}[*]))", "skipped"),
        ),
        lines(
            "Impressions",
            "Impressions whose window closed, by what came of them.",
            "cps",
            Query("sum by (outcome) (rate(marquee_learner_impressions_total{*}[*]))", "{{outcome}}"),
            area=True,
        ),
        lines(
            "Dropped before an outcome",
            (
                "Slates, impressions and ads that were not kept until an outcome could be known: a lower "
                "observe.shown tells fewer."
            ),
            "cps",
            Query("sum by (kind) (rate(marquee_learner_dropped_total{*}[*]))", "{{kind}}"),
        ),
        lines(
            "Learner's failures",
            "Snapshots not announced, checkpoints not written, counters not published; each is tried again.",
            "cps",
            Query("sum by (what) (rate(marquee_learner_failures_total{*}[*]))", "{{what}}"),
        ),
    ),
)

BOARD = Board(
    "decisions",
    "Marquee: decisions",
    "Whether people take what they are offered, what slates are made of, and whether learning is true.",
    (_HIT, _LESS, _MADE_OF, _LEARNING),
)
