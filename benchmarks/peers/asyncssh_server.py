"""asyncssh's server as its documentation has it: `asyncssh_server.py PORT HOST_KEY AUTHORIZED_KEYS`.

`version` is answered by the server itself, any other command is run and its output redirected.
"""

import asyncio
import platform
import subprocess
import sys
from typing import Any

import asyncssh


async def handle(process: Any) -> None:
    if process.command == "version":
        process.stdout.write(f"asyncssh {asyncssh.__version__}, Python {platform.python_version()}\n".encode())
        process.exit(0)
        return
    pipe = subprocess.PIPE
    child = subprocess.Popen(process.command.split(), stdin=pipe, stdout=pipe, stderr=pipe)
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    await process.stdout.drain()
    process.exit(child.wait())


async def serve(port: int, host_key: str, authorized_keys: str) -> None:
    server = await asyncssh.listen(
        "127.0.0.1", port, server_host_keys=[host_key], authorized_client_keys=authorized_keys,
        process_factory=handle, encoding=None, backlog=4096,
    )  # fmt: skip
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
