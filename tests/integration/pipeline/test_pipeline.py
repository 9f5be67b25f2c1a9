"""`fraud pipeline` from a source to a champion, and what a later run makes of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from pydantic import SecretStr

from fraud_assets.definitions import build
from fraud_assets.installation import Installation
from fraud_assets.operations.judging import judge_partition
from fraud_assets.reports.model_card import to_markdown
from fraud_assets.training import training
from fraud_assets.training.training import fit_preprocessor, train
from fraud_cli.instance import environment, open_instance
from fraud_cli.jobs import Pipeline
from fraud_core import gate
from fraud_core.evaluation.model_card import ModelCard
from fraud_core.intake.landing import land
from fraud_core.intake.raw import build_raw
from fraud_core.models.bundle import read_bundle
from fraud_core.models.registry import LATEST, latest_model_card, read_latest
from fraud_core.storage.artifacts import Artifacts
from fraud_core.training_data.transform import build_transformed
from tests.api_server import variables_of
from tests.stores import store_settings

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("few_trees_alone")]

ROOT = Path(__file__).parents[3]
JULY = "2024-07"
COUNTS = ["rows", "quarantined", "repaired", "rounded", "partitions", "accepted", "rejected"]
FIGURES = [
    *("version", "model", "average_precision", "average_precision_ci", "roc_auc"),
    *("average_precision_validation", "average_precision_without_history", "holdout_looks"),
    *("card_precision_at_100", "card_precision_at_100_ceiling", "fraud_rate"),
]
KEYS = [*COUNTS, *FIGURES, "threshold", "decline_threshold", "seconds", "peak_rss_mb"]


def champion(installation: Installation) -> Any:
    artifacts = installation.artifacts
    latest = read_latest(artifacts.store, artifacts.signing_key)
    assert latest is not None
    return latest


def card(installation: Installation, version: str) -> ModelCard:
    """The newest card of a version."""
    stored = latest_model_card(installation.artifacts.store, version, installation.artifacts.signing_key)
    assert stored is not None
    return ModelCard.model_validate(stored.body)


def materializations(place: Any) -> dict[str, int]:
    """How often each asset was ever materialized."""
    counts: dict[str, int] = {}
    with open_instance(place.installation().settings) as instance:
        for run in instance.get_runs():
            for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
                asset = record.get_dagster_event().asset_key
                assert asset is not None
                counts[asset.to_user_string()] = counts.get(asset.to_user_string(), 0) + 1
    return counts


# ---- what a run says


def test_the_result_is_one_json_object_with_the_promised_keys(built_rejecting: Any) -> None:
    out = (built_rejecting.folder / "out").read_text()
    assert len(out.splitlines()) == 1
    result = json.loads(out)
    assert list(result) == KEYS
    assert (result["partitions"], result["accepted"], result["rejected"]) == (7, 6, 1)
    assert (result["quarantined"], result["repaired"]) == (0, 0)
    raws = built_rejecting.installation().artifacts.pointers("raw")
    assert result["rows"] == sum(raw.rows for raw in raws.values())
    low, high = result["average_precision_ci"]
    assert 5 * result["fraud_rate"] < low < result["average_precision"] < high <= 1
    assert 0 < result["threshold"] <= result["decline_threshold"]
    assert 0 < result["card_precision_at_100"] < 1
    assert result["version"] == champion(built_rejecting.installation()).version
    assert result["peak_rss_mb"] > 100


def test_progress_goes_to_standard_error(built_rejecting: Any) -> None:
    err = (built_rejecting.folder / "err").read_text()
    for said in (
        *built_rejecting.installation().source.keys,
        f"{JULY}: drift: Partition {JULY} is rejected",
        "looking at the hold-out",
    ):
        assert said in err
    assert "Warning" not in err
    assert "Traceback" not in err


def test_training_after_each_partition_leaves_the_champion_of_the_same_set_alone(trained: Any) -> None:
    before = trained.stored("models")
    run = trained.fraud("pipeline", "--each")
    assert (run.result["accepted"], run.result["rejected"]) == (6, 1)
    assert run.err.count("the champion was trained on exactly these partitions already") == 7
    assert "looking at the hold-out" not in run.err
    assert trained.stored("models") == before


def test_too_little_data_ends_well_and_without_figures(empty: Any) -> None:
    run = empty.fraud("pipeline", "--until", "2024-02", "--each")
    assert run.status == 0
    assert list(run.result) == KEYS
    assert (run.result["partitions"], run.result["accepted"], run.result["rejected"]) == (2, 2, 0)
    assert {name for name, value in run.result.items() if value is None} == {*FIGURES, "threshold", "decline_threshold"}
    assert len(re.findall(r"Not yet trainable: the data spans (?:31|60) days", run.err)) == 2
    assert not set(materializations(empty)) & {"preprocessor", "model", "champion"}
    assert LATEST not in empty.stored()


def test_a_second_run_reuses_everything(rejecting: Any) -> None:
    stored, counts = rejecting.stored(), materializations(rejecting)
    first = json.loads((rejecting.folder / "out").read_text())
    again = rejecting.fraud("pipeline")
    assert again.status == 0
    assert {**again.result, "seconds": 0, "peak_rss_mb": 0} == {**first, "seconds": 0, "peak_rss_mb": 0}
    assert rejecting.stored() == stored
    # `landing` looks whether there is anything new.
    assert materializations(rejecting) == counts | {name: counts[name] + 1 for name in ("landing", "history")}


# ---- the gate and the champion


def test_a_rejected_partition_trains_nothing_and_stands_on_the_card(built_rejecting: Any) -> None:
    installation = built_rejecting.installation()
    version = champion(installation).version
    lineage = read_bundle(installation.artifacts.store, version, installation.artifacts.signing_key).manifest.lineage
    accepted = [f"2024-0{month}" for month in range(1, 7)]
    assert [name for name, _, _ in lineage.partitions] == accepted
    assert [name for name, _ in lineage.rejected] == [JULY]
    made = card(installation, version)
    assert [part.key for part in made.rejected_partitions] == [JULY]
    assert "log_amount" in made.rejected_partitions[0].reason
    assert f"| {JULY} |" in to_markdown(made)


def test_a_failed_check_leaves_everything_else_as_it_was(trained: Any) -> None:
    before = trained.stored()
    result = Pipeline(trained.installation()).run("run_partition", JULY)
    assert not result.success
    assert {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}["drift"] is False
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    assert made == {"raw", "quarantine", "transformed"}
    after = trained.stored()
    assert {key: after[key] for key in before} == before
    assert all(JULY in key for key in set(after) - set(before))


def test_a_worse_candidate_changes_nothing_that_serves(rejecting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_all = training.fit_candidates
    monkeypatch.setattr(training, "fit_candidates", lambda *a, **k: [c for c in fit_all(*a, **k) if c.kind == "linear"])
    before, counts = rejecting.stored("models"), materializations(rejecting)
    strict = {"FRAUD_PROMOTION_MARGIN": "0.01", "FRAUD_REVIEW_CAPACITY": "7"}
    run = rejecting.fraud("pipeline", **strict)
    assert run.status == 0
    assert "not promoted: The lower end of its" in run.err
    assert run.result["model"] == "linear"
    assert run.result["version"] != champion(rejecting.installation()).version
    assert rejecting.stored("models") == before
    after = materializations(rejecting)
    assert (after["model"], after["champion"]) == (counts["model"] + 1, counts["champion"])


def test_a_holdout_with_too_few_frauds_is_an_error_in_one_sentence(trained: Any) -> None:
    before = trained.stored("models")
    run = trained.fraud("pipeline", "--until", "2024-06", FRAUD_MIN_HOLDOUT_FRAUDS="9999")
    assert run.status == 1
    assert run.out == ""
    assert run.err.splitlines()[-1].startswith("fraud: The training rows hold ")
    assert "Traceback" not in run.err
    assert trained.stored("models") == before


def test_a_partition_with_too_many_refused_rows_goes_no_further(empty: Any) -> None:
    file = empty.folder / "payments.parquet"
    assert empty.fraud("simulate", "--until", "2024-01", "--out", str(file)).status == 0
    rows = pl.read_parquet(file)
    rows.with_columns(pl.when(pl.int_range(pl.len()) % 20 == 0).then(-1.0).otherwise("amount").alias("amount")).write_parquet(
        file
    )
    refused = -(-len(rows) // 20)
    run = empty.fraud("pipeline", "--file", str(file), "--until", "2024-01")
    assert run.status == 0, run.err
    assert (run.result["rows"], run.result["quarantined"]) == (len(rows) - refused, refused)
    assert (run.result["accepted"], run.result["rejected"], run.result["version"]) == (0, 0, None)
    assert f"2024-01: quarantined_share: {refused} of {len(rows)} rows were refused" in run.err
    assert set(empty.installation().artifacts.pointers("raw")) == {"2024-01"}
    assert empty.installation().transformed() == {}


def test_an_accepted_partition_trains_and_a_refused_one_does_no_longer(rejecting: Any) -> None:
    accepted = rejecting.fraud("accept", JULY, "--reason", "prices did rise", "--who", "kim")
    assert accepted.status == 0, accepted.err
    run = rejecting.fraud("pipeline")
    assert (run.result["accepted"], run.result["rejected"]) == (7, 0)
    made = card(rejecting.installation(), run.result["version"])
    july = made.partitions[-1]
    assert (july.key, july.verdict, july.accepted_by, july.reason) == (JULY, "accepted_by", "unverified:kim", "prices did rise")
    assert rejecting.fraud("refuse", JULY, "--reason", "they did not", "--who", "kim").status == 0
    names = [part.partition for part in rejecting.installation().training_set().rejected]
    assert names == [JULY]


# ---- the same again


def test_another_home_key_and_number_of_threads_give_the_same_version(built_trained: Any, tmp_path: Path) -> None:
    """The whole path once more, without Dagster, under other keys and with two threads."""
    other = {"home": tmp_path, "threads": 2, "store": store_settings(tmp_path).get("store", "")}
    keys = {"card_key": SecretStr("0f" * 32), "signing_key": SecretStr("f0" * 32)}
    settings = built_trained.installation().settings.model_copy(update=other | keys)
    again, installation = Installation(settings, built_trained.installation().source), built_trained.installation()
    artifacts: Artifacts = again.artifacts
    landing = land(again.source, artifacts.store, again.card_key, None)
    for key in installation.transformed():
        made = build_raw(again.source, landing, key, artifacts.store, again.card_key)
        artifacts.write("raw", key, made.rows)
        artifacts.write("transformed", key, build_transformed(again.source, artifacts, key))
        gate.record(artifacts.store, artifacts.signing_key, judge_partition(again, key))
    allowed = again.training_set()
    task = again.training_task(allowed)
    model = train(task, fit_preprocessor(task), lambda _: None)
    assert again.card_key.id != installation.card_key.id
    hashes = [one.artifacts.scan("raw", "2024-01").select("card").collect()["card"] for one in (installation, again)]
    assert not set(hashes[0]) & set(hashes[1])
    assert model.bundle.version == champion(installation).version
    assert {key: pointer.content for key, pointer in again.transformed().items()} == {
        key: pointer.content for key, pointer in installation.transformed().items()
    }


# ---- what is shown


def test_nothing_that_people_see_tells_anything_personal(built_rejecting: Any) -> None:
    installation = built_rejecting.installation()
    people = pl.concat([installation.artifacts.scan("raw", key).collect() for key in installation.transformed()])
    personal = set(people["card"]) | {str(day) for day in people["birth_date"]}
    for name in ("latitude", "longitude"):  # some merchants lie where people live
        personal |= set(map(str, people[f"home_{name}"])) - set(map(str, people[f"merchant_{name}"]))
    assert len(personal) > 400
    shown = [text.decode() for key, text in built_rejecting.stored("models").items() if not key.endswith((".png", ".treelite"))]
    shown += [(built_rejecting.folder / name).read_text() for name in ("out", "err")]
    with open_instance(installation.settings) as instance:
        for run in instance.get_runs():
            shown += [str(record) for record in instance.all_logs(run.run_id)]
    words = {word for text in shown for word in re.findall(r"[\w.-]+", text)}
    assert people["transaction_id"][0] in words  # samples are shown, and looked through
    assert not words & personal


def test_every_materialization_shows_something_a_person_would_look_at(built_rejecting: Any) -> None:
    wanted = {
        "landing": {"files", "rows_read", "repaired"},
        "raw": {"dagster/row_count", "quarantined", "duplicates", "sample"},
        "quarantine": {"dagster/row_count", "reasons"},
        "transformed": {"dagster/row_count", "frauds", "sample"},
        "preprocessor": {"columns", "split", "partitions", "rejected"},
        "model": {"average_precision", "fraud_rate", "candidates", "precision_recall", "calibration", "cost", "holdout_looks"},
        "champion": {"card", "version"},
    }
    with open_instance(built_rejecting.installation().settings) as instance:
        for asset, names in wanted.items():
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            assert event is not None
            assert event.asset_materialization is not None
            assert names <= set(event.asset_materialization.metadata), asset


# ---- Dagster's own doors


def test_dagster_loads_the_definitions_through_the_workspace(built_trained: Any) -> None:
    settings = built_trained.installation().settings
    command = [Path(sys.executable).parent / "dagster", "definitions", "validate", "--workspace", "workspace.yaml"]
    few = {"PATH": "/usr/bin:/bin", "FRAUD_DRIFT_DETECTOR": "scipy"}
    few |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    variables = few | variables_of(settings) | environment(settings)
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location fraud" in done.stderr + done.stdout


def test_runs_of_the_command_line_are_those_of_the_jobs_that_the_ui_launches(built_rejecting: Any) -> None:
    installation = built_rejecting.installation()
    jobs = {job.name for job in build(installation).resolve_all_job_defs()}
    with open_instance(installation.settings) as instance:
        runs = instance.get_runs()
    assert {run.job_name for run in runs} == {"land", "materialize_partition", "train", "load_history"} <= jobs
    assert all(run.is_finished for run in runs)
    partitions = [run.tags["dagster/partition"] for run in runs if run.job_name == "materialize_partition"]
    assert sorted(partitions) == installation.source.keys
