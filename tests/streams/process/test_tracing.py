"""Spans of batches and stages: off unless asked for, linked to the traces that events came with, sent by OTLP."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from streams.configuration import SettingsError
from streams.process import tracing
from streams.process.host import STOP_S
from streams.process.tracing import CLOSE_S, UNTRACED, Traced, spans_of
from streams.settings import Settings
from streams.tracing_settings import Tracing
from tests.streams.builders import EVENTS, REQUESTS, Raw, a_request, an_event
from tests.streams.lanes import Worker, a_worker

ON = Settings(tracing=Tracing(endpoint="http://127.0.0.1:9"))


def trace_of(n: int) -> int:
    return 0x4BF92F3577B34DA6A3CE929D0E0E4700 + n


def traced(record: Raw, n: int) -> Raw:
    return record._replace(headers=[("traceparent", f"00-{trace_of(n):032x}-00f067aa0ba902b7-01".encode())])


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def worker(exported: InMemorySpanExporter) -> Worker:
    """A worker whose spans are kept; a batch is linked to three traces at most."""
    worker, provider = a_worker(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    worker.metrics.spans = Traced(provider, links=3)
    worker.service.recommender.stage = worker.metrics.stage
    worker.service.users.claim([EVENTS])
    return worker


async def test_a_batch_is_a_span_with_its_stages_inside_and_links_to_its_events(
    worker: Worker, exported: InMemorySpanExporter
) -> None:
    odd = an_event(1, "bob", "i001")._replace(headers=[("traceparent", b"00-zz-x-01"), ("other", b"x")])
    log = [traced(an_event(0, "ann", "i000"), 0), odd, an_event(2, "eve", "i002")]
    await worker.take([*log, *(traced(an_event(n, "ann", f"i{n:03d}"), n) for n in range(3, 8))])
    spans = {span.name: span for span in exported.get_finished_spans()}
    batch = spans["batch events"]
    assert [link.context.trace_id for link in batch.links] == [trace_of(0), trace_of(3), trace_of(4)]
    assert dict(batch.attributes or {}) == {
        "messaging.batch.message_count": 8,
        "marquee.partitions": ("events/0",),
    }
    inside = {name for name, span in spans.items() if span.parent and span.parent.span_id == batch.context.span_id}
    assert {"decode", "fold", "retrieve", "rank", "compose", "publish", "observe"} <= inside
    assert worker.metric("stage_seconds_count", lane="events", stage="fold") == 1, "stages are timed as before"


async def test_what_is_published_belongs_to_the_trace_of_its_own_input(worker: Worker) -> None:
    await worker.take([traced(an_event(0, "ann", "i000"), 0)])
    await worker.take([traced(a_request(0, "bob"), 5)], REQUESTS)
    echoed = [dict(slate.headers)["traceparent"] for slate in worker.topics.of("marquee.slates.v1")]
    assert [int(said.split(b"-")[1], 16) for said in echoed] == [trace_of(0), trace_of(5)]


async def test_a_stage_that_raises_is_a_span_that_says_so(worker: Worker, exported: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="Redis is away"), worker.metrics.stage("fold"):
        raise ValueError("Redis is away")
    (span,) = exported.get_finished_spans()
    assert not span.status.is_ok
    assert worker.metric("stage_errors_total", lane="events", stage="fold") == 1


def test_a_batch_that_is_left_out_costs_no_links_and_no_stages() -> None:
    spans, untouched = Traced(TracerProvider(sampler=TraceIdRatioBased(0.0)), links=32), [None]
    with spans.batch("events", untouched):  # type: ignore[arg-type]
        assert spans.stage("fold", "events") is None
    assert spans.stage("store", "events") is not None, "what runs outside of batches is left out by chance of its own"


@pytest.mark.slow
def test_where_nothing_is_traced_nothing_of_it_need_be_there() -> None:
    look = (
        "import sys; sys.modules['opentelemetry'] = None;"
        "from streams.process.metrics import WorkerMetrics; from streams.process.tracing import spans_of;"
        "from streams.settings import Settings; assert spans_of(Settings(), 'worker') is WorkerMetrics().spans"
    )
    subprocess.run([sys.executable, "-c", look], check=True, timeout=120)
    assert spans_of(Settings(), "worker") is UNTRACED


def test_what_is_not_installed_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "NEEDED", ("opentelemetry.sdk", "no_such.module"))
    with pytest.raises(SettingsError, match=r"no_such\.module is not there: pip install 'marquee\[otel\]'"):
        spans_of(ON, "worker")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Where spans are sent, and what came there."""
    came: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_said: Any) -> None:
            """Nothing."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", came
        server.shutdown()


async def test_spans_arrive_at_a_collector(collector: tuple[str, list[tuple[str, bytes]]]) -> None:
    endpoint, came = collector
    worker = a_worker()
    worker.service.users.claim([EVENTS])
    worker.metrics.spans = spans_of(Settings(tracing=Tracing(endpoint=f"{endpoint}/")), "worker")
    await worker.take([traced(an_event(0, "ann", "i000"), 0)])
    worker.metrics.spans.close()
    ((path, body),) = came
    sent = ExportTraceServiceRequest.FromString(body)
    (resource,) = sent.resource_spans
    told = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (path, told["service.name"]) == ("/v1/traces", "marquee-worker")
    (batch,) = [s for scope in resource.scope_spans for s in scope.spans if s.name == "batch events"]
    assert [int.from_bytes(link.trace_id) for link in batch.links] == [trace_of(0)]


def test_an_end_does_not_wait_for_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLOSE_S < STOP_S / 4
    monkeypatch.setattr(tracing, "CLOSE_S", 0.1)
    answered = threading.Event()

    class Away(InMemorySpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            answered.wait(60)
            return SpanExportResult.FAILURE

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Away()))
    spans = Traced(provider, links=0)
    with spans.batch("events", []):
        pass
    spans.close()
    assert "spans" in {thread.name for thread in threading.enumerate()}  # it still waits, and nobody waits for it
    answered.set()


def test_a_collector_that_is_away_is_told_once_in_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    spans = spans_of(ON, "worker")
    assert isinstance(spans, Traced)
    (processor,) = spans._provider._active_span_processor._span_processors
    queue = type(processor._batch_processor).__module__
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", queue):
        for nth in range(3):
            logging.getLogger(name).warning("%s failed: %d", name, nth)
        assert caplog.text.count(f"{name} failed") == 1
    spans.close()
