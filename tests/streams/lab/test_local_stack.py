import asyncio
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from deploy.processes import Child, StartFailed, free_port
from streams.lab.local_stack import Stack
from streams.process.health import HealthServer


async def test_a_worker_that_was_given_a_certificate_is_asked_over_tls(
    tmp_path: Path, public_certificate: tuple[Path, Path]
) -> None:
    cert, key = map(str, public_certificate)
    port = free_port()
    stack = Stack({"MARQUEE_HTTP__TLS_CERT": cert, "MARQUEE_HTTP__TLS_KEY": key}, folder=tmp_path, http_port=port)
    assert stack.url == f"https://127.0.0.1:{port}"
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    stack.children["worker"] = child = Child(command, tmp_path / "worker.log")
    try:
        async with HealthServer("127.0.0.1", port, CollectorRegistry(), tls=stack.settings.http.tls()):
            await asyncio.to_thread(stack.wait_until_ready, 10)
        async with HealthServer("127.0.0.1", port, CollectorRegistry()):
            with pytest.raises(StartFailed):
                await asyncio.to_thread(stack.wait_until_ready, 0.1)
    finally:
        child.stop()


def test_without_one_it_is_asked_over_http(tmp_path: Path) -> None:
    assert Stack({}, folder=tmp_path, http_port=7000).url == "http://127.0.0.1:7000"
