"""What lies in the home is its owner's alone."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_core.settings import Settings
from fraud_core.signing.keys import signing_key
from fraud_core.system.private import keep_private


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The usual one, which lets everybody read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def rights(folder: Path) -> dict[str, str]:
    found = [folder, *(path for path in folder.rglob("*") if path.name != ".gitignore")]
    return {str(path.relative_to(folder.parent)): oct(path.stat().st_mode & 0o777)[2:] for path in found}


def test_a_home_of_old_that_others_could_read_is_closed_once_and_what_is_written_from_then_on_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "store").mkdir(parents=True)
    for name in ("fraud.sqlite", "store/one.parquet", "run.sh"):
        (home / name).write_text("x")
    (home / "run.sh").chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("x")
    (home / "link").symlink_to(elsewhere)
    settings = Settings(_env_file=None, home=home)

    said = keep_private(settings)
    assert said is not None
    assert (str(home) in said, "\n" in said) == (True, False)
    assert elsewhere.stat().st_mode & 0o777 == 0o644, "what a link leads to is not the home's"
    (home / "link").unlink()
    closed = {
        "home": "700",
        "home/store": "700",
        "home/run.sh": "700",
        "home/fraud.sqlite": "600",
        "home/store/one.parquet": "600",
    }
    assert rights(home) == closed

    assert keep_private(settings) is None, "there is nothing left to say"
    (home / "new.sqlite").write_text("x")
    assert rights(home) == closed | {"home/new.sqlite": "600"}


def test_a_database_that_others_could_read_in_a_home_that_they_cannot_enter_is_closed_too(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "api_keys.sqlite").write_text("x")
    assert keep_private(Settings(_env_file=None, home=home)) is not None
    assert rights(home) == {"home": "700", "home/api_keys.sqlite": "600"}


def test_a_store_that_is_shared_on_purpose_stays_shared(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.mkdir()
    shared.mkdir(mode=0o755)
    keep_private(Settings(_env_file=None, home=home, store=str(shared)))
    (shared / "latest.json").write_text("x")
    assert rights(shared) == {"shared": "755", "shared/latest.json": "644"}
    assert rights(home) == {"home": "700"}


def test_no_commit_takes_what_lies_in_a_home(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    home = tmp_path / "any-name"
    settings = Settings(_env_file=None, home=home)
    signing_key(settings)
    status = ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == ""
    (home / ".gitignore").write_text("mine\n")
    keep_private(settings)
    assert (home / ".gitignore").read_text() == "mine\n"
