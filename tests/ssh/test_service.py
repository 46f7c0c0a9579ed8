"""The service as a whole: its keys, its first start, its limits, its end."""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent

from netd.runtime import CannotStart
from netd.ssh.add_user import CannotDescribe, describe_user
from netd.ssh.authorized import fingerprint
from netd.ssh.service import SshService
from netd.ssh.wire import string, uint32
from tests.fakes import MemoryNetwork, configure, result_of, runtime_on
from tests.ssh.raw import RawClient, stock_client
from tests.ssh.service import AUTHORIZED, Served

Serve = Callable[..., Served]


# --- keys of the host


def host_key(directory: Path, kind: str = "ed25519") -> Path:
    return directory / "ssh.console" / f"ssh_host_{kind}_key"


def test_the_hosts_key_is_made_once_and_is_nobody_elses(serve: Serve, tmp_path: Path, events: list[LogEvent]) -> None:
    serve()
    path = host_key(tmp_path)
    made = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    serve()
    assert path.read_bytes() == made
    lines = [formatEvent(event) for event in events if "host key" in str(event.get("log_format"))]
    public = base64.b64decode(path.with_name(path.name + ".pub").read_text().split()[1])
    told = "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")
    assert lines == [f"host key {told} (ed25519), new", f"host key {told} (ed25519)"]


def test_an_rsa_key_is_made_when_it_is_asked_for(serve: Serve, tmp_path: Path) -> None:
    client = serve('host_keys = ["ed25519", "rsa"]').log_in()
    assert host_key(tmp_path, "rsa").exists()
    assert client.numbers[-1] == 52


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_host_key_that_others_could_read_is_refused(serve: Serve, tmp_path: Path, mode: int) -> None:
    serve()
    host_key(tmp_path).chmod(mode)
    with pytest.raises(CannotStart, match="others may read or write it: chmod 600"):
        serve()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_host_key_of_somebody_else_is_refused(serve: Serve, tmp_path: Path) -> None:
    serve()
    os.chown(host_key(tmp_path), 65534, 65534)
    with pytest.raises(CannotStart, match="belongs to user 65534, not to this one, 0: chown it"):
        serve()


def test_a_host_key_that_is_none_is_refused(serve: Serve, tmp_path: Path) -> None:
    serve()
    host_key(tmp_path).write_text("nonsense")
    with pytest.raises(CannotStart, match="is not a private key"):
        serve()


# --- users


def test_without_users_it_does_not_listen_and_says_what_to_do(tmp_path: Path) -> None:
    network = MemoryNetwork()
    config = configure('[ssh.console]\nlisten = "127.0.0.1:2222"\n')
    runtime = runtime_on(network)
    runtime.state_dir = tmp_path
    service = SshService(config.services[0], runtime)
    result_of(service.start())
    assert not network.tcpServers
    assert "netdctl ssh print-user" in config.warnings[0]
    result_of(service.drain())
    result_of(service.stop())


def test_how_to_add_a_user_is_printed(tmp_path: Path) -> None:
    key = tmp_path / "id.pub"
    key.write_text(AUTHORIZED + "\n")
    text = describe_user("anna", key)
    assert '[ssh.console.users.anna]\nrole = "operator"' in text
    assert 'authorized_keys_file = "anna.keys"' in text
    assert text.endswith(f"\n\n{AUTHORIZED}\n")
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert describe_user("anna", private) == text
    assert "password_hash" in describe_user("anna", None)


@pytest.mark.parametrize(("name", "text"), [("-x", AUTHORIZED), ("a", "nonsense"), ("a", ""), ("a b", AUTHORIZED)])
def test_a_name_or_a_key_that_will_not_do_is_said_so(tmp_path: Path, name: str, text: str) -> None:
    key = tmp_path / "id.pub"
    key.write_text(text)
    with pytest.raises(CannotDescribe):
        describe_user(name, key)
    with pytest.raises(CannotDescribe, match="cannot be read"):
        describe_user("a", tmp_path / "none")


# --- security keys


def security_key() -> tuple[ed25519.Ed25519PrivateKey, bytes]:
    key = ed25519.Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return key, string(b"sk-ssh-ed25519@openssh.com") + string(raw) + string(b"ssh:")


def touch(client: RawClient, key: ed25519.Ed25519PrivateKey, blob: bytes, flags: int) -> list[int]:
    kind = b"sk-ssh-ed25519@openssh.com"
    body = string(b"ops") + string(b"ssh-connection") + string(b"publickey") + b"\1" + string(kind) + string(blob)
    message = hashlib.sha256(string(client.session_id) + b"\x32" + body).digest()
    tail = bytes((flags,)) + uint32(1)
    signature = string(kind) + string(key.sign(hashlib.sha256(b"ssh:").digest() + tail + message)) + tail
    return [number for number, _ in client.say(50, body + string(signature))]


