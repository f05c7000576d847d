"""What is asked over HTTP, by route: a path may hold a user id, which no label does."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from streams.process.series import Series

HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
OTHER = "other"
"""Probes, `/metrics` and whatever is not there, together."""
TURNED_AWAY = "turned_away"
"""Connections beyond `http.max_connections`, whatever they would have asked."""
ROUTES = "GET /v1/users/{user_id}/slate", "POST /v1/events", "POST /v1/slates", OTHER
_CODES = ("2xx", "4xx", "5xx")


class HttpMetrics:
    """Requests by route and class of their status, and how long they took."""

    def __init__(self, registry: CollectorRegistry, routes: Iterable[str] = ROUTES) -> None:
        """All series are there from the start; what is none of the `routes` is `OTHER`."""
        series, routes = Series(registry), tuple(dict.fromkeys((*routes, OTHER)))
        self.requests = series.counter(
            "http_requests",
            "Requests over HTTP that were answered, by route.",
            "If 5xx rises, /readyz says what is away; of `turned_away`, raise http.max_connections or add workers.",
            route=routes,
            code=_CODES,
        )
        self._turned_away = self.requests.labels(TURNED_AWAY, "5xx")
        self.seconds = series.histogram(
            "http_request_seconds",
            "From the head of a request to its answer.",
            "If it grows, look at marquee_event_loop_lag_seconds, then at Redis.",
            HTTP_SECONDS,
            route=routes,
        )
        self._of = {
            route: (self.seconds.labels(route), {code: self.requests.labels(route, code) for code in _CODES})
            for route in routes
        }

    def observed(self, route: str, code: int, seconds: float) -> None:
        """A request was answered with a status code; redirects, of which there are none, count as 2xx."""
        if route == TURNED_AWAY:
            self._turned_away.inc()
            return
        took, answered = self._of.get(route) or self._of[OTHER]
        took.observe(seconds)
        answered["5xx" if code >= 500 else "4xx" if code >= 400 else "2xx"].inc()
