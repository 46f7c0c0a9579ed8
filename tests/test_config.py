"""What the configuration says about itself when it is wrong, and what it means when it is right."""

from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from netd.admin.socket import address_of
from netd.config import READABLE, Config, ConfigError, load, parse
from netd.ports import check_endpoints, endpoint_for
from netd.settings import parse_duration, parse_size

PLAIN = '[echo.plain]\nlisten = "127.0.0.1:8001"\n'


def read(text: str, **environ: str) -> Config:
    return parse(text.encode(), Path("netd.toml"), environ)


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.mistakes


def listen(address: str) -> str:
    return f"[echo.plain]\nlisten = {address}\n"


def test_every_mistake_is_told_at_once_with_its_key_first() -> None:
    assert mistakes(
        """
        [daemon]
        fastio = "yes"
        [log]
        level = "loud"
        [echo.plain]
        listen = "127.0.0.1:80011"
        transfrom = "upper"
        max_connections = -1
        idle_timeout = "10 sec"
        [echo.upper]
        transform = "uper"
        """
    ) == [
        'netd.toml: daemon.fastio: expected true or false; got "yes"',
        'netd.toml: log.level: expected "debug", "info", "warn" or "error"; got "loud"',
        "netd.toml: echo.plain.max_connections: expected at least 0; got -1",
        'netd.toml: echo.plain.idle_timeout: expected seconds, or a string such as "10s", "5m" or "1h"; got "10 sec"',
        'netd.toml: echo.plain.listen: ports go up to 65535; got "127.0.0.1:80011"',
        "netd.toml: echo.plain.transfrom: unknown key; did you mean transform?",
        "netd.toml: echo.upper.listen: is required",
        'netd.toml: echo.upper.transform: expected "none" or "upper"; got "uper"',
    ]


def test_unknown_kind_suggests_the_one_that_was_meant() -> None:
    assert mistakes('[ecko.plain]\nlisten = "127.0.0.1:1"') == [
        "netd.toml: ecko: unknown kind of service; did you mean echo?"
    ]


def test_unknown_key_in_an_inner_table_suggests_that_tables_keys() -> None:
    text = PLAIN + 'tls = { certificate = "a.pem", private_kee = "k.pem", private_key_file = "b" }\n'
    assert mistakes(text) == ["netd.toml: echo.plain.tls.private_kee: unknown key; did you mean private_key?"]


def test_syntax_error_names_line_and_column() -> None:
    assert mistakes("[echo.plain]\nlisten 5\n") == [
        "netd.toml: line 2, column 8: Expected '=' after a key in a key/value pair"
    ]


def test_not_utf8_names_the_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(b"# fine\n# \xff\n", Path("netd.toml"), {})
    assert caught.value.mistakes == ["netd.toml: line 2: not UTF-8"]


def test_a_file_nested_without_end_is_a_mistake_and_not_a_traceback() -> None:
    assert mistakes("a = " + "[" * 5000) == ["netd.toml: tables and lists are nested too deep"]
    assert mistakes("a = " + "{ a = " * 5000) == ["netd.toml: tables and lists are nested too deep"]


def test_a_number_of_thousands_of_digits_is_a_mistake_and_not_a_traceback() -> None:
    [mistake] = mistakes("a = " + "1" * 5000)
    assert mistake.startswith("netd.toml: not TOML: Exceeds the limit")


def test_a_list_nested_deep_where_another_value_belongs_is_a_mistake_and_not_a_traceback() -> None:
    deep = "[" * 450 + "]" * 450
    expected = 'expected seconds, or a string such as "10s", "5m" or "1h"; got [a list]'
    assert mistakes(PLAIN + f"idle_timeout = {deep}") == [f"netd.toml: echo.plain.idle_timeout: {expected}"]


def test_a_duration_larger_than_any_float_is_a_mistake_and_not_a_traceback() -> None:
    [mistake] = mistakes(PLAIN + "idle_timeout = " + "9" * 400)
    assert mistake.startswith("netd.toml: echo.plain.idle_timeout: expected a duration from 0 to ten years; got 999")


def test_a_path_of_an_unknown_user_is_one_beside_the_file_and_not_a_traceback() -> None:
    config = read(PLAIN + '[daemon]\nstate_dir = "~no such user/state"')
    assert config.state_dir == Path("~no such user/state").absolute()


def test_a_mistake_with_a_key_that_does_not_print_is_one_line_without_escapes() -> None:
    [key, kind] = mistakes(PLAIN + '"a\\n\\u001b[31m" = 1\n["b\\n".c]')
    assert key.startswith(r'netd.toml: echo.plain."a\n\x1b[31m": unknown key')
    assert kind.startswith(r'netd.toml: "b\n": unknown kind of service')


def test_a_network_is_no_number() -> None:
    for wrong in ("[10]", "[true]"):
        [mistake] = mistakes(PLAIN + f"allow = {wrong}")
        assert mistake.startswith("netd.toml: echo.plain.allow: expected a list of networks such as ")


def test_a_file_that_is_not_there_is_a_mistake_and_not_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory"):
        load(path)


