"""Hashes of passwords."""

from pathlib import Path

import bcrypt
import pytest

from netd.passwords import UNKNOWN_USER, check_hash, decoy, hash_password, verify
from netd.settings import Secret


def test_a_password_matches_its_hash_and_nothing_else_does() -> None:
    hashed = hash_password("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert check_hash(hashed) == hashed
    assert verify(b"correct horse", hashed)
    assert not verify(b"correct horsf", hashed)
    assert not verify(b"", hashed)


def test_the_same_password_has_another_hash_each_time() -> None:
    assert hash_password("x") != hash_password("x")


def test_bcrypt_is_checked_too() -> None:
    hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()
    assert check_hash(hashed) == hashed
    assert verify(b"correct horse", hashed)
    assert not verify(b"wrong", hashed)
    assert not verify(b"nul\0byte", hashed)


def test_bcrypt_looks_at_72_bytes() -> None:
    hashed = bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()
    assert verify(b"a" * 100, hashed)


def test_nobody_has_the_password_of_an_unknown_user() -> None:
    assert check_hash(UNKNOWN_USER)
    assert not verify(b"anything", UNKNOWN_USER)


def test_an_unknown_user_costs_what_known_ones_do() -> None:
    """A user with a bcrypt hash was once told apart from nobody by the time that his check took."""
    argon2id = hash_password("x").replace("t=2", "t=3")
    cheap = bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()
    assert decoy("nobody", [Secret(text=cheap)]).startswith("$2b$04$")
    assert decoy("nobody", [Secret(text=argon2id)]).startswith("$argon2id$v=19$m=19456,t=3,p=1$")
    both = {decoy(f"nobody{number}", [Secret(text=cheap), Secret(text=argon2id)])[:7] for number in range(100)}
    assert both == {"$2b$04$", "$argon2"}
    assert decoy("nobody", [Secret(text=cheap), Secret(text=argon2id)]) == decoy(
        "nobody", [Secret(text=cheap), Secret(text=argon2id)]
    )


def test_nobody_has_the_password_of_a_decoy() -> None:
    for text in (hash_password("x"), bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()):
        found = decoy("nobody", [Secret(text=text)])
        assert check_hash(found) == found
        assert not verify(b"x", found)


def test_users_whose_hashes_cannot_be_read_leave_the_usual_cost() -> None:
    assert decoy("nobody", []) == UNKNOWN_USER
    assert decoy("nobody", [Secret(text="nonsense"), Secret(path=Path("/nowhere"))]) == UNKNOWN_USER


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "secret",
            "$1$abc$def",
            "$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$2b$12$short",
        ),
        "$argon2id$v=19$m=99999999,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=19456,t=0,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "$2b$31$" + "a" * 53,
    ],
)
def test_what_is_no_hash_or_costs_too_much_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="hash") as raised:
        check_hash(text)
    assert not text or text not in str(raised.value)


@pytest.mark.parametrize("password", ["", "x" * 1025])
def test_passwords_that_cannot_be_used_are_not_hashed(password: str) -> None:
    with pytest.raises(ValueError, match="1 to 1024 bytes"):
        hash_password(password)
