"""The clients that people have: each logs in, runs a command and a verb, and is told the exit status."""

import subprocess
from pathlib import Path

import bcrypt
import paramiko
import pytest

from tests.ssh.daemon import KINDS, PASSWORD, Sshd, run, serving


def spawn(*command: object, check: bool = False) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=check, timeout=60, stdin=subprocess.DEVNULL)


def is_df(text: str) -> bool:
    return text.startswith("Filesystem") and text.count("\n") > 1


@pytest.mark.parametrize("kind", KINDS)
def test_openssh(sshd: Sshd, kind: str) -> None:
    done = sshd.ssh("df", options=("-i", str(sshd.key(kind)), "-o", f"IdentityFile={sshd.key(kind)}"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert is_df(done.stdout.decode())
    assert sshd.ssh("both").returncode == 3
    assert sshd.ssh("status").stdout.startswith(b"netd ")


@pytest.mark.parametrize("cipher", ["aes256-gcm@openssh.com", "aes128-ctr", "chacha20-poly1305@openssh.com"])
def test_openssh_with_each_kind_of_cipher(sshd: Sshd, cipher: str) -> None:
    data = bytes(range(256)) * 4096
    assert sshd.ssh("cat", options=("-c", cipher), input=data).stdout == data


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_dropbear(sshd: Sshd, kind: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    spawn("dropbearconvert", "openssh", "dropbear", sshd.key(kind), key, check=True)
    client = ["dbclient", "-y", "-y", "-p", str(sshd.port), "-i", key, "ops@127.0.0.1"]
    assert is_df(spawn(*client, "df").stdout)
    assert spawn(*client, "both").returncode == 3


@pytest.mark.parametrize("how", ["password", "rsa", "ed25519"])
def test_plink(sshd: Sshd, how: str, tmp_path: Path) -> None:
    host = spawn("ssh-keygen", "-lf", sshd.directory / "state/ssh.console/ssh_host_ed25519_key.pub").stdout.split()[1]
    proof = ["-pw", PASSWORD]
    if how != "password":
        key = tmp_path / "key.ppk"
        spawn("puttygen", sshd.key(how), "-O", "private", "-o", key, check=True)
        proof = ["-i", str(key)]
    client = ["plink", "-ssh", "-batch", "-P", str(sshd.port), "-hostkey", host, *proof, "ops@127.0.0.1"]
    assert is_df(spawn(*client, "df").stdout)
    assert spawn(*client, "both").returncode == 3
    assert spawn(*client, "status").stdout.startswith("netd ")


PARAMIKO: dict[str, type[paramiko.PKey]] = {
    "rsa": paramiko.RSAKey,
    "ecdsa": paramiko.ECDSAKey,
    "ed25519": paramiko.Ed25519Key,
}


@pytest.mark.parametrize("how", ["password", *KINDS])
def test_the_classic_paramiko_script(sshd: Sshd, how: str) -> None:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    proof = (
        {"password": PASSWORD} if how == "password" else {"pkey": PARAMIKO[how].from_private_key_file(sshd.key(how))}
    )
    client.connect("127.0.0.1", port=sshd.port, username="ops", look_for_keys=False, allow_agent=False, **proof)
    _, stdout, stderr = client.exec_command("df")
    output = stdout.read().decode()
    assert (stdout.channel.recv_exit_status(), stderr.read()) == (0, b"")
    assert is_df(output)
    client.close()


@pytest.mark.parametrize("how", ["password", *KINDS])
def test_asyncssh(sshd: Sshd, how: str) -> None:
    proof = {"client_keys": None, "password": PASSWORD} if how == "password" else {"client_keys": [sshd.key(how)]}

    async def work() -> None:
        async with sshd.asyncssh(**proof) as connection:
            done = await connection.run("df")
            assert is_df(done.stdout)
            done = await connection.run("both")
            assert (done.exit_status, done.stdout, done.stderr) == (3, "out\n", "err\n")

    run(work())


@pytest.fixture(scope="module")
def libssh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("libssh") / "libssh"
    spawn("cc", Path(__file__).with_name("libssh.c"), "-o", program, "-lssh", check=True)
    return program


@pytest.mark.parametrize("kind", KINDS)
def test_libssh(sshd: Sshd, libssh: Path, kind: str) -> None:
    assert is_df(spawn(libssh, sshd.port, "ops", sshd.key(kind), "df").stdout)
    assert spawn(libssh, sshd.port, "ops", sshd.key(kind), "both").returncode == 3


def test_a_bcrypt_hash_lets_in_too(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"battery staple", bcrypt.gensalt(4, prefix=b"2b")).decode()
    with serving(tmp_path, commands=f'[ssh.console.users.old]\npassword_hash = "{hashed}"\n') as sshd:

        async def work() -> str:
            async with sshd.asyncssh(username="old", client_keys=None, password="battery staple") as connection:
                return str((await connection.run("whoami")).stdout)

        assert run(work()).startswith("old (viewer) from 127.0.0.1")


def test_a_wrong_password_and_an_unknown_user_are_refused_alike(sshd: Sshd) -> None:
    for user, password in (("ops", "wrong"), ("nobody", PASSWORD), ("forced", PASSWORD)):
        transport = paramiko.Transport(("127.0.0.1", sshd.port))
        transport.start_client(timeout=60)
        with pytest.raises(paramiko.AuthenticationException) as refusal:
            transport.auth_password(user, password)
        assert "Authentication failed" in str(refusal.value)
        transport.close()