def test_a_configuration_without_services_says_what_to_add() -> None:
    assert mistakes("") == ["netd.toml: no service: add a table such as [echo.plain] with a listen address"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("echo = 3", "echo: expected tables with a name, such as [echo.main]; got 3"),
        ("[echo]", "echo: expected tables with a name, such as [echo.main]; got a table"),
        ("[echo]\nlisten = 1", "echo.listen: expected a table: settings of a service stand under [echo.NAME]"),
        ('[echo."a b"]', 'echo."a b": a name is 1 to 64 letters, digits, - or _'),
        ("log = 1\n" + PLAIN, "log: expected a table, [log]; got 1"),
        (PLAIN + "tls = 1", "echo.plain.tls: expected a table; got 1"),
    ],
)
def test_tables_in_the_wrong_place_are_told(text: str, mistake: str) -> None:
    assert mistakes(text) == [f"netd.toml: {mistake}"]


@pytest.mark.parametrize(
    ("address", "host", "port", "local"),
    [
        ('"127.0.0.1:8001"', "127.0.0.1", 8001, True),
        ('"localhost:8001"', "127.0.0.1", 8001, True),
        ('"[::1]:8001"', "::1", 8001, True),
        ('":8001"', "::", 8001, False),
        ('"192.0.2.7:0"', "192.0.2.7", 0, False),
    ],
)
def test_tcp_addresses(address: str, host: str, port: int, local: bool) -> None:
    config = read(listen(address) + "open = true\n")
    ((key, parsed),) = config.addresses()
    assert (key, parsed.host, parsed.port, parsed.local) == ("echo.plain.listen", host, port, local)


def test_a_unix_socket_is_local_and_its_path_relative_to_the_file(tmp_path: Path) -> None:
    config = parse(listen('"unix:run/e.sock"').encode(), tmp_path / "netd.toml", {})
    ((_, address),) = config.addresses()
    assert (address.endpoint, address.local) == (f"unix:{tmp_path}/run/e.sock", True)


def test_a_unix_socket_may_be_in_a_directory_with_characters_that_endpoints_are_written_with(tmp_path: Path) -> None:
    directory = tmp_path / "a=b:c\\d"
    directory.mkdir()
    path = directory / "netd.toml"
    path.write_text(listen('"unix:e.sock"'))
    assert check_endpoints(load(path)) == []
    endpoint_for(address_of(directory / "netd.sock"), object())


def test_a_unix_socket_behind_a_load_balancer_is_for_others_and_relative_to_the_file_too(tmp_path: Path) -> None:
    text = listen('"haproxy:unix:e.sock"') + "open = true\n"
    ((_, address),) = parse(text.encode(), tmp_path / "netd.toml", {}).addresses()
    assert (address.endpoint, address.local) == (f"haproxy:unix:{tmp_path}/e.sock", False)


def test_a_port_is_either_behind_a_load_balancer_or_not() -> None:
    both = listen('["haproxy:tcp:8001", "tcp:8001"]') + "open = true\n"
    assert mistakes(both) == ["netd.toml: echo.plain.listen: tcp:8001 and haproxy:tcp:8001 overlap"]


@pytest.mark.parametrize("address", ['"example.org:80"', '"8001"', '"127.0.0.1"', '"stdio:"', "8001", '"[::1]"', '""'])
def test_what_is_no_address_is_refused(address: str) -> None:
    (mistake,) = mistakes(listen(address))
    assert mistake.startswith("netd.toml: echo.plain.listen: expected an address such as")


@pytest.mark.parametrize(
    "address",
    [
        '"0.0.0.0:8001"',
        '":8001"',
        '"tcp:8001"',
        '"haproxy:tcp:8001:interface=127.0.0.1"',
        '"systemd:domain=INET:index=0"',
    ],
)
def test_a_port_that_others_can_reach_must_be_protected_or_said_to_be_open(address: str) -> None:
    (mistake,) = mistakes(listen(address))
    assert "can be reached from other machines and nothing protects it" in mistake
    assert read(listen(address) + "open = true\n").services
    assert read(listen(address) + 'allow = ["10.0.0.0/8"]\n').services
    assert read(listen(address) + 'tls = { certificate = "c", private_key = "k", client_ca = "a" }\n').services
    assert len(mistakes(listen(address) + 'tls = { certificate = "c", private_key = "k" }\n')) == 1


def test_loopback_endpoint_strings_need_no_protection() -> None:
    assert read(listen('["tcp:8001:interface=127.0.0.1", "tcp6:8002:interface=\\\\:\\\\:1"]')).services


def test_one_port_cannot_serve_two_services() -> None:
    text = PLAIN + '[echo.upper]\nlisten = ":8001"\nopen = true\n'
    assert mistakes(text) == ["netd.toml: echo.upper.listen: :8001 overlaps 127.0.0.1:8001 of echo.plain.listen"]
    assert "overlap" in mistakes(listen('["127.0.0.1:8001", "127.0.0.1:8001"]'))[0]


