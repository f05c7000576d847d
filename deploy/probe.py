"""Ask a worker or learner on this machine how it is, for a container's health check.

python -m deploy.probe readyz      # exit code 0 when the page answers 200; else 1, and what it said on standard error

It imports nothing of the service, so that it costs little every few seconds. Where the process listens is read as the
process reads it: from `MARQUEE_HTTP__HOST` and `MARQUEE_HTTP__PORT`, else from the file `MARQUEE_CONFIG`.
"""

import http.client
import os
import ssl
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Where to ask a server that listens on every address."""
PAGES = ("livez", "readyz", "startupz")


def address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Host and port that a process with this environment listens on.

    >>> address({"MARQUEE_HTTP__HOST": "0.0.0.0"})
    ('127.0.0.1', 6066)
    """
    file = environ.get("MARQUEE_CONFIG")
    said = tomllib.loads(Path(file).read_text(encoding="utf-8")).get("http", {}) if file else {}
    host = environ.get("MARQUEE_HTTP__HOST") or said.get("host", "127.0.0.1")
    return ANYWHERE.get(host, host), int(environ.get("MARQUEE_HTTP__PORT") or said.get("port", 6066))


def ask(host: str, port: int, page: str, timeout_s: float = 2.0) -> tuple[int, str]:
    """Status and body of a page, over HTTP or, where the server speaks only that, over TLS.

    The certificate is not verified: it is for a public name, and what is asked is a process beside this one.

    Raises:
        OSError, http.client.HTTPException: nobody answers.
    """
    try:
        return _get(http.client.HTTPConnection(host, port, timeout=timeout_s), page)
    except (http.client.BadStatusLine, ConnectionResetError):
        return _get(http.client.HTTPSConnection(host, port, timeout=timeout_s, context=unverified()), page)


def unverified() -> ssl.SSLContext:
    """TLS with whoever answers: no authority is asked, so none is loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _get(connection: http.client.HTTPConnection, page: str) -> tuple[int, str]:
    try:
        connection.request("GET", f"/{page}")
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    """The exit code: 0 well, 1 not, 2 wrong use."""
    if len(arguments) != 1 or arguments[0] not in PAGES:
        sys.stderr.write(f"which page? one of {', '.join(PAGES)}\n")
        return 2
    try:
        status, said = ask(*address(os.environ), arguments[0])
    except (OSError, ValueError, http.client.HTTPException) as error:
        status, said = 0, repr(error)
    if status != 200:
        sys.stderr.write(f"{said}\n")
    return int(status != 200)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