@pytest.mark.parametrize(("options", "flags", "answer"), [
    ("", 1, 52), ("", 0, 51), ("", 4, 51), ("no-touch-required ", 0, 52), ("verify-required ", 1, 51),
    ("verify-required ", 5, 52),
])  # fmt: skip
def test_13_a_security_key_must_have_been_touched(serve: Serve, options: str, flags: int, answer: int) -> None:
    """Stock conch never looks at the flags."""
    key, blob = security_key()
    line = f"{options}sk-ssh-ed25519@openssh.com {base64.b64encode(blob).decode()}"
    client = serve(authorized=line).connect().handshake()
    assert touch(client, key, blob, flags) == [answer]
    if not options:
        stock = stock_client(MemoryNetwork(), user_key=blob).handshake()
        assert touch(stock, key, blob, flags) == [52]


# --- passwords


def test_passwords_are_not_even_looked_at_unless_they_are_allowed(serve: Serve) -> None:
    client = serve().connect().handshake()
    guess = string(b"ops") + string(b"ssh-connection") + string(b"password") + b"\0" + string(b"x")
    ((number, payload),) = client.say(50, guess)
    assert (number, payload) == (51, string(b"publickey") + b"\0")


def test_two_passwords_are_checked_at_once_and_no_more(serve: Serve) -> None:
    connection: Any = serve("password_auth = true").connect().wire.protocol
    changed = threading.Condition()
    running: list[int] = []
    peak = 0
    go_on = False

    def check(number: int) -> None:
        nonlocal peak
        with changed:
            running.append(number)
            peak = max(peak, len(running))
            changed.notify_all()
            changed.wait_for(lambda: go_on, timeout=60)
            running.remove(number)
            changed.notify_all()

    for number in range(6):
        connection.server.run_in_thread(check, number)
    with changed:
        assert changed.wait_for(lambda: len(running) == 2, timeout=60)
        assert not changed.wait_for(lambda: len(running) > 2, timeout=0.1)
        go_on = True
        changed.notify_all()
        assert changed.wait_for(lambda: not running, timeout=60)
    assert peak == 2


@pytest.mark.parametrize("user", [b"nobody", b"ops", b"\xff"])
def test_unknown_users_cost_a_hash_like_known_ones(serve: Serve, user: bytes) -> None:
    served = serve("password_auth = true")
    client = served.connect().handshake()
    asked: list[Any] = []
    connection: Any = client.wire.protocol

    def run_in_thread(*arguments: object) -> Deferred[bool]:
        asked.append(arguments)
        return Deferred()

    connection.server.run_in_thread = run_in_thread
    client.say(50, string(user) + string(b"ssh-connection") + string(b"password") + b"\0" + string(b"x"))
    ((_, password, hashed),) = asked
    assert password == b"x"
    assert hashed.startswith("$argon2id$")


def test_an_unknown_user_costs_what_the_known_ones_do(serve: Serve) -> None:
    hashed = bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()
    served = serve(f'password_auth = true\n[ssh.console.users.anna]\npassword_hash = "{hashed}"')
    connection: Any = served.connect().wire.protocol
    assert connection.server.decoy("nobody").startswith("$2b$04$")


# --- limits over time