def test_allow_takes_networks_and_single_hosts() -> None:
    settings = read(PLAIN + 'allow = ["10.0.0.0/8", "::1"]\n').services[0].settings
    assert settings.allow == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert "expected a network" in mistakes(PLAIN + 'allow = ["10.0.0.1/8"]')[0]
    assert "expected a list of networks" in mistakes(PLAIN + "allow = []")[0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(3, 3.0), (0.5, 0.5), ("10s", 10.0), ("1.5m", 90.0), ("250ms", 0.25), ("2h", 7200.0), ("1d", 86400.0)],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("value", ["10", "10 s", "-1s", -1, True, float("nan"), float("inf"), "1w", [], "99999d"])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"), [(7, 7), ("64KiB", 65536), ("1GiB", 1 << 30), ("10 MB", 10_000_000), ("5B", 5)]
)
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["10", "1.5MiB", -1, True, 0.5, "1 gib", 1 << 63])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_size(value)


def test_paths_are_relative_to_the_configuration_file(tmp_path: Path) -> None:
    config = parse(f'{PLAIN}[daemon]\nstate_dir = "var"\n'.encode(), tmp_path / "netd.toml", {})
    assert config.state_dir == tmp_path / "var"


def test_state_goes_where_systemd_says_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    assert read(PLAIN, STATE_DIRECTORY="/var/lib/netd:/var/lib/other").state_dir == Path("/var/lib/netd")
    assert parse(PLAIN.encode(), tmp_path / "netd.toml", {}).state_dir == tmp_path / "state"


def tls(text: str, **environ: str) -> Config:
    return read(PLAIN + f'tls = {{ certificate = "c.pem", {text} }}\n', **environ)


def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("the key\n")
    settings = tls('private_key_file = "$CREDENTIALS_DIRECTORY/key.pem"', CREDENTIALS_DIRECTORY=str(tmp_path))
    table = settings.services[0].settings.tls
    assert table is not None
    assert table.private_key.read() == "the key"


def test_a_secret_given_twice_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"tls.private_key: give private_key or private_key_file, not both"):
        tls('private_key = "a", private_key_file = "b"')


def test_a_secret_in_a_file_that_others_may_read_is_warned_about_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "netd.toml"
    path.write_text(PLAIN + 'tls = { certificate = "c.pem", private_key = "-----BEGIN SESAME" }\n')
    path.chmod(0o644)
    config = load(path)
    (warning,) = config.warnings
    mistake = "private_key is in the file itself, which others may read: use private_key_file"
    assert warning == f"{path}: echo.plain: {mistake}"
    assert "SESAME" not in repr(config) + warning
    path.chmod(0o600)
    assert load(path).warnings == ()


def test_a_secret_s_own_file_that_every_user_may_read_is_warned_about() -> None:
    with TemporaryDirectory(dir="/tmp") as name:  # where pytest keeps its own nobody else gets to
        directory, key, config = Path(name), Path(name, "c.key"), Path(name, "netd.toml")
        key.write_text("SESAME")
        config.write_text(PLAIN + 'tls = { certificate = "c.pem", private_key = "c.key" }\n')

        def warnings(way: int, file: int) -> tuple[str, ...]:
            directory.chmod(way)
            key.chmod(file)
            return load(config).warnings

        told = f"{config}: echo.plain: private_key: {key}: {READABLE}"
        assert warnings(0o711, 0o604) == (told,)
        assert warnings(0o711, 0o640) == warnings(0o710, 0o644) == ()


def test_a_url_s_own_file_is_warned_about_only_when_there_is_a_password_in_it() -> None:
    with TemporaryDirectory(dir="/tmp") as name:
        config, url = Path(name, "netd.toml"), Path(name, "url")
        Path(name).chmod(0o711)
        config.write_text('[cache.main]\nlisten_redis = "127.0.0.1:0"\nstore_file = "url"\n')

        def warnings(text: bytes) -> tuple[str, ...]:
            url.write_bytes(text)
            url.chmod(0o644)
            return load(config).warnings

        assert warnings(b"redis://127.0.0.1") == warnings(b"\xff@") == ()
        assert warnings(b"redis://:SESAME@127.0.0.1") == (f"{config}: cache.main: store: {url}: {READABLE}",)


def test_users_with_the_same_mistake_make_one_warning(tmp_path: Path) -> None:
    users = "".join(f'users.{name}.password_hash = "$2b$12${"." * 53}"\n' for name in ("one", "two"))
    text = f'[cache.main]\nlisten_redis = "127.0.0.1:0"\n{users}'
    assert len(parse(text.encode(), tmp_path / "netd.toml", {}, others_may_read=True).warnings) == 1


def test_an_unknown_key_hides_no_other_mistake_of_its_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as wrong:
        parse(b'[echo.plain]\nlisten = "0.0.0.0:8001"\ntransfrom = "upper"\n', tmp_path / "netd.toml", {})
    unknown, exposed = wrong.value.mistakes
    assert unknown.endswith("echo.plain.transfrom: unknown key; did you mean transform?")
    assert "echo.plain.listen: 0.0.0.0:8001 can be reached from other machines" in exposed
