"""The other commands of `fraud`, on an installation that has two champions."""

import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from fraud_assets.installation import Installation
from fraud_cli.instance import open_instance
from fraud_core.models.registry import read_latest

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("few_trees_alone")]

JULY = "2024-07"


def history(place: Any) -> list[str]:
    """The champions so far, oldest first."""
    installation: Installation = place.installation()
    latest = read_latest(installation.artifacts.store, installation.artifacts.signing_key)
    assert latest is not None
    return [change.version for change in latest.history]


def states(place: Any) -> dict[str, str]:
    """What `fraud models` says of each version."""
    run = place.fraud("models")
    assert run.status == 0
    lines = run.out.splitlines()
    assert lines[0].split()[:4] == ["version", "state", "promoted", "(UTC)"]
    assert lines[-1].startswith("The pointer is at change ")
    return {line.split()[0]: line for line in lines[1:-1]}


# ---- models, rollback, restore


def test_models_shows_each_version_with_its_figures_beside_the_fraud_rate(built_rejecting: Any) -> None:
    old, new = history(built_rejecting)
    lines = states(built_rejecting)
    assert list(lines) == [old, new]
    assert "champion" in lines[new]
    assert "champion" not in lines[old]
    for line in lines.values():
        figure, low, high, rate = re.search(r" (0\.\d{4}) \((0\.\d{4})-(0\.\d{4})\) +(\d\.\d{3})%", line).groups()  # type: ignore[union-attr]
        assert float(low) < float(figure) < float(high)
        assert 1 < float(rate) < 4


def test_without_a_champion_models_says_how_to_get_one(empty: Any) -> None:
    run = empty.fraud("models")
    assert run.status == 0
    assert "`fraud pipeline` makes one" in run.out


def test_a_rollback_and_its_undoing(rejecting: Any) -> None:
    old, new = history(rejecting)
    run = rejecting.fraud("rollback", old, "--reason", "declined all of Texas", "--who", "kim")
    assert run.status == 0, run.err
    assert f"{old} is champion. {new} is withdrawn; `fraud restore {new}` takes that back." in run.out
    lines = states(rejecting)
    assert "champion" in lines[old]
    assert "withdrawn" in lines[new]

    # The next run trains the same model again, and the automation leaves it withdrawn.
    before = rejecting.stored("models")
    again = rejecting.fraud("pipeline")
    assert again.status == 0
    assert "was withdrawn by unverified:kim: declined all of Texas" in again.err
    assert rejecting.stored("models") == before

    assert rejecting.fraud("restore", new, "--reason", "it was the data", "--who", "kim").status == 0
    assert "champion" in states(rejecting)[new]


def test_what_makes_no_sense_is_refused_in_one_sentence_and_changes_nothing(rejecting: Any) -> None:
    old, new = history(rejecting)
    before = rejecting.stored()
    reason = ("--reason", "because I say so")
    assert "is the champion already" in rejecting.fraud("rollback", new, *reason).refusal
    assert "There is no version" in rejecting.fraud("rollback", "0123456789abcdef", *reason).refusal
    assert "Give a reason" in rejecting.fraud("rollback", old, "--reason", "!").refusal
    assert "is not withdrawn" in rejecting.fraud("restore", old, *reason).refusal
    assert "2024-12 was not materialized" in rejecting.fraud("accept", "2024-12", *reason).refusal
    assert "words" in rejecting.fraud("accept", JULY, "--reason", "1").refusal
    assert (
        "There is no partition 2025-01; there are 2024-01 to 2024-07" in rejecting.fraud("pipeline", "--until", "2025-01").refusal
    )
    assert {key: data for key, data in rejecting.stored().items() if not key.startswith("assets/landing/")} == {
        key: data for key, data in before.items() if not key.startswith("assets/landing/")
    }


# ---- accept, refuse


def test_an_acceptance_is_the_check_that_dagster_shows_and_a_refusal_takes_it_back(rejecting: Any) -> None:
    def shown() -> tuple[bool, str]:
        with open_instance(rejecting.installation().settings) as instance:
            check = dg.AssetCheckKey(dg.AssetKey("transformed"), "drift")
            record = instance.get_latest_asset_check_evaluation_record(check)
            assert record is not None
            evaluation = record.event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
            return evaluation.passed, str(evaluation.description)

    assert shown()[0] is False
    run = rejecting.fraud("accept", JULY, "--reason", "prices did rise", "--who", "kim")
    assert run.status == 0, run.err
    assert f"{JULY} is accepted" in run.out
    passed, description = shown()
    assert passed
    assert "unverified:kim" in description
    assert "prices did rise" in description
    run = rejecting.fraud("refuse", JULY, "--reason", "they did not", "--who", "kim")
    assert f"{JULY} is refused" in run.out
    assert shown()[0] is False


