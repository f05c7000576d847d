"""`marquee top`: what an installation does now, from `/metrics` alone."""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.console import Config, Failed, Json, finish, load, out

if TYPE_CHECKING:
    from streams.commands.overview import Overview


def top(
    urls: Annotated[
        list[str] | None, typer.Argument(help="Processes, as host:port or host; none: the one here.")
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1, max=3600)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, say what happened between, and end.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show events, slates, ads, lag, stages and snapshots of any number of processes, live."""
    from streams.commands.scraping import address

    addresses = list(dict.fromkeys(address(url) for url in urls or [_here(config)]))
    if not (once or as_json) and sys.stdout.isatty():
        asyncio.run(_look_on(addresses, interval))
        return
    from streams.commands.overview_table import table

    seen = asyncio.run(_look_once(addresses, interval))
    if not as_json:
        out.print(table(seen, out.width))
    finish(seen.plain(), as_json)
    if all(process.away for process in seen.processes):
        raise Failed(f"nobody answers at {addresses[0]}: {seen.processes[0].away}")


def _here(config: Config) -> str:
    """Where the process of these settings listens."""
    from deploy.probe import ANYWHERE
    from streams.addresses import url_of

    http = load(config).http
    return url_of(ANYWHERE.get(http.host, http.host), http.port, tls=http.tls_cert is not None)


async def _look_once(addresses: Sequence[str], interval_s: float) -> "Overview":
    import aiohttp

    from streams.commands.scraping import TIMEOUT, between, look

    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        before = await look(session, addresses)
        await asyncio.sleep(interval_s)
        return between(before, await look(session, addresses))


async def _look_on(addresses: Sequence[str], interval_s: float) -> None:
    import aiohttp
    from rich.live import Live

    from streams.commands.overview_table import table
    from streams.commands.scraping import TIMEOUT, between, look

    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        before = await look(session, addresses)
        with Live(table(between({}, before), out.width), console=out, screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(interval_s)
                after = await look(session, addresses)
                live.update(table(between(before, after), out.width), refresh=True)
                before = after
