"""`fraud users`: a password is shown once, and a card number never."""

import io
from pathlib import Path

import pytest

from fraud_cli.main import main
from fraud_core.access.users import Users
from fraud_core.settings import Settings
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import card_key
from fraud_core.storage.database import open_database


def run(home: Path, *arguments: str) -> int:
    return main(["users", *arguments, "--home", str(home)])


def users(home: Path) -> Users:
    return Users(open_database(Settings(_env_file=None, home=home)))


def test_a_user_is_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "list") == 0
    assert "no users yet" in capsys.readouterr().out
    assert run(tmp_path, "create", "anna", "--role", "lead") == 0
    password = capsys.readouterr().out.strip()
    assert users(tmp_path).verified("anna", password) is not None
    assert run(tmp_path, "reset", "anna") == 0
    renewed = capsys.readouterr().out.strip()
    assert users(tmp_path).verified("anna", password) is None
    assert users(tmp_path).verified("anna", renewed) is not None
    assert run(tmp_path, "role", "anna", "--role", "analyst") == 0
    assert run(tmp_path, "revoke", "anna") == 0
    assert run(tmp_path, "list") == 0
    said = capsys.readouterr().out
    assert "analyst" in said
    assert "revoked" in said
    assert renewed not in said


@pytest.mark.parametrize("typed", ["4111111111111111\n", " 4111111111111111.0\N{NO-BREAK SPACE}\n"])
def test_an_own_card_is_read_from_standard_input_and_kept_as_its_hash_as_payments_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    run(tmp_path, "create", "anna")
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert run(tmp_path, "card", "anna") == 0
    key = card_key(Settings(_env_file=None, home=tmp_path))
    assert users(tmp_path).list()[0].cards == {hashed_card("4111111111111111", key)}
    assert "4111" not in capsys.readouterr().out
    for wrong, says in (("\n", "must be text of 1 to 64"), ("4.1E+15\n", "lost digits"), ("4" * 65, "longer than 64")):
        monkeypatch.setattr("sys.stdin", io.StringIO(wrong))
        assert run(tmp_path, "card", "anna") == 1
        assert says in capsys.readouterr().err


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "revoke", "nobody") == 1
    assert run(tmp_path, "create") == 1
    said = capsys.readouterr().err
    assert "no user nobody" in said
    assert "Name the person" in said
