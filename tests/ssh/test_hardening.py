"""What conch leaves open, each with the same done to stock conch beside it: the proof that the test can fail."""

import os
import random
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole_ssh import TerminalSession
from twisted.conch.recvline import RecvLine
from twisted.conch.ssh.channel import SSHChannel
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.process import ProcessReader
from twisted.logger import LogEvent
from zope.interface import implementer

from netd.ssh.process import PipeReader
from netd.ssh.wire import Malformed, Reader, string, uint32
from tests.fakes import MemoryNetwork
from tests.ssh.raw import RawClient, stock_client
from tests.ssh.service import Served

Serve = Callable[..., Served]


@pytest.fixture
def stock() -> RawClient:
    return stock_client(MemoryNetwork())


def signature_algorithms(client: RawClient) -> list[bytes]:
    (payload,) = [payload for number, payload in client.heard if number == 7]
    reader = Reader(payload)
    assert (reader.uint32(), reader.string()) == (1, b"server-sig-algs")
    return reader.names()


def test_1_clients_are_told_that_they_may_sign_with_rsa(serve: Serve, stock: RawClient) -> None:
    assert {b"rsa-sha2-512", b"rsa-sha2-256"} <= set(signature_algorithms(serve().connect().handshake()))
    assert signature_algorithms(stock.handshake()) == [b"ssh-ed25519"]


def test_1_they_are_told_before_they_have_to_decide(serve: Serve, stock: RawClient) -> None:
    for client, told in ((serve().connect(), [20, 31, 21, 7]), (stock, [20, 31, 21])):
        client.hello()
        ours = client.kexinit()
        client.say(20, ours)
        client.raw_half(ours)
        assert client.numbers == told


def test_2_the_end_is_said_after_all_data(serve: Serve, stock: RawClient) -> None:
    client = serve().log_in()
    number = client.open(window=10)
    client.request(number, b"exec", string(b"whoami"))
    assert client.numbers[-2:] == [99, 94]
    client.say(93, uint32(number) + uint32(1000))
    assert client.numbers[-4:] == [94, 96, 98, 97]
    channel = stock_channel(stock, window=10)
    channel.write(b"x" * 100)
    channel.conn.sendEOF(channel)
    assert [number for number, _ in stock.take()] == [94, 96]
    assert channel.buf


def stock_channel(stock: RawClient, *, window: int = 1 << 20, largest: int = 32768) -> Any:
    stock.handshake().log_in()
    stock.open(window=window, largest=largest)
    protocol: Any = stock.wire.protocol
    channel: SSHChannel = protocol.service.channels[0]
    return channel


def test_3_what_runs_is_paused_while_the_window_is_closed(serve: Serve, stock: RawClient) -> None:
    """conch's channel appends to a string without a limit, and pauses nothing."""
    stuck = stock_channel(stock, window=10)
    for _ in range(100):
        stuck.write(b"x" * 65536)
    assert len(stuck.buf) == 100 * 65536 - 10
    served = serve()
    client = served.log_in()
    number = client.open(window=10)
    channel = served.channel(client)
    program = Recorder()
    channel.program = program
    channel.write(b"x" * 65536)
    assert program.calls == ["pause"]
    client.say(93, uint32(number) + uint32(65536))
    assert program.calls == ["pause", "resume"]


def test_3_what_runs_is_paused_while_tcp_is_full_and_while_keys_are_exchanged(serve: Serve) -> None:
    served = serve()
    client = served.log_in()
    client.open()
    channel = served.channel(client)
    program = Recorder()
    channel.program = program
    connection: Any = client.wire.protocol
    connection.pauseProducing()
    channel.write(b"x")
    assert program.calls == ["pause"]
    connection.resumeProducing()
    assert program.calls == ["pause", "resume"]
    connection.sendKexInit()
    channel.write(b"y")
    assert program.calls == ["pause", "resume", "pause"]


class Recorder:
    """A program that notes what it is told."""

    doing = "test"
    busy = True

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def hang_up(self) -> None:
        self.calls.append("hang_up")

    def begin(self) -> None: ...
    def receive(self, data: bytes) -> int:
        self.calls.append(f"{len(data)} bytes")
        return 0

    def end_of_input(self) -> None: ...
    def resize(self, width: int, height: int) -> None: ...
    def signal(self, name: str) -> bool:
        return False

    def dismiss(self, text: str) -> bool:
        return False


