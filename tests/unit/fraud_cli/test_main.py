"""The command `fraud`: what it takes, how it ends, and what it loads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fraud_cli.main import main
from fraud_core.errors import FraudError, StoreError
from fraud_core.settings import Settings

ROOT = Path(__file__).parents[3]
COMMANDS = {"pipeline", "up", "models", "rollback", "restore", "accept", "refuse", "confirm", "calibrate", "serve", "exporter"}
COMMANDS |= {"webserver", "worker", "source", "data", "db", "keys", "ui", "users", "served", "simulate", "settings"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests, and no .env of theirs."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FRAUD_{name.upper()}", raising=False)


def test_help_names_every_command_in_plain_text_and_so_does_that_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert set(re.findall(r"^  ([a-z]+)  ", out, re.M)) == COMMANDS
    for name in COMMANDS:
        assert main([name, "-h"]) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"Usage: fraud {name} ")
        assert {"--home", "--source-config"} <= set(told.split())
        out += told
    assert out.isascii()


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
    assert main(arguments) == 2
    assert "Usage: fraud" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--port", "3000", "-m", "some.module"], ["-h"], ["--home", "/of/dagster"]], ids=lambda given: given[0]
)
def test_the_options_of_dagsters_web_server_are_passed_on_as_they_are(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[Path, list[str]]] = []
    monkeypatch.setattr("fraud_assets.access.webserver.serve", lambda settings, options: served.append((settings.home, options)))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert main(["webserver", "--home", str(tmp_path), "--", *arguments]) == 0
    assert served == [(tmp_path, arguments)]


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

    monkeypatch.setattr("fraud_core.storage.database.open_database", fails)
    assert main(["db", "status"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", sentence)


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("fraud_core.storage.database.open_database", fails)
    with pytest.raises(ZeroDivisionError):
        main(["db", "status"])


def test_ctrl_c_says_that_what_is_finished_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("fraud_core.storage.database.open_database", interrupted)
    assert main(["db", "status"]) == 130
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


def test_a_setting_that_cannot_be_used_hides_no_explanation_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_API_PORT", "sesame")
    assert main(["settings", "--example"]) == 0


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
    from fraud_cli.jobs import JobFailedError

    assert issubclass(JobFailedError, FraudError)


def test_the_release_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"fraud-detection \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("command", "missing", "extra"), [("serve", "uvicorn", "scorer"), ("ui", "gradio", "ui"), ("pipeline", "dagster", "pipeline")]
)
def test_a_part_that_is_not_installed_is_named_with_its_extra(command: str, missing: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from fraud_cli.main import main; sys.exit(main([{command!r}]))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert f"`pip install 'fraud-detection[{extra}]'`" in ended.stderr
    assert "Traceback" not in ended.stderr
