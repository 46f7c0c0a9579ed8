"""The private attributes of Twisted that netd.fastio relies on. When a test here fails, Twisted has changed underneath.

Read then what Twisted does now at the place named, and mend netd/fastio before anything else: what its own tests say
meanwhile may mislead.
"""

import ast
import inspect
import select
import socket
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import abstract, base, epollreactor, posixbase, tcp
from twisted.internet._newtls import ConnectionMixin, startTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.python import context, log

HINT = "Twisted is not what netd.fastio was written for"


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("dataBuffer", b""),
        ("offset", 0),
        ("bufferSize", 65536),
        ("connected", 0),
        ("disconnected", 0),
        ("disconnecting", 0),
        ("producer", None),
        ("producerPaused", False),
        ("streamingProducer", False),
        ("_writeDisconnecting", False),
        ("_writeDisconnected", False),
        ("_aborting", False),
        ("TLS", False),
        ("_shouldShutdown", True),
    ],
)
def test_a_transport_has_these_attributes_with_these_defaults(name: str, default: object) -> None:
    assert getattr(tcp.Server, name) == default, HINT
    assert getattr(tcp.Client, name) == default, HINT


def assigned(function: Callable[..., Any]) -> set[str]:
    """The attributes of `self` that a method sets."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    targets = [
        target
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {
        target.attr
        for target in targets
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
    }


def test_the_constructors_that_a_fast_server_does_without_set_what_it_knows_of() -> None:
    """FastServer.__init__ sets these itself, or makes them properties."""
    set_by_stock = set().union(
        *(assigned(each) for each in (tcp.Server.__init__, tcp.Connection.__init__, abstract.FileDescriptor.__init__))
    )
    assert set_by_stock == {
        *("reactor", "socket", "fileno", "protocol", "client", "server", "sessionno", "_addressType", "connected"),
        *("_tempDataBuffer", "_tempDataLen", "hostname", "logstr", "repstr"),
    }, HINT


def test_stock_code_buffers_and_flushes_where_fastio_looks() -> None:
    one, other = socket.socketpair()
    with one, other:
        reactor = epollreactor.EPollReactor()
        stock = tcp.Server(one, Protocol(), ("127.0.0.1", 1), None, 0, reactor)  # type: ignore[arg-type]
        stock.repstr = ""
        stock.write(b"hello")
        assert (stock._tempDataBuffer, stock._tempDataLen, stock.dataBuffer) == ([b"hello"], 5, b""), HINT
        assert one.fileno() in reactor._writes, HINT
        assert stock.doWrite() is None, HINT
        assert (stock._tempDataLen, stock.offset, stock.dataBuffer) == (0, 0, b""), HINT
        assert other.recv(10) == b"hello"
        assert one.fileno() not in reactor._writes, HINT
        stock.stopReading()
        for reader in list(reactor._internalReaders):
            reactor.removeReader(reader)
            reader.connectionLost(None)
        reactor._poller.close()


def test_the_epoll_reactor_keeps_its_books_as_fastio_does() -> None:
    reactor = epollreactor.EPollReactor()
    try:
        assert isinstance(reactor._poller, select.epoll), HINT
        assert isinstance(reactor._reads, set), HINT
        assert isinstance(reactor._writes, set), HINT
        assert isinstance(reactor._selectables, dict), HINT
        assert (reactor._POLL_IN, reactor._POLL_OUT) == (select.EPOLLIN, select.EPOLLOUT), HINT
    finally:
        for reader in list(reactor._internalReaders):
            reactor.removeReader(reader)
            reader.connectionLost(None)
        reactor._poller.close()


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (posixbase._PollLikeMixin._doReadOrWrite, ["self", "selectable", "fd", "event"]),
        (base.ReactorBase.runUntilCurrent, ["self"]),
        (epollreactor.EPollReactor.doPoll, ["self", "timeout"]),
        (tcp.Server._fromConnectedSocket, ["fileDescriptor", "addressFamily", "factory", "reactor"]),
        (tcp.Port._fromListeningDescriptor, ["reactor", "fd", "addressFamily", "factory"]),
        (tcp.Port._buildAddr, ["self", "address"]),
        (tcp._getrealname, ["addr"]),
        (tcp.Client._connectDone, ["self"]),
        (tcp.Connector._makeTransport, ["self"]),
        (tcp.Connection._getLogPrefix, ["self", "applicationObject"]),
        (ConnectionMixin.startTLS, ["self", "ctx", "normal"]),
        (startTLS, ["transport", "contextFactory", "normal", "bypass"]),
        (socket.socket._accept, None),  # type: ignore[attr-defined]
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_these_private_functions_are_called_as_fastio_calls_them(
    function: Callable[..., Any], parameters: list[str] | None
) -> None:
    assert callable(function), HINT
    if parameters is not None:
        assert list(inspect.signature(function).parameters) == parameters, HINT


def test_disconnecting_takes_who_why_and_whether_it_was_reading() -> None:
    signature = inspect.signature(posixbase._DisconnectSelectableMixin._disconnectSelectable)
    assert list(signature.parameters)[:4] == ["self", "selectable", "why", "isRead"], HINT


def test_time_to_sleep_is_reckoned_after_timers_have_run() -> None:
    source = inspect.getsource(base.ReactorBase.mainLoop)
    order = [source.index(call) for call in ("self.runUntilCurrent()", "self.timeout()", "self.doIteration(")]
    assert order == sorted(order), HINT


def test_a_log_context_is_a_dictionary_that_is_copied_from_a_stack_of_contexts() -> None:
    stack = context.theContextTracker.currentContext().contexts
    stack.append({log.ILogContext: {"system": "here"}})
    try:
        assert context.get(log.ILogContext) == {"system": "here"}, HINT
    finally:
        stack.pop()
    assert ".copy()" in inspect.getsource(log.LogPublisher.msg), HINT


def test_a_port_makes_its_transports_by_the_class_it_names() -> None:
    port = tcp.Port(0, Factory(), interface="127.0.0.1", reactor=object())
    assert port.transport is tcp.Server, HINT
    assert (port.sessionno, port.addressFamily, port.socketType) == (0, socket.AF_INET, socket.SOCK_STREAM), HINT
    assert port._realPortNumber is None, HINT
