"""`fraud keys`."""

from pathlib import Path

import pytest

from fraud_cli.main import main
from fraud_core.access.api_keys import ApiKeys
from fraud_core.settings import Settings


def test_a_token_is_alone_on_standard_output_and_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path / "home")]
    assert main(["keys", "list", *home]) == 0
    assert "There are no keys yet" in capsys.readouterr().out

    assert main(["keys", "create", "till 7", "--scope", "score", "--scope", "label", *home]) == 0
    made = capsys.readouterr()
    (token,) = made.out.split()
    assert "till 7" in made.err
    assert token not in made.err

    assert main(["keys", "list", *home]) == 0
    listed = capsys.readouterr().out
    assert "valid" in listed
    assert "label, score" in listed
    assert token not in listed
    kept = b"".join(path.read_bytes() for path in (tmp_path / "home").glob("fraud.sqlite*"))
    assert (b"till 7" in kept, token.encode() in kept) == (True, False)

    (key,) = ApiKeys.of(Settings(_env_file=None, home=tmp_path / "home")).list()
    assert main(["keys", "revoke", key.id, *home]) == 0
    capsys.readouterr()
    assert main(["keys", "list", *home]) == 0
    assert "revoked" in capsys.readouterr().out


def test_a_key_without_a_holder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "--home", str(tmp_path)]) == 1
    assert "Name who will hold the key" in capsys.readouterr().err
