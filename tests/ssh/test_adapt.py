"""A reload: what changes for who is logged in, and for who comes."""

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from netd.passwords import hash_password
from netd.runtime import CannotStart
from netd.ssh.wire import string
from tests.ssh.conftest import Serve
from tests.ssh.raw import RawClient


def test_other_commands_and_limits_apply_to_who_is_logged_in(serve: Serve) -> None:
    served = serve()
    client = served.log_in()
    client.request(client.open(), b"exec", string(b"help df"))
    assert b"no verb df" in stderr(client)
    assert served.adapt('commands.df = ["df"]\nlimits.channels = 2')
    client.request(client.open(), b"exec", string(b"help df"))
    assert b"no verb df" not in stderr(client)
    with pytest.raises(ValueError, match="unpack"):
        client.open()  # the third: the first two are not closed by the client


def stderr(client: RawClient) -> bytes:
    """What came on standard error since it was last asked for."""
    heard, client.heard[:] = list(client.heard), []
    return b"".join(payload for number, payload in heard if number == 95)


def test_limits_before_the_log_in_apply_to_who_comes(serve: Serve) -> None:
    served = serve()
    assert served.adapt("limits.startups_per_host = 1")
    served.connect("192.0.2.1")
    assert served.network.connect("192.0.2.1") is None


def test_who_is_no_longer_a_user_or_has_another_role_is_logged_out(serve: Serve) -> None:
    served = serve()
    same = served.log_in()
    assert served.adapt("", served.user + served.user.replace("users.ops", "users.anna"))
    assert not same.gone
    assert served.adapt("", served.user.replace('"admin"', '"viewer"'))
    same.take()
    assert same.gone
    assert same.farewell.startswith(b"the configuration no longer has you")
    viewer = served.log_in()
    assert served.adapt("", served.user.replace("users.ops", "users.anna"))
    assert viewer.gone


def test_a_password_is_checked_for_the_user_as_he_is_after_a_reload(serve: Serve) -> None:
    password = f'password_hash = "{hash_password("x")}"'
    served = serve("password_auth = true")
    assert served.adapt("password_auth = true", f'[ssh.console.users.ops]\nrole = "admin"\n{password}')
    client = served.connect().handshake()
    decided: Deferred[bool] = Deferred()
    connection: Any = client.wire.protocol
    connection.server.run_in_thread = lambda *_: decided
    client.say(50, string(b"ops") + string(b"ssh-connection") + string(b"password") + b"\0" + string(b"x"))
    assert served.adapt("password_auth = true", served.user.replace("users.ops", "users.anna"))
    decided.callback(True)
    assert [number for number, _ in client.take()] == [51]


def test_a_host_key_that_cannot_be_used_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    served = serve()
    (tmp_path / "ssh.console" / "ssh_host_rsa_key").write_text("nonsense")
    with pytest.raises(CannotStart):
        served.adapt('host_keys = ["ed25519", "rsa"]')
    assert served.log_in().numbers[-1] == 52


def test_without_users_it_takes_another_service_that_does_not_listen(serve: Serve) -> None:
    assert not serve().adapt("", "\n")


def test_the_audit_goes_on_in_the_file_that_is_named_now(serve: Serve, tmp_path: Path) -> None:
    served = serve()
    served.log_in()
    assert served.adapt('audit_log = "other.jsonl"')
    served.log_in()
    old, new = [
        [json.loads(line)["event"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("ssh.console.audit.jsonl", "other.jsonl")
    ]
    assert (old, new) == (["login"], ["login"])