@pytest.mark.parametrize("largest", [0, 1, 255])
def test_4_a_maximum_packet_too_small_to_be_meant_is_refused(serve: Serve, stock: RawClient, largest: int) -> None:
    """With 0, the first byte of standard error sends stock conch into an endless loop."""
    opening = string(b"session") + uint32(0) + uint32(1000) + uint32(largest)
    ((number, _),) = serve().log_in().say(90, opening)
    assert number == 92
    assert stock_channel(stock, largest=largest).remoteMaxPacket == largest


def test_5_guesses_that_arrive_at_once_are_counted_like_others(serve: Serve) -> None:
    client = serve("limits = { packets = 0 }").connect().handshake()
    wrong = client.wrong_request()
    guesses = b"".join(client.packet(50, wrong) for _ in range(400)) + client.packet(50, client.key_request())
    client.raw(guesses)
    assert client.numbers.count(51) <= 6
    assert 52 not in client.numbers
    assert client.gone
    assert client.farewell == b"too many attempts"


def password(text: bytes) -> bytes:
    return string(b"ops") + string(b"ssh-connection") + string(b"password") + b"\0" + string(text)


def test_5_stock_conch_lets_in_who_guesses_right_the_four_hundredth_time() -> None:
    @implementer(ICredentialsChecker)
    class Slow:
        credentialInterfaces = (IUsernamePassword,)

        def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
            asked.append((Deferred(), credentials))
            return asked[-1][0]

    asked: list[tuple[Deferred[bytes | tuple[()]], Any]] = []
    stock = stock_client(MemoryNetwork(), Slow()).handshake()
    for guess in [b"wrong"] * 400 + [b"right"]:
        stock.say(50, password(guess))
    for answer, credentials in asked:
        if credentials.checkPassword(b"right"):
            answer.callback(b"ops")
        else:
            answer.errback(UnauthorizedLogin())
    stock.take()
    assert stock.numbers[-1] == 52


def test_5_only_a_few_requests_wait_while_one_is_decided(serve: Serve) -> None:
    served = serve("password_auth = true")
    client = served.connect().handshake()
    waiting: list[Any] = []
    server: Any = client.wire.protocol.server  # type: ignore[attr-defined]

    def run_in_thread(*_: object) -> Any:
        waiting.append(Deferred())
        return waiting[-1]

    server.run_in_thread = run_in_thread
    for _ in range(400):
        client.say(50, password(b"guess"))
    assert len(waiting) == 1
    assert client.gone


def test_6_a_second_service_request_does_not_begin_the_count_anew(serve: Serve, stock: RawClient) -> None:
    client = serve().connect().handshake()
    client.say(5, string(b"ssh-userauth"))
    assert client.gone
    assert [number for number, _ in stock.handshake().say(5, string(b"ssh-userauth"))] == [6]


NONE = string(b"ops") + string(b"ssh-connection") + string(b"none")


def test_7_asking_for_nothing_is_counted_but_the_first_time(serve: Serve, stock: RawClient) -> None:
    client = serve().connect().handshake()
    for _ in range(7):
        assert not client.gone
        client.say(50, NONE)
    assert client.gone
    stock.handshake()
    for _ in range(100):
        stock.say(50, NONE)
    assert not stock.gone


def test_8_a_key_is_fine_only_for_whom_it_is(serve: Serve, stock: RawClient) -> None:
    client = serve().connect().handshake()
    assert [n for n, _ in client.say(50, client.key_request(signed=False))] == [60]
    assert [
        n for n, _ in client.say(50, client.key_request(signed=False, blob=string(b"ssh-ed25519") + string(bytes(32))))
    ] == [51]
    assert [n for n, _ in stock.handshake().say(50, stock.key_request(b"nobody", signed=False))] == [60]


def test_8_questions_about_keys_are_counted(serve: Serve) -> None:
    client = serve().connect().handshake()
    for _ in range(21):
        assert not client.gone
        client.say(50, client.key_request(signed=False))
    assert client.gone


def test_9_nothing_is_compressed(serve: Serve, stock: RawClient) -> None:
    client = serve().connect().hello()
    client.say(20, client.kexinit(compression=b"zlib"))
    assert client.farewell == b"no common compression"
    stock.hello()
    stock.say(20, stock.kexinit(compression=b"zlib"))
    assert not stock.gone


def test_10_who_does_not_log_in_in_time_is_gone(serve: Serve) -> None:
    served = serve()
    silent, slow = served.connect(), served.connect().handshake()
    for _ in range(21):
        served.network.advance(1)
    assert silent.gone
    assert slow.gone
    network = MemoryNetwork()
    stock = stock_client(network)
    for _ in range(3600):
        network.advance(1)
    assert not stock.gone


