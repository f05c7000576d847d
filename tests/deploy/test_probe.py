import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from deploy.probe import address, ask, main
from streams.process.health import HealthServer


@pytest.fixture
async def server() -> AsyncIterator[HealthServer]:
    checks = {"store": lambda: "Redis does not answer"}
    async with HealthServer(host="127.0.0.1", port=0, registry=CollectorRegistry(), ready=checks) as server:
        yield server


async def probed(server: HealthServer, *pages: str) -> tuple[int | None, str]:
    import asyncio

    environ = {**os.environ, "MARQUEE_HTTP__PORT": str(server.port), "MARQUEE_HTTP__HOST": "0.0.0.0"}
    probe = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.probe", *pages, env=environ, stderr=subprocess.PIPE
    )
    _, said = await probe.communicate()
    return probe.returncode, said.decode()


async def test_who_is_well_is_0_and_who_is_not_says_why(server: HealthServer) -> None:
    assert await probed(server, "livez") == (0, "")
    code, said = await probed(server, "readyz")
    assert code == 1
    assert "Redis does not answer" in said


async def test_who_is_away_is_not_well(server: HealthServer) -> None:
    await server.stop()
    code, said = await probed(server, "livez")
    assert code == 1
    assert "refused" in said


def test_the_wrong_page_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == main([]) == 2
    assert "livez, readyz, startupz" in capsys.readouterr().err


def test_where_to_ask_is_read_as_a_process_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "marquee.toml"
    file.write_text('[http]\nhost = "::"\nport = 7000\n')
    assert address({}) == ("127.0.0.1", 6066)
    assert address({"MARQUEE_CONFIG": str(file)}) == ("::1", 7000)
    assert address({"MARQUEE_CONFIG": str(file), "MARQUEE_HTTP__HOST": "10.0.0.7", "MARQUEE_HTTP__PORT": "1"}) == (
        "10.0.0.7",
        1,
    )


@pytest.mark.parametrize("page", ["livez"])
def test_a_server_that_only_speaks_tls_is_asked_so(tmp_path: Path, page: str) -> None:
    import http.server
    import ssl
    import threading

    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=public.test"]
    subprocess.run([*made, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert ask("127.0.0.1", server.server_port, page)[0] == 200
        server.shutdown()
