"""The command `fraud`: what it takes, how it ends, and what it loads."""

import subprocess
import sys
from pathlib import Path

import pytest

from fraud_cli import main as command
from fraud_cli.main import main
from fraud_core.errors import FraudError, StoreError
from fraud_core.settings import Settings

ROOT = Path(__file__).parents[3]
COMMANDS = {"pipeline", "up", "models", "rollback", "restore", "accept", "refuse", "simulate", "settings", "keys", "serve"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests, and no .env of theirs."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FRAUD_{name.upper()}", raising=False)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert {word for word in COMMANDS if f"\n    {word} " in out} == COMMANDS


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unheard-of"],
        ["rollback"],
        ["rollback", "0123456789abcdef"],
        ["accept", "2024-01"],
        ["simulate"],
        ["keys", "forget", "kim"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: fraud" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (StoreError("The bucket is gone; create it."), "fraud: The bucket is gone; create it.\n"),
        (PermissionError(13, "Permission denied", "/home/kim"), "fraud: [Errno 13] Permission denied: '/home/kim'\n"),
    ],
)
def test_an_error_that_a_user_can_act_on_is_one_sentence(
    error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise error

    monkeypatch.setattr(command, "_models", fails)
    assert main(["models"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", sentence)


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(command, "_models", fails)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


def test_ctrl_c_says_that_what_is_finished_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_pipeline", interrupted)
    assert main(["pipeline"]) == 130
    assert "what was finished is kept" in capsys.readouterr().err


def test_a_home_that_is_a_file_is_refused_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    source = str(ROOT / "sources" / "simulated.toml")
    assert main(["models", "--home", str(tmp_path / "file"), "--source-config", source]) == 1
    err = capsys.readouterr().err
    assert err.startswith("fraud: ")
    assert str(tmp_path / "file") in err
    assert len(err.splitlines()) == 1


def test_a_source_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--source-config", "sources/mine.toml"]) == 1
    assert "There is no source file sources/mine.toml" in capsys.readouterr().err


def test_a_wrong_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FRAUD_API_PORT", "sesame")
    assert main(["settings"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("fraud: A setting cannot be used: FRAUD_API_PORT: ")
    assert "sesame" not in err


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FRAUD_HOME", "/from/the/environment")
    assert main(["settings", "--home", "/from/the/command"]) == 0
    assert "FRAUD_HOME=/from/the/command\n" in capsys.readouterr().out


def test_the_example_is_the_file_that_lies_in_the_repository(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--example"]) == 0
    assert capsys.readouterr().out == (ROOT / ".env.example").read_text()


def test_a_light_command_loads_no_heavy_library(tmp_path: Path) -> None:
    program = "import sys; from fraud_cli.main import main; main(['settings']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "fraud_core.settings" in loaded
    assert not loaded & {"dagster", "sklearn", "polars", "matplotlib", "mlflow", "alibi_detect", "fastapi", "gradio"}


def test_every_error_of_ours_is_one_that_ends_in_a_sentence() -> None:
    from fraud_cli.commands.pipeline import JobFailedError

    assert issubclass(JobFailedError, FraudError)