def test_11_input_that_nobody_reads_does_not_open_the_window(serve: Serve, stock: RawClient) -> None:
    served = serve()
    client = served.log_in()
    number = client.open()
    program = Recorder()
    served.channel(client).program = program
    for _ in range(4):
        client.say(94, uint32(number) + string(b"x" * 32768))
    assert 93 not in client.numbers
    served.channel(client).consumed(131072)
    client.take()
    assert 93 in client.numbers
    stock_channel(stock)
    for _ in range(4):
        stock.say(94, uint32(0) + string(b"x" * 32768))
    assert 93 in stock.numbers


def test_11_more_than_the_window_allows_ends_the_connection(serve: Serve) -> None:
    served = serve()
    client = served.log_in()
    number = client.open()
    served.channel(client).program = Recorder()
    for _ in range(5):
        client.say(94, uint32(number) + string(b"x" * 32768))
    assert client.gone


def test_12_a_connection_has_ten_sessions_at_most(serve: Serve, stock: RawClient) -> None:
    opening = string(b"session") + uint32(0) + uint32(1000) + uint32(32768)
    client = serve().log_in()
    for _ in range(3000):
        client.say(90, opening)
    assert (client.numbers.count(91), client.numbers.count(92)) == (10, 2990)
    assert not client.gone
    stock.handshake().log_in()
    for _ in range(50):
        stock.say(90, opening)
    assert stock.numbers.count(91) == 50


def test_12_what_runs_ends_with_the_connection(serve: Serve) -> None:
    served = serve()
    client = served.log_in()
    client.open()
    program = Recorder()
    served.channel(client).program = program
    client.wire.leave()
    assert program.calls == ["hang_up"]


def test_12_slow_handshakes_leave_room_for_others(serve: Serve) -> None:
    served = serve()
    clients = [served.network.connect("192.0.2.1") for _ in range(150)]
    slow = [client for client in clients if client is not None]
    assert len(slow) == 8
    for second in range(19):
        for client in slow:
            client.protocol.dataReceived(b"SSH-2.0-slow and steady\r\n"[second : second + 1])
        served.network.advance(1)
    served.connect("192.0.2.2").handshake().log_in()
    for _ in range(2):
        served.network.advance(1)
    assert all(client.gone for client in slow)


def test_who_leaves_before_its_turn_does_not_log_in(serve: Serve) -> None:
    served = serve()
    client = served.connect().handshake()
    spend_the_turn(served, client)
    client.raw(client.packet(50, client.key_request()))
    assert client.numbers[-1] == 6
    client.wire.leave()
    served.network.advance(0)
    assert served.service.sessions() == []
    assert client.numbers[-1] == 6


def test_who_waits_for_its_turn_is_served_in_the_next(serve: Serve) -> None:
    served = serve()
    client = served.connect().handshake()
    spend_the_turn(served, client)
    client.raw(client.packet(50, client.key_request()))
    served.network.advance(0)
    client.take()
    assert client.numbers[-1] == 52


def spend_the_turn(served: Served, client: RawClient) -> None:
    def spend() -> None:
        served.network.rightNow += 1

    connection: Any = client.wire.protocol
    connection.server.turns.take(spend)


@pytest.mark.parametrize(
    ("number", "payload"),
    [
        (20, b""),
        (20, bytes(16)),
        (21, b""),
        (30, b"\0\0"),
        (30, string(bytes(32))),
        (34, b""),
        (0, b""),
        (255, b""),
        (5, b""),
    ],
)
def test_14_malformed_packets_cost_a_line_each(
    serve: Serve, events: list[LogEvent], number: int, payload: bytes
) -> None:
    client = serve().connect().hello()
    del events[:]
    client.say(number, payload)
    assert client.gone
    assert len(said(events)) == 1


def said(events: list[LogEvent]) -> list[LogEvent]:
    assert not [event for event in events if "log_failure" in event]
    return [event for event in events if event["log_namespace"].startswith("netd.ssh")]


def test_14_a_malformed_packet_makes_stock_conch_raise(stock: RawClient) -> None:
    stock.hello()
    with pytest.raises(Exception, match="unpack requires"):
        stock.say(20, bytes(16))


def fuzz(client: RawClient, chance: random.Random, numbers: list[int]) -> int:
    sent = 0
    while sent < 40 and not client.gone:
        size = chance.choice([0, 1, 4, 5, 12, 13, 40, 200])
        payload = chance.randbytes(size)
        if chance.random() < 0.5:
            payload = uint32(0) + string(chance.choice([b"exec", b"pty-req", b"env", b"ops", b"session"])) + payload
        client.say(chance.choice(numbers), payload)
        sent += 1
    return sent


