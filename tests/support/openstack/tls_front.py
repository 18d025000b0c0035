"""Stands with TLS in front of services that have none.

    tls_front.py CERT KEY PORT=TARGET ...

Each PORT of 127.0.0.1 speaks TLS with that certificate; what arrives goes to the port TARGET as it is. Prints "ready".
"""

import asyncio
import ssl
import sys


async def carry(reader, writer):
    try:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        # The other direction of this connection sees its end.
        writer.close()


async def main(certificate, key, pairs):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def connection(target):
        async def accepted(reader, writer):
            try:
                upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", target)
            except OSError:
                writer.close()
                return
            await asyncio.gather(carry(reader, upstream_writer), carry(upstream_reader, writer))

        return accepted

    servers = []
    for pair in pairs:
        port, target = map(int, pair.split("="))
        servers.append(await asyncio.start_server(connection(target), "127.0.0.1", port, ssl=context))
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
