"""An S3 API for all hosts, behind a proxy that hands bytes on at once, slowly, or not at all.

python -m tests.support.cluster.bucket ADDRESS SERVER_PORT PROXY_PORT MODE_FILE
The file holds "open", "slow" or "silent".
"""

import asyncio
import sys
import threading
from functools import partial
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from tests.support.s3_server import OneAtATime

CHUNK = 65_536
SLOW_SECONDS = 0.3


async def hand_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, mode: Path) -> None:
    while chunk := await source.read(CHUNK):
        while (now := mode.read_text()) == "silent":
            await asyncio.sleep(0.05)
        if now == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        target.write(chunk)
        await target.drain()
    target.close()


async def connect(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: tuple[str, int], mode: Path
) -> None:
    behind, before = await asyncio.open_connection(*server)
    await asyncio.gather(hand_on(reader, before, mode), hand_on(behind, writer, mode), return_exceptions=True)


async def proxy(address: str, server_port: int, port: int, mode: Path) -> None:
    handler = partial(connect, server=(address, server_port), mode=mode)
    async with await asyncio.start_server(handler, address, port) as listening:
        print("ready", flush=True)
        await listening.serve_forever()


def main(address: str, server_port: str, proxy_port: str, mode: str) -> None:
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server(address, int(server_port), app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(proxy(address, int(server_port), int(proxy_port), Path(mode)))


if __name__ == "__main__":
    main(*sys.argv[1:])