def test_14_ten_thousand_fuzzed_packets_cost_a_line_a_connection_at_most(serve: Serve, events: list[LogEvent]) -> None:
    served = serve('penalty_exempt = ["127.0.0.0/8"]')
    chance = random.Random(2026)
    before_keys = [1, 2, 3, 4, 5, 6, 7, 20, 21, 30, 31, 32, 34, 50, 80, 90, 94, 98, 192]
    after_login = [2, 3, 4, 7, 80, 81, 82, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 192]
    connections, sent = 0, Counter[str]()
    while min(sent["before"], sent["after"]) < 5_000:
        stage = connections % 7 if sent["after"] < 5_000 else 0
        connections += 1
        client = served.connect()
        if stage < 4:
            client.hello()
        elif stage < 6:
            client.handshake()
        else:
            client.handshake().log_in().open()
        sent["after" if stage >= 4 else "before"] += fuzz(client, chance, after_login if stage == 6 else before_keys)
        if not client.gone:
            client.wire.leave()
    lines = [event for event in said(events) if "logged in" not in str(event.get("log_format"))]
    assert len(lines) <= connections
    assert not served.service.listeners[0].connections


def test_16_strict_key_exchange_lets_nothing_slip_in(serve: Serve, stock: RawClient) -> None:
    client = serve().connect().hello()
    client.say(20, client.kexinit())
    client.say(2, string(b"slipped in"))
    assert client.gone
    stock.hello()
    stock.say(20, stock.kexinit())
    stock.say(2, string(b"slipped in"))
    assert not stock.gone


def test_16_a_service_is_not_had_before_keys(serve: Serve, stock: RawClient) -> None:
    client = serve().connect(strict=False).hello()
    client.say(5, string(b"ssh-userauth"))
    assert client.gone
    assert [number for number, _ in stock.hello().say(5, string(b"ssh-userauth"))] == []
    assert not stock.gone


def test_16_a_client_without_strict_key_exchange_is_served_too(serve: Serve) -> None:
    client = serve().log_in(strict=False)
    client.exchange()
    client.request(client.open(), b"exec", string(b"version"))
    assert client.numbers[-1] == 97


def test_16_keys_are_renewed_by_the_clients_wish_and_by_the_servers(serve: Serve, stock: RawClient) -> None:
    client = serve("rekey_bytes = 10_000").log_in()
    client.exchange()
    number = client.open()
    asked = 0
    while client.numbers.count(20) == 2:
        client.request(number, b"env", string(b"LANG") + string(b"C"))
        asked += 1
    stock_channel(stock)
    for _ in range(2 * asked):
        stock.request(0, b"env", string(b"LANG") + string(b"C"))
    assert stock.numbers.count(20) == 1
    theirs = [payload for kind, payload in client.heard if kind == 20][-1]
    ours = client.kexinit()
    client.say(20, ours)
    client.finish(ours, theirs)
    client.request(number, b"exec", string(b"version"))
    assert client.numbers[-4:] == [94, 96, 98, 97]


def test_16_the_sequence_number_wraps(serve: Serve, stock: RawClient) -> None:
    client = serve().log_in(ciphers=b"aes256-ctr")
    connection: Any = client.wire.protocol
    connection.outgoingPacketSequence = client._reader.sequence = 0xFFFFFFFF
    connection._reader.sequence = client.sequence = 0xFFFFFFFF
    client.request(client.open(), b"exec", string(b"version"))
    assert client.numbers[-1] == 97
    stuck: Any = stock.handshake().log_in().wire.protocol
    stuck.outgoingPacketSequence = 1 << 32
    with pytest.raises(struct.error):
        stuck.sendIgnore(b"")


def console(client: RawClient) -> int:
    number = client.open()
    client.request(number, b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + bytes(8) + string(b""))
    client.request(number, b"shell")
    return number


def test_17_a_resize_and_the_end_of_input_are_nothing_to_raise_at(serve: Serve, events: list[LogEvent]) -> None:
    client = serve().log_in()
    number = console(client)
    client.say(98, uint32(number) + string(b"window-change") + b"\0" + uint32(40) + uint32(10) + bytes(8))
    client.say(96, uint32(number))
    assert client.numbers[-3:] == [96, 98, 97]
    assert not [event for event in events if "log_failure" in event]
    stock: Any = TerminalSession(object())
    with pytest.raises(NotImplementedError):
        stock.windowChanged((10, 40, 0, 0))
    with pytest.raises(NotImplementedError):
        stock.eofReceived()


