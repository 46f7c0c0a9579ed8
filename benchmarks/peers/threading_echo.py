"""The standard library's echo: ThreadingTCPServer, a thread for each connection: `threading_echo.py PORT`."""

import sys
from socket import IPPROTO_TCP, TCP_NODELAY
from socketserver import BaseRequestHandler, ThreadingTCPServer

READ = 64 * 1024


class Echo(BaseRequestHandler):
    def handle(self) -> None:
        self.request.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        while data := self.request.recv(READ):
            self.request.sendall(data)


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 4096


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
