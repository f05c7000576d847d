"""Who looks at a worker while the cost of that is measured: a collector of spans, and who asks for metrics."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_ASKS = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
"""Prometheus asks so."""


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP and counts them, as a context manager."""

    def __init__(self) -> None:
        """Listens on a free port; nothing is answered before `with`."""
        super().__init__(("127.0.0.1", 0), _Takes)
        self.url, self.spans = f"http://127.0.0.1:{self.server_port}", 0

    def __enter__(self) -> "Collector":
        threading.Thread(target=self.serve_forever, args=(0.05,), name="collector", daemon=True).start()
        return self

    def __exit__(self, *how: object) -> None:
        self.shutdown()
        self.server_close()


class _Takes(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Count spans."""
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.spans += sum(len(scope.spans) for of in sent.resource_spans for scope in of.scope_spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_said: object) -> None:
        """Nothing."""


@contextmanager
def scraped(port: int) -> Iterator[None]:
    """A block in which a worker is asked for its metrics once a second.

    Raises:
        TimeoutError: it never told them.
    """
    over, pages = threading.Event(), list[bytes]()

    def scrape() -> None:
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=_ASKS)
        while not over.wait(1.0 if pages else 0.05):
            with suppress(OSError, HTTPException), urllib.request.urlopen(asked, timeout=5) as page:
                pages.extend([told] if b"marquee_slates_total" in (told := page.read()) else [])

    scraping = threading.Thread(target=scrape, name="scraper", daemon=True)
    scraping.start()
    try:
        yield
    finally:
        over.set()
        scraping.join()
    if not pages:
        raise TimeoutError(f"no scrape of metrics at port {port} was answered: there is no cost to tell")


@contextmanager
def traced(port: int, collector: Collector, wait_s: float = 5.0) -> Iterator[None]:
    """A block in which a worker is scraped, and sends its spans.

    Raises:
        TimeoutError: it never told metrics, or none of its spans came within `wait_s` of the end.
    """
    before = collector.spans
    with scraped(port):
        yield
    end_s = time.monotonic() + wait_s
    while collector.spans == before:
        if time.monotonic() > end_s:
            raise TimeoutError("no span came to the collector: there is no cost to tell")
        time.sleep(0.05)
