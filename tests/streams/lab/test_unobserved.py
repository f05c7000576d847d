"""What the cost of observing is measured beside: the same answers, and nothing kept of them."""

import asyncio
import threading
import time
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client import MetricsHandler, generate_latest

from deploy.processes import free_port
from embeddings.events import Source
from embeddings.items import ItemFacts
from embeddings.memory import MemoryUserStore
from streams.contract.messages import Outgoing, Part
from streams.lab.bench_observing import compared, with_traces
from streams.lab.observers import Collector, scraped, traced
from streams.lab.unobserved import Unobserved, muted
from streams.process.metrics import WorkerMetrics
from streams.process.tracing import spans_of
from streams.settings import Settings
from streams.tracing_settings import Tracing
from streams.transport.ledger import Unit
from streams.worker import worker
from tests.streams.builders import NOW_MS, Raw, small
from tests.streams.lanes import ITEMS, LOG, Topics


def a_worker() -> worker.Worker:
    made = worker.Worker(small(topics={"partitions": 1}))
    made.serving.catalogue([ItemFacts(name=name, added_s=NOW_MS // 1000) for name in ITEMS], [])
    return made


def published(made: worker.Worker, log: list[Raw]) -> list[Outgoing]:
    """What the events lane of a worker publishes, around a broker and a store in memory."""
    here, topics, lane = Source(made.settings.topics.name("events"), 0), Topics(), made.events
    users = MemoryUserStore(width=made.settings.learner.dimensions)
    users.claim([here])
    recommender: Any = lane.recommender
    recommender.users, recommender.now_ms = users, lambda: NOW_MS
    for of in lane, lane.unstored:
        fakes: Any = of
        fakes.publisher, fakes.letters = topics, topics.letters("events")
    unstored: Any = lane.unstored
    unstored.teller = topics
    asyncio.run(lane(Unit([Part(here, log, log[-1].offset, -1)], len(log), here.topic)))
    return sorted(topics.of(made.settings.topics.name("slates")), key=lambda slate: slate.headers)


def test_a_mute_worker_answers_as_any_and_keeps_nothing() -> None:
    observed = a_worker()
    with muted():
        mute = a_worker()
    assert isinstance(mute, Unobserved)
    slates = published(mute, LOG)
    assert len(slates) == len(LOG)
    assert slates == published(observed, LOG)
    assert generate_latest(mute.metrics.registry) == b""
    assert observed.metrics.registry.get_sample_value("marquee_slates_total", {"trigger": "event"}) == len(LOG)
    assert worker.Worker is not Unobserved, "only within the block"


def test_what_was_never_scraped_or_traced_has_no_cost_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(TimeoutError, match="no scrape"), scraped(free_port()):
        time.sleep(0.1)
    told = MetricsHandler.factory(WorkerMetrics(process=False).registry)
    with ThreadingHTTPServer(("127.0.0.1", 0), told) as pages, Collector() as collector:
        threading.Thread(target=pages.serve_forever, args=(0.05,), daemon=True).start()
        with pytest.raises(TimeoutError, match="no span"), traced(pages.server_port, collector, wait_s=0):
            time.sleep(0.1)
        with traced(pages.server_port, collector):
            spans = spans_of(Settings(tracing=Tracing(endpoint=collector.url)), "worker")
            with spans.batch("events", []):
                time.sleep(0.1)
            spans.close()
        pages.shutdown()
    assert collector.spans == 1


def test_each_round_is_compared_with_the_same_round_of_off() -> None:
    rounds = {"off": [(100.0, 1e6), (50.0, 5e5), (10.0, 1e5)], "on": [(90.0, 8e5), (50.0, 4e5), (9.5, 1e5)]}
    on = compared(rounds, "per_s")["on"]
    assert on["cpu_us_to_off"] == [1.25, 1.0, 1.25]
    assert on["per_s_to_off"] == [0.95, 0.9, 1.0]
    assert (on["cpu_us"], on["per_s"]) == (2.5, 50.0)


def test_every_event_comes_with_a_trace_of_its_own() -> None:
    rows = list(with_traces([(b"ann", b"{}"), (b"bob", b"{}")]))
    assert [row[:2] for row in rows] == [(b"ann", b"{}"), (b"bob", b"{}")]
    assert len({header for row in rows for header in row[2:]}) == 2
