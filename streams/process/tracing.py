"""Spans of batches and stages for OpenTelemetry, where `tracing.endpoint` names who collects them; else nothing.

A batch is a span of a trace of its own, linked to the traces that its records came with (`traceparent`), at most so
many. Its stages are spans inside it. What a slate or an ad echoes is its own event's `traceparent`, not the batch's.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from threading import Thread
from typing import Any

from streams.configuration import SettingsError
from streams.contract.cloudevents import trace_context
from streams.contract.messages import Part
from streams.installed import SPANS as NEEDED
from streams.installed import lacking
from streams.settings import Settings

CLOSE_S = 3.0
"""How long an end waits for who collects them."""
COMPLAINS_S = 600.0
"""That who collects them is away is said so often at most; the exporter says it with every try, and the queue before
it every 20 s while it is full."""
_QUEUE = "opentelemetry.sdk._shared_internal"
"""Who says the latter."""


class Spans:
    """Makes none. Every place that could be traced asks it; `Traced` makes them."""

    def batch(self, lane: str, parts: Sequence[Part]) -> AbstractContextManager[object]:
        """A block in which a batch of a lane is worked on."""
        return _NOTHING

    def stage(self, stage: str, lane: str) -> AbstractContextManager[object] | None:
        """A block in which a stage runs; None where nothing is traced."""
        return None

    def close(self) -> None:
        """Send what was not sent yet."""


_NOTHING = nullcontext()
UNTRACED = Spans()


class Traced(Spans):
    """Makes spans, which a thread of their own sends in batches."""

    def __init__(self, provider: Any, links: int) -> None:
        """`provider` is a tracer provider of OpenTelemetry's; `links` bounds those of a batch."""
        from opentelemetry.trace import get_current_span

        self._provider, self._links, self._current = provider, links, get_current_span
        self._tracer = provider.get_tracer("marquee")

    @contextmanager
    def batch(self, lane: str, parts: Sequence[Part]) -> Iterator[None]:
        """See `Spans.batch`. What `tracing.share` leaves out is asked for no links."""
        with self._tracer.start_as_current_span(f"batch {lane}") as span:
            if span.is_recording():
                span.set_attribute("messaging.batch.message_count", sum(len(part.records) for part in parts))
                span.set_attribute("marquee.partitions", [f"{p.source.topic}/{p.source.partition}" for p in parts])
                for context in islice(_contexts(parts), self._links):
                    span.add_link(context)
            yield

    def stage(self, stage: str, lane: str) -> AbstractContextManager[object] | None:
        """See `Spans.stage`; none in a batch that is left out."""
        here = self._current()
        if here.get_span_context().is_valid and not here.is_recording():
            return None
        span: AbstractContextManager[object] = self._tracer.start_as_current_span(
            stage, attributes={"marquee.lane": lane}
        )
        return span

    def close(self) -> None:
        """See `Spans.close`; what is not taken within `CLOSE_S` is lost: OpenTelemetry's own end waits for 30 s."""
        closing = Thread(target=self._provider.shutdown, name="spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class Seldom(logging.Filter):
    """Lets one line of a logger pass in `COMPLAINS_S`."""

    _last_s = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if passes := record.created - self._last_s >= COMPLAINS_S:
            self._last_s = record.created
        return passes


def spans_of(settings: Settings, role: str) -> Spans:
    """As the settings say; nothing of OpenTelemetry is imported here where nothing is traced.

    Raises:
        SettingsError: `tracing.endpoint` is set and the extra is not installed. The process does not start.
    """
    tracing = settings.tracing
    if not tracing.endpoint:
        return UNTRACED
    if missing := lacking(NEEDED):
        raise SettingsError(
            f"tracing.endpoint is set, and {', '.join(missing)} is not there: pip install 'marquee[otel]', or unset it"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    provider = TracerProvider(
        sampler=TraceIdRatioBased(tracing.share),
        resource=Resource.create({"service.name": f"marquee-{role}"}),
        shutdown_on_exit=False,
    )
    for name in (OTLPSpanExporter.__module__, _QUEUE):
        logging.getLogger(name).addFilter(Seldom())
    exporter = OTLPSpanExporter(endpoint=f"{tracing.endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traced(provider, tracing.links)


def _contexts(parts: Sequence[Part]) -> Iterator[Any]:
    """What each `traceparent` that can be read names."""
    from opentelemetry.trace import SpanContext, TraceFlags

    for part in parts:
        for record in part.records:
            if (found := trace_context(record.headers)) is not None:
                flags = TraceFlags(found.sampled)
                yield SpanContext(int(found.trace_id, 16), int(found.span_id, 16), is_remote=True, trace_flags=flags)


@contextmanager
def both(timed: AbstractContextManager[object], span: AbstractContextManager[object]) -> Iterator[None]:
    """A block that is timed and traced."""
    with timed, span:
        yield
