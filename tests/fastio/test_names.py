"""What a connection is called in the log."""

import socket

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from netd.fastio.reactor import FastReactor
from netd.fastio.transport import FastServer


def test_a_connection_that_has_ended_can_still_be_named() -> None:
    """Another descriptor's event of the same turn asks for the name; it used to raise AttributeError into the log."""
    reactor = FastReactor()
    ours, theirs = socket.socketpair()
    try:
        protocol = Protocol()
        transport = FastServer(ours, protocol, ("192.0.2.1", 4000), None, 7, reactor)
        protocol.makeConnection(transport)
        assert transport.logPrefix() == "Protocol,7,192.0.2.1"
        transport.connectionLost(Failure(ConnectionError()))
        assert transport.logPrefix().endswith(",7,192.0.2.1")
    finally:
        theirs.close()
        ours.close()
        reactor._poller.close()
