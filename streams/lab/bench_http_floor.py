"""The floor of `bench http`: a bare aiohttp handler that reads one key from Redis and answers with it."""

import asyncio
import sys

from aiohttp import web
from redis import asyncio as aioredis

PAGE = "/v1/users/{user_id}/slate"


async def _serve(url: str, key: str, port: int) -> None:
    store = aioredis.from_url(url)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=await store.get(key), content_type="application/json")

    app = web.Application()
    app.router.add_get(PAGE, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
