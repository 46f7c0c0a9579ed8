"""What an [ssh.NAME] table may say, and what is said of its mistakes."""

from pathlib import Path

import pytest

from netd.config import ConfigError
from netd.ssh.config import SshSettings
from tests.fakes import configure

KEYS = 'users.ops = { authorized_keys_file = "ops.keys" }\n'
CONTRACT = r"""
[ssh.console]
listen = "127.0.0.1:2222"
password_auth = false
limits = { grace = "20s", startups = 64, startups_per_host = 8, attempts = 6 }
[ssh.console.users.ops]
role = "admin"
authorized_keys_file = "ops.keys"
[ssh.console.commands]
df = ["df", "-h"]
[ssh.console.commands.ping]
argv = ["ping", "-c", "{n}", "{host}"]
args = { n = "[1-5]", host = "[a-z0-9][a-z0-9.-]*" }
role = "operator"
timeout = "30s"
output_limit = "64MiB"
"""


def settings(text: str) -> SshSettings:
    found = configure(text).services[0].settings
    assert isinstance(found, SshSettings)
    return found


def test_the_contracts_example_is_understood() -> None:
    found = settings(CONTRACT)
    assert found.commands["df"].argv == ("df", "-h")
    assert found.commands["ping"].output_limit == 64 << 20
    assert str(found.users["ops"].authorized_keys_file) == "/etc/netd/ops.keys"
    assert found.limits.key_queries == 20


def mistakes(rest: str, *, listen: str = "127.0.0.1:2222") -> list[str]:
    with pytest.raises(ConfigError) as raised:
        configure(f'[ssh.c]\nlisten = "{listen}"\n{rest}')
    return [line.removeprefix("/etc/netd/netd.toml: ssh.c.") for line in raised.value.mistakes]


@pytest.mark.parametrize(
    ("rest", "mistake"),
    [
        ('commands.status = ["true"]', "commands: status: is a verb of the console"),
        ('commands.watch = ["true"]', "commands: watch: is a verb of the console"),
        ('commands."a b" = ["true"]', 'commands: "a b": a command is'),
        ("commands.a = []", "commands.a.argv: "),
        ('commands.a = "true"', "commands.a: expected a table"),
        ('commands.a = { argv = ["a", "{b}"] }', "commands.a: argv[1]: args does not say"),
        ('commands.a = { argv = ["a"], timeout = "soon" }', "commands.a.timeout: expected seconds"),
        ('commands.a = { argv = ["a"], role = "root" }', "commands.a.role: expected"),
        ('users.x = { role = "admin" }', "users.x: nothing to log in with"),
        ('users.x = { password_hash = "secret" }', "users.x.password_hash: expected a hash"),
        ('users."-x" = { authorized_keys_file = "k" }', 'users: "-x": a user is'),
        ("limits = { attemps = 3 }", "limits.attemps: unknown key; did you mean attempts?"),
        ('host_keys = ["dsa"]', "host_keys[0]: expected"),
        ("host_keys = []", "host_keys: "),
        ('penalty_exempt = ["home"]', "penalty_exempt: expected a network"),
    ],
)
def test_mistakes_begin_with_their_key(rest: str, mistake: str) -> None:
    found = mistakes(rest)
    assert len(found) == 1
    assert found[0].startswith(mistake), found


def test_a_hash_is_never_shown() -> None:
    assert "secret" not in str(mistakes('users.x = { password_hash = "secret" }'))


def test_a_throwaway_key_stays_on_this_machine() -> None:
    (found,) = mistakes("users.dev = { throwaway_key = true }", listen=":2222")
    assert found.endswith("users.dev.throwaway_key: only where listen is on loopback")


def test_a_file_of_keys_that_lets_nobody_in_is_warned_about(tmp_path: Path) -> None:
    def warnings() -> list[str]:
        table = f'users.x = {{ authorized_keys_file = "{tmp_path / "keys"}" }}'
        config = configure(f'[ssh.c]\nlisten = "127.0.0.1:2222"\n{table}\n')
        return [each.partition("ssh.c.users.x.authorized_keys_file: ")[2] for each in config.warnings]

    keys = tmp_path / "keys"
    assert warnings() == [f"{keys} cannot be read: No such file or directory"]
    keys.write_text("ssh-dss AAAA\n")
    (complaint,) = warnings()
    assert complaint.startswith(f"{keys}, line 1: no key of a kind that is accepted")
    keys.write_text("# nobody yet\n")
    assert warnings() == []
    keys.chmod(0o666)
    (complaint,) = warnings()
    assert "others may write" in complaint


def test_every_address_may_be_listened_on_because_users_log_in() -> None:
    assert settings(f'[ssh.c]\nlisten = ":2222"\n{KEYS}').listen[0].every_interface


def test_no_users_is_warned_about() -> None:
    config = configure('[ssh.c]\nlisten = "127.0.0.1:2222"\n')
    (warning,) = config.warnings
    assert "ssh.c.users: nobody may log in" in warning
    assert "netdctl ssh print-user" in warning


def test_a_password_that_nobody_may_use_is_warned_about() -> None:
    hashed = "$2b$12$" + "a" * 53
    config = configure(f'[ssh.c]\nlisten = "127.0.0.1:2222"\nusers.x = {{ password_hash = "{hashed}" }}\n')
    (warning,) = config.warnings
    assert "ssh.c.users.x.password_hash: is not used while password_auth is false" in warning