def test_17_what_is_typed_may_be_more_than_ascii(serve: Serve) -> None:
    client = serve().log_in()
    number = console(client)
    client.say(94, uint32(number) + string("é漢".encode()))
    assert "é漢".encode() in b"".join(payload for kind, payload in client.heard if kind == 94)
    stock = RecvLine()
    stock.terminal = ServerProtocol()
    stock.terminal.transport = stock.terminal
    stock.lineBuffer, stock.lineBufferIndex = [], 0
    stock.mode = "insert"
    stock.keyHandlers = {}
    for byte in "é".encode():
        stock.keystrokeReceived(bytes([byte]), None)
    assert stock.lineBuffer == []


def test_18_a_pipe_is_read_as_a_whole() -> None:
    sizes = []
    for reader_class in (PipeReader, ProcessReader):
        ours, theirs = os.pipe()
        os.write(theirs, bytes(65536))
        received: list[bytes] = []

        class Process:
            def childDataReceived(self, _name: int, data: bytes, received: list[bytes] = received) -> None:
                received.append(data)

        reader: Any = reader_class(MemoryNetwork(), Process(), 1, ours)
        reader.doRead()
        sizes.append(len(received[0]))
        os.close(ours)
        os.close(theirs)
    assert sizes == [65536, 8192]


def test_a_packet_sealed_with_other_keys_is_refused(serve: Serve) -> None:
    client = serve().log_in()
    client.raw(client.packet(90)[:-1] + b"\0")
    assert client.gone


def test_an_endless_version_line_is_refused(serve: Serve) -> None:
    client = serve().connect()
    client.raw(b"SSH-2.0-" + b"x" * 300)
    assert client.gone


def test_what_is_no_ssh_is_refused_at_once(serve: Serve) -> None:
    client = serve().connect()
    client.raw(b"GET / HTTP/1.1\r\n")
    assert client.gone


def test_too_many_bytes_before_the_log_in(serve: Serve) -> None:
    client = serve("limits = { bytes = 20_000 }").connect().handshake()
    while not client.gone:
        client.say(2, string(bytes(4000)))
    assert client.farewell == b"too many bytes before the log-in"


def test_too_many_packets_before_the_log_in(serve: Serve) -> None:
    client = serve().connect().handshake()
    sent = 0
    while not client.gone:
        client.say(2, string(b""))
        sent += 1
    assert sent < 200


@pytest.mark.parametrize(
    "kind", [b"direct-tcpip", b"forwarded-tcpip", b"x11", b"tun@openssh.com", b"auth-agent@openssh.com", b""]
)
def test_only_sessions_are_opened(serve: Serve, kind: bytes) -> None:
    client = serve().log_in()
    ((number, _),) = client.say(90, string(kind) + uint32(0) + uint32(1000) + uint32(32768) + bytes(40))
    assert number == 92


@pytest.mark.parametrize("name", [b"subsystem", b"x11-req", b"auth-agent-req@openssh.com", b"xon-xoff", b"\xff"])
def test_sessions_do_nothing_else(serve: Serve, name: bytes) -> None:
    client = serve().log_in()
    assert [number for number, _ in client.request(client.open(), name, string(b"sftp"))] == [100]


@pytest.mark.parametrize("name", [b"LD_PRELOAD", b"PATH", b"BASH_ENV", b"LC_ALL=x", b"LANGUAGE", b"lang", b"\xff"])
def test_environment_that_could_do_harm_is_refused(serve: Serve, name: bytes) -> None:
    client = serve().log_in()
    assert [number for number, _ in client.request(client.open(), b"env", string(name) + string(b"x"))] == [100]


@pytest.mark.parametrize("name", [b"LANG", b"TERM", b"LC_ALL", b"NO_COLOR"])
def test_harmless_environment_is_taken(serve: Serve, name: bytes) -> None:
    client = serve().log_in()
    assert [number for number, _ in client.request(client.open(), b"env", string(name) + string(b"x"))] == [99]


@pytest.mark.parametrize(
    "name", [b"tcpip-forward", b"streamlocal-forward@openssh.com", b"no-more-sessions@openssh.com"]
)
def test_global_requests_are_answered_no(serve: Serve, name: bytes) -> None:
    client = serve().log_in()
    assert [number for number, _ in client.say(80, string(name) + b"\1")] == [82]


def test_a_reader_never_reads_beyond_the_end() -> None:
    for data in (b"", b"\0\0\0", b"\0\0\0\5abcd", b"\xff\xff\xff\xff"):
        with pytest.raises(Malformed):
            Reader(data).string()