# ---- errors of a run


def test_a_store_of_another_source_is_refused(rejecting: Any) -> None:
    rejecting.source.write_text(rejecting.source.read_text().replace('name = "small"', 'name = "other"'))
    refusal = rejecting.fraud("pipeline").refusal
    assert "belongs to the source 'small', not to 'other'" in refusal


def test_a_missing_file_is_named(empty: Any) -> None:
    refusal = empty.fraud("pipeline", "--file", str(empty.folder / "payments.csv")).refusal
    assert "payments.csv" in refusal
    assert empty.stored("assets/raw") == {}


def test_a_missing_column_is_named_and_leaves_no_half_partition(empty: Any) -> None:
    file = empty.folder / "payments.csv"
    file.write_text("timestamp,amount\n2024-01-02 10:00:00,12.50\n")
    refusal = empty.fraud("pipeline", "--file", str(file)).refusal
    assert "payments.csv" in refusal
    assert "label" in refusal
    assert empty.stored("assets/raw") == {}


def test_a_changed_artifact_is_an_error_that_names_it(rejecting: Any) -> None:
    installation = rejecting.installation()
    key = "assets/transformed/2024-03/latest.json"
    pointer = json.loads(installation.artifacts.store.get(key))
    installation.artifacts.store.put(key, json.dumps(pointer | {"content": "0" * 64}).encode())
    assert f"{key} does not carry a valid signature" in rejecting.fraud("pipeline").refusal


# ---- simulate


def test_simulated_rows_read_back_as_the_simulator_s_own(empty: Any) -> None:
    file = empty.folder / "payments.parquet"
    run = empty.fraud("simulate", "--until", "2024-02", "--out", str(file))
    assert run.status == 0, run.err
    rows = pl.read_parquet(file)
    assert f"{len(rows):,} transactions" in run.out
    run = empty.fraud("pipeline", "--file", str(file), "--until", "2024-02")
    assert run.status == 0, run.err
    assert (run.result["rows"], run.result["quarantined"]) == (len(rows), 0)
    made = pl.concat([empty.installation().artifacts.scan("raw", key).collect() for key in ("2024-01", "2024-02")])
    assert made["transaction_id"].to_list() == rows["transaction_id"].to_list()
    assert (made["amount_cents"] / 100).to_list() == rows["amount"].to_list()


def test_simulated_rows_are_also_written_as_csv(empty: Any) -> None:
    file: Path = empty.folder / "payments.csv"
    assert empty.fraud("simulate", "--until", "2024-01", "--out", str(file)).status == 0
    rows = pl.read_csv(file)
    assert set(rows.columns) == set(empty.installation().source.columns.wanted)
    assert rows["label"].n_unique() == 2
    assert [path.name for path in empty.folder.iterdir() if path.name.startswith(".payments")] == []


def test_simulate_says_what_it_can_write(empty: Any) -> None:
    assert "ends in .csv or .parquet" in empty.fraud("simulate", "--out", "payments.xlsx").refusal
    bare = empty.source.read_text().replace("[simulator]", "[history]\nenabled = true\n[drift]\n")
    start, end = bare.index("[drift]"), bare.index("[columns]")
    empty.source.write_text('paths = ["payments.csv"]\n' + bare[:start] + bare[end:])
    assert "has no [simulator]" in empty.fraud("simulate", "--out", "payments.csv").refusal


# ---- settings


def test_settings_are_shown_without_their_secrets(empty: Any) -> None:
    run = empty.fraud("settings", FRAUD_CARD_KEY="ab" * 32, FRAUD_SEED="77")
    assert run.status == 0
    shown = dict(line.split("=", 1) for line in run.out.splitlines())
    assert shown["FRAUD_HOME"] == str(empty.home.resolve())
    assert shown["FRAUD_SEED"] == "77"
    assert "abab" not in run.out
    assert set(shown["FRAUD_CARD_KEY"]) == {"*"}


def test_a_wrong_setting_is_named_and_its_value_is_not_shown(empty: Any) -> None:
    assert "FRAUD_THREADS: Input should be greater than or equal to 1" in empty.fraud("settings", FRAUD_THREADS="0").refusal
    secret = "not hex but secret"
    refusal = empty.fraud("pipeline", "--until", "2024-01", FRAUD_CARD_KEY=secret).refusal
    assert "FRAUD_CARD_KEY must be 64 hex digits" in refusal
    assert secret not in refusal
