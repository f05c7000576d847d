"""What is asked over HTTP, by the template of its path: a path may hold a user id, which no label does."""

from time import perf_counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from streams.process.series import Series

HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
OTHER = "other"
"""Paths that are none of ours, together."""
CODES = ("2xx", "4xx", "5xx")


class HttpMetrics:
    """Requests by route and class of their status, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """No route is known yet."""
        series = Series(registry)
        self.requests = series.counter(
            "http_requests",
            "Requests over HTTP that were answered, by the template of their path.",
            "If 5xx rises, /readyz says what is away.",
            route=(),
            code=(),
        )
        self.seconds = series.histogram(
            "http_request_seconds",
            "From the head of a request to its answer.",
            "If it grows, look at marquee_event_loop_lag_seconds, then at Redis.",
            HTTP_SECONDS,
            route=(),
        )

    def know(self, app: web.Application) -> None:
        """Have the series of all routes there from the start."""
        for route in (*(resource.canonical for resource in app.router.resources()), OTHER):
            self.seconds.labels(route)
            for code in CODES:
                self.requests.labels(route, code)

    @property
    def middleware(self) -> Middleware:
        """What an application is given."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            began_s, status = perf_counter(), 500
            try:
                answer = await handler(request)
                status = answer.status
            except web.HTTPException as error:
                status = error.status
                raise
            finally:
                self._note(request, status, perf_counter() - began_s)
            return answer

        return count

    def _note(self, request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else OTHER
        self.requests.labels(route, f"{status // 100}xx").inc()
        self.seconds.labels(route).observe(seconds)
