"""`fraud db`."""

import subprocess
import sys
from pathlib import Path

import pytest

from fraud_cli.main import main
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.storage.schema import VERSION


def test_the_status_tells_what_to_do_and_upgrade_does_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path / "home")]
    assert main(["db", "status", *home]) == 1
    assert f"version 0.0; this program needs version {VERSION}.\n`fraud db upgrade`" in capsys.readouterr().out
    for told in ("was upgraded from version 0.0", "is up to date"):
        assert main(["db", "upgrade", *home]) == 0
        assert told in capsys.readouterr().out
    assert main(["db", "status", *home]) == 0
    assert f"version {VERSION}; this program needs version {VERSION}." in capsys.readouterr().out


def test_a_database_that_a_newer_release_upgraded_stops_the_program_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(tmp_path / "home")]
    main(["db", "upgrade", *home])
    with open_database(Settings(_env_file=None, home=tmp_path / "home")).begin() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version_num = '99.0'")
    told = "a newer release has upgraded it. Run that release or a later one"
    servers = [
        subprocess.Popen([sys.executable, "-m", "fraud_cli.main", name, "--port", "0", *home], stderr=subprocess.PIPE, text=True)
        for name in ("serve", "ui")
    ]
    for command in (["users", "list"], ["db", "upgrade"]):
        assert main([*command, *home]) == 1, command
        assert told in capsys.readouterr().err
    for server in servers:
        said = server.communicate(timeout=60)[1]
        assert (server.returncode, told in said, "Traceback" in said) == (1, True, False)
    assert main(["db", "status", *home]) == 1
    assert "version 99" in capsys.readouterr().out