class Backup:
    """A program that does nothing but run."""

    doing = "backup"
    busy = True

    def begin(self) -> None: ...
    def receive(self, data: bytes) -> int:
        return len(data)

    def end_of_input(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def resize(self, width: int, height: int) -> None: ...
    def signal(self, name: str) -> bool:
        return False

    def dismiss(self, text: str) -> bool:
        return False

    def hang_up(self) -> None: ...


def test_the_ninth_connection_of_an_address_waits_until_one_has_logged_in(serve: Serve) -> None:
    served = serve()
    clients = [served.connect() for _ in range(8)]
    assert served.network.connect() is None
    clients[0].handshake().log_in()
    assert served.network.connect() is not None
    assert served.service.listeners[0].refused["startups_per_host"] == 1


def test_an_address_that_guesses_has_to_wait_and_sessions_shows_it(serve: Serve) -> None:
    served = serve()
    for _ in range(2):
        client = served.connect("192.0.2.1").handshake()
        client.say(50, client.wrong_request())
        client.wire.leave()
    assert served.network.connect("192.0.2.1") is None
    assert served.network.connect("192.0.2.2") is not None
    ((penalty),) = served.service.penalties()
    assert (penalty.address, penalty.failures) == ("192.0.2.1", 2)
    for _ in range(16):
        served.network.advance(1)
    assert served.network.connect("192.0.2.1") is not None


def test_a_key_that_will_not_do_is_told_once_with_its_fingerprint(
    serve: Serve, tmp_path: Path, events: list[LogEvent]
) -> None:
    stranger = string(b"ssh-ed25519") + string(bytes(32))
    client = serve().connect().handshake()
    for _ in range(3):
        client.say(50, client.key_request(signed=False, blob=stranger))
    client.wire.leave()
    (refusal,) = [json.loads(line) for line in (tmp_path / "ssh.console.audit.jsonl").read_text().splitlines()]
    assert (refusal["event"], refusal["user"], refusal["key"]) == ("refusal", "ops", fingerprint(stranger))
    assert f"ops refused from 127.0.0.1:40000 by publickey {fingerprint(stranger)}" in map(formatEvent, events)


def test_who_finds_the_right_key_in_the_end_is_not_refused(serve: Serve, tmp_path: Path) -> None:
    client = serve().connect().handshake()
    client.say(50, client.key_request(signed=False, blob=string(b"ssh-ed25519") + string(bytes(32))))
    client.log_in().wire.leave()
    events = [json.loads(line)["event"] for line in (tmp_path / "ssh.console.audit.jsonl").read_text().splitlines()]
    assert events == ["login", "logout"]


def test_sessions_tells_who_is_there_and_what_runs(serve: Serve) -> None:
    served = serve()
    served.connect("192.0.2.1")
    served.log_in().open()
    first, second = served.service.sessions()
    assert (first.user, first.doing) == ("", "logging in")
    assert (second.user, second.role, second.doing) == ("ops", "admin", "nothing")


def test_a_client_that_is_gone_without_a_word_is_noticed(serve: Serve) -> None:
    served = serve('keepalive = "10s"')
    client = served.log_in()
    for _ in range(39):
        served.network.advance(1)
    assert not client.gone
    client.take()
    assert client.numbers.count(80) == 3
    served.network.advance(1)
    assert client.gone


def test_a_client_that_answers_stays_until_it_is_idle(serve: Serve) -> None:
    served = serve('keepalive = "10s"\nidle_timeout = "60s"')
    client = served.log_in()
    for _ in range(55):
        served.network.advance(1)
        for number, _ in client.take():
            assert number == 80
            client.say(82)
    assert not client.gone
    for _ in range(10):
        served.network.advance(1)
        client.take()
    assert client.gone
    assert b"idle" in client.farewell


def test_a_connection_on_which_something_runs_is_not_idle(serve: Serve) -> None:
    served = serve('keepalive = 0\nidle_timeout = "60s"')
    client = served.log_in()
    number = client.open()
    channel = served.channel(client)
    channel.program = Backup()
    for _ in range(200):
        served.network.advance(1)
    assert not client.gone
    channel.end(0)
    client.say(97, uint32(number))
    for _ in range(65):
        served.network.advance(1)
    assert client.gone


def test_keys_are_renewed_after_an_hour(serve: Serve) -> None:
    served = serve("keepalive = 0\nidle_timeout = 0\nlimits = { grace = 0 }")
    client = served.log_in()
    for _ in range(3599):
        served.network.advance(1)
    assert not client.take()
    served.network.advance(2)
    assert [number for number, _ in client.take()] == [20]


def test_a_key_exchange_that_does_not_end_is_ended(serve: Serve) -> None:
    client_of = serve()
    client = client_of.log_in()
    client.say(20, client.kexinit())
    for _ in range(21):
        client_of.network.advance(1)
    assert client.gone


def test_a_slow_client_has_time_to_read_what_was_sent_before_new_keys(serve: Serve) -> None:
    served = serve("rekey_after = 60")
    client = served.log_in()
    channel = client.open()
    for _ in range(120):
        served.network.advance(1)
        client.say(93, uint32(channel) + uint32(1000))  # a client says so as it reads
    theirs = next(payload for number, payload in reversed(client.heard) if number == 20)
    ours = client.kexinit()
    client.say(20, ours)
    client.finish(ours, theirs)
    assert client.numbers[-1] == 21
    assert not client.gone


def test_new_keys_are_asked_for_once_however_long_the_client_takes(serve: Serve) -> None:
    served = serve("rekey_after = 60\nkeepalive = 0\nlimits = { grace = 0 }")
    client = served.log_in()
    for _ in range(120):
        served.network.advance(1)
    assert client.numbers.count(20) == 1
    assert [number for number, _ in client.take()] == [20]


class Dawdling(Backup):
    """Takes ten milliseconds for each piece of input."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.received = b""

    def receive(self, data: bytes) -> int:
        self.network.rightNow += 0.01
        self.received += data
        return len(data)


def test_many_messages_in_one_read_let_others_have_their_turn(serve: Serve) -> None:
    served = serve()
    client = served.log_in()
    channel = uint32(client.open())
    served.channel(client).program = program = Dawdling(served.network)
    client.raw(b"".join(client.packet(94, channel + string(each)) for each in (b"a", b"b", b"c")))
    assert program.received == b"a"
    assert client.wire.producerState == "paused"
    client.raw(client.packet(94, channel + string(b"d")))
    served.network.advance(0)
    assert program.received == b"abcd"
    assert client.wire.producerState == "producing"
    client.say(94, channel + string(b"e"))
    assert program.received == b"abcde"


# --- the end


def test_draining_waits_for_what_runs_and_takes_nothing_new(serve: Serve) -> None:
    served = serve()
    idle, busy = served.log_in(), served.log_in()
    number = busy.open()
    channel = served.channel(busy)
    channel.program = Backup()
    drained = Deferred.fromCoroutine(served.service.drain())
    served.network.advance(0.1)
    idle.take()
    assert idle.gone
    assert idle.farewell == b"netd is stopping"
    assert not busy.gone
    busy.say(90, string(b"session") + uint32(1) + uint32(1000) + uint32(32768))
    assert [kind for kind, _ in busy.request(number + 1, b"exec", string(b"version"))] == [100]
    channel.end(0)
    busy.say(97, uint32(number))
    assert not drained.called
    for _ in range(2):
        served.network.advance(0.1)
    assert busy.gone
    assert drained.called


def test_draining_waits_until_a_client_has_all_output_and_the_status(serve: Serve) -> None:
    """OpenSSH exits with 255 when the connection ends before it has dealt with the exit status."""
    served = serve()
    client = served.log_in()
    number = client.open(window=3)
    channel = served.channel(client)
    channel.program = Backup()
    drained = Deferred.fromCoroutine(served.service.drain())
    channel.write(b"all is saved")
    channel.end(0)
    served.network.advance(0.1)
    assert not client.gone
    client.say(93, uint32(number) + uint32(1000))
    assert client.numbers[-4:] == [94, 96, 98, 97]
    served.network.advance(0.1)
    assert not client.gone
    client.say(97, uint32(number))
    for _ in range(2):
        served.network.advance(0.1)
    assert client.gone
    assert drained.called


@pytest.mark.parametrize("why", ["idle", "netd is stopping"])
def test_an_operator_at_a_prompt_is_told_and_leaves_with_a_status(serve: Serve, why: str) -> None:
    served = serve('keepalive = 0\nidle_timeout = "60s"')
    client = served.log_in()
    number = client.open()
    client.request(number, b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + bytes(8) + string(b""))
    client.request(number, b"shell")
    if why == "idle":
        for _ in range(62):
            served.network.advance(1)
    else:
        Deferred.fromCoroutine(served.service.drain())
        served.network.advance(0.1)
    client.take()
    assert any(why.encode() in payload for kind, payload in client.heard if kind == 94)
    assert client.numbers[-3:] == [96, 98, 97]
    assert not client.gone
    client.say(97, uint32(number))
    for _ in range(3):
        served.network.advance(1)
    assert client.gone


@pytest.mark.parametrize("line", [None, b"help"])
def test_a_page_that_nobody_turns_is_idle(serve: Serve, line: bytes | None) -> None:
    served = serve('keepalive = 0\nidle_timeout = "60s"')
    client = served.log_in()
    number = client.open()
    client.request(number, b"pty-req", string(b"xterm") + uint32(80) + uint32(6) + bytes(8) + string(b""))
    if line is None:
        client.request(number, b"shell")
        client.say(94, uint32(number) + string(b"help\r"))
    else:
        client.request(number, b"exec", string(line))
    assert any(b"q: quit" in payload for kind, payload in client.heard if kind == 94)
    for _ in range(62):
        served.network.advance(1)
    client.take()
    assert any(b"idle" in payload for kind, payload in client.heard if kind == 94)
    assert client.numbers[-3:] == [96, 98, 97]


def test_a_connection_that_an_operator_closes_ends_whatever_runs_on_it(serve: Serve) -> None:
    served = serve()
    client = served.log_in()
    client.open()
    served.channel(client).program = Backup()
    (connection,) = served.service.listeners[0].connections.values()
    connection.close()
    client.take()
    assert client.gone
    assert b"an operator's wish" in client.farewell
