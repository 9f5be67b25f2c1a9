"""What the settings promise: each has a default that works alone, and a contradiction is a sentence, not a surprise later."""

import secrets
from pathlib import Path

import pytest
from pydantic import ValidationError

from fraud_core.errors import SettingsError
from fraud_core.settings import Settings, env_example

KEY = secrets.token_hex(32)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of this machine's, and a working directory without `.env`."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FRAUD_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_with_nothing_set_all_state_lies_under_the_home_in_the_working_directory(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.home == tmp_path / ".fraud"
    assert settings.store_url == str(tmp_path / ".fraud" / "store")


def test_settings_come_from_the_environment_and_from_a_dotenv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("FRAUD_SEED=7\nFRAUD_THREADS=3\n")
    monkeypatch.setenv("FRAUD_THREADS", "4")
    assert (Settings().seed, Settings().threads) == (7, 4)


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARD_KEY", "SEED", "STORE"):
        monkeypatch.setenv(f"FRAUD_{name}", "")
    assert (Settings().card_key, Settings().seed) == (None, Settings.model_fields["seed"].default)


@pytest.mark.parametrize("given", [{}, {"card_key": KEY}, {"signing_key": KEY}])
def test_an_s3_store_without_both_keys_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="FRAUD_CARD_KEY and FRAUD_SIGNING_KEY must be set"):
        Settings(store="s3://bucket/prefix", **given)


def test_an_s3_store_with_keys_that_are_set_to_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STORE": "s3://bucket", "CARD_KEY": "", "SIGNING_KEY": ""}.items():
        monkeypatch.setenv(f"FRAUD_{name}", value)
    with pytest.raises(SettingsError, match="must be set"):
        Settings()


def test_an_s3_store_with_both_keys_is_taken() -> None:
    assert Settings(store="s3://bucket/prefix", card_key=KEY, signing_key=KEY).store_url == "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", 0), ("seed", -1), ("promotion_lift", 0.5), ("drift_detector", "other"), ("api_port", 70_000)],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})


def test_keys_are_never_printed() -> None:
    settings = Settings(card_key=KEY, signing_key=KEY)
    assert KEY not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_the_example_names_every_setting_commented_out_and_holds_no_key() -> None:
    lines = env_example().splitlines()
    named = [line[1:].split("=")[0] for line in lines if line.startswith("#FRAUD_")]
    assert named == [f"FRAUD_{name.upper()}" for name in Settings.model_fields]
    assert all(line == "" or line.startswith("#") for line in lines)
    assert {"#FRAUD_CARD_KEY=", "#FRAUD_SIGNING_KEY="} <= set(lines)


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


SHARED = {"dagster_database": "postgresql://fraud@host/dagster", "store": "/srv/store", "card_key": KEY, "signing_key": KEY}


@pytest.mark.parametrize("missing", sorted(SHARED))
def test_workers_are_told_everything_that_machines_share(missing: str) -> None:
    Settings(_env_file=None, broker="redis://:hunter2@host/1", **SHARED)
    given = {name: value for name, value in SHARED.items() if name != missing}
    with pytest.raises(SettingsError, match=f"FRAUD_{missing.upper()}") as refused:
        Settings(_env_file=None, broker="redis://:hunter2@host/1", **given)
    assert "hunter2" not in str(refused.value)


def test_a_broker_that_is_no_redis_is_refused_without_repeating_its_url() -> None:
    with pytest.raises(SettingsError, match="FRAUD_BROKER must look like redis://") as refused:
        Settings(_env_file=None, broker="amqp://:hunter2@host", **SHARED)
    assert "hunter2" not in str(refused.value)
