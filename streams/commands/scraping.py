"""Asking processes for their metrics, all at once, and what happened between two times."""

import asyncio
import os
import socket
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from streams.commands.overview import Overview, overview
from streams.commands.readings import Interval, Reading
from streams.http_settings import Http

Found = dict[str, Reading | str]
"""By address: what a process said, or why it did not."""
TIMEOUT = aiohttp.ClientTimeout(total=5)


def address(url: str) -> str:
    """Where a process' metrics are, of what a person writes.

    >>> address("worker-1:6067"), address("https://worker/metrics/"), address("::1"), address("worker-1")
    ('http://worker-1:6067/metrics', 'https://worker/metrics', 'http://[::1]:6066/metrics', 'http://worker-1:6066/metrics')
    """
    whole = (url if "://" in url else _with_port(url)).rstrip("/")
    return whole if whole.endswith("/metrics") else f"{whole}/metrics"


def _with_port(place: str) -> str:
    """A URL of what says no scheme: where it says no port either, ours."""
    if place.count(":") > 1 and "[" not in place:
        place = f"[{place}]"
    parts = urlsplit(f"http://{place}")
    port = "" if parts.netloc.rpartition("]")[2].count(":") else f":{Http().port}"
    return urlunsplit(parts._replace(netloc=parts.netloc + port))


async def look(session: aiohttp.ClientSession, addresses: Sequence[str]) -> Found:
    """What each process says now; all are asked at once."""
    answers = await asyncio.gather(*(_ask(session, address) for address in addresses))
    return dict(zip(addresses, answers, strict=True))


async def _ask(session: aiohttp.ClientSession, address: str) -> Reading | str:
    """Certificates are not verified: they are for public names, and processes are asked one by one."""
    try:
        async with session.get(address, headers={"Accept": "text/plain"}, ssl=False) as answer:
            text = await answer.text()
            return Reading.of(text, time.time()) if answer.status == 200 else f"answers {answer.status}"
    except TimeoutError:
        return "does not answer in time"
    except (aiohttp.ClientError, OSError) as error:
        number = getattr(error, "errno", None) or 0
        if isinstance(getattr(error, "os_error", error), socket.gaierror):
            return "no such host"
        return os.strerror(number) if number > 0 else str(error) or type(error).__name__
    except ValueError:
        return "answers something else than metrics"


def between(before: Mapping[str, Reading | str], after: Found) -> Overview:
    """What happened between two looks; who did not answer at the first has no figures of an interval."""
    found: dict[str, Interval | str] = {}
    for url, now in after.items():
        was = before.get(url)
        found[url] = now if isinstance(now, str) else Interval(was if isinstance(was, Reading) else None, now)
    return overview(found)
