"""The ways round the gate: after each of them the pointer to the champion is byte for byte what it was."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import polars as pl
import pytest

from fraud_assets.installation import Installation
from fraud_assets.operations.judging import decide_partition
from fraud_assets.operations.rollback import rollback
from fraud_assets.schedule.proposals import next_training
from fraud_assets.schedule.sensors import next_partition
from fraud_cli.instance import environment
from fraud_core.errors import IntegrityError
from fraud_core.gate import verdict_key
from fraud_core.models.follower import ModelFollower
from fraud_core.storage.artifacts import Table
from fraud_core.storage.database import open_database
from fraud_core.storage.heads import Heads
from tests.home import ACCEPTED, DRIFTED, WEEKS, Home
from tests.stores import remove

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("few_trees_alone")]

PARTITION = ("raw", "quarantine", "transformed")
TRAINING = ("preprocessor", "model", "champion")


@pytest.fixture
def guarded(home: Home) -> Iterator[Home]:
    """An installation with a champion, which must be the same when the test is over."""
    before = home.latest()
    yield home
    assert home.latest() == before


def refusals(result: dg.ExecuteInProcessResult) -> list[str]:
    """Messages of the gate's refusals in a run."""
    messages = []
    for event in result.filter_events(lambda event: event.is_step_failure):
        error = event.step_failure_data.error
        while error is not None:
            if error.cls_name == "GateRefusalError":
                messages.append(error.message)
            error = error.cause
    return messages


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}


def every_training_is_refused(home: Home, words: str, partition: str | None = None) -> None:
    """All three at once, and each alone, with a partition's run and without."""
    for only in (TRAINING, *((name,) for name in TRAINING)):
        result = home.run_alone(only, partition)
        assert not result.success
        assert any(words in message for message in refusals(result)), (only, words, refusals(result))
        assert not materialized(result) & set(TRAINING)


def test_in_the_same_run_the_failed_check_stops_training(guarded: Home) -> None:
    result = guarded.run("run_partition", DRIFTED)
    assert not result.success
    assert [e.check_name for e in result.get_asset_check_evaluations() if not e.passed] == ["drift"]
    assert materialized(result) == set(PARTITION)


def test_in_the_same_run_without_its_checks_the_assets_refuse_by_themselves(guarded: Home) -> None:
    result = guarded.run_alone((*PARTITION, *TRAINING), DRIFTED)
    assert not result.success
    assert [f"Partition {DRIFTED} is materialized but has no drift verdict" in message for message in refusals(result)] == [True]


def test_a_rejected_partitions_run_trains_nothing_whichever_asset_is_started_alone(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    every_training_is_refused(guarded, f"Partition {DRIFTED} is rejected by the drift gate: log_amount has drifted", DRIFTED)


def test_the_refusal_names_partition_features_and_how_to_accept(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    (message,) = refusals(guarded.run_alone(["preprocessor"], DRIFTED))
    for words in (DRIFTED, "log_amount has drifted", f"fraud accept {DRIFTED} --reason"):
        assert words in message


def test_training_alone_leaves_a_rejected_partition_out_and_the_champion_as_it_is(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    for only in TRAINING:  # on the set that the champion was trained on: the same version, no flip
        assert guarded.run_alone([only]).success
    model = guarded.installation.artifacts.estimator("model")
    lineage = model.bundle.manifest.lineage
    assert [key for key, _ in lineage.rejected] == [DRIFTED]
    assert DRIFTED not in [key for key, _, _ in lineage.partitions]


def test_the_rejected_partitions_bytes_in_an_accepted_ones_file_train_nothing(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    artifacts = guarded.installation.artifacts
    accepted, rejected = artifacts.pointer("transformed", WEEKS[1]), artifacts.pointer("transformed", DRIFTED)
    assert accepted is not None
    assert rejected is not None
    whole = artifacts.store.get(accepted.key)
    artifacts.store.put(accepted.key, artifacts.store.get(rejected.key))
    shutil.rmtree(guarded.installation.settings.home / "cache", ignore_errors=True)  # a bucket's verified copies would serve on
    for only in TRAINING:
        assert not guarded.run_alone((only,)).success
    assert not guarded.run("train").success
    guarded.run("materialize_partition", WEEKS[1])  # puts it right
    assert artifacts.store.get(accepted.key) == whole


def test_inverted_labels_are_held_alarm_and_train_only_once_a_person_accepts_them(home: Home) -> None:
    installation, week = home.installation, WEEKS[1]
    installation.artifacts.write("transformed", week, inverted(installation, week))
    home.run("judge_partition", week)
    assert installation.accepted_set(week).accepted  # the drift gate does not look at labels
    result = home.run("train")
    (shown,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "labels_plausible"]
    assert not shown.passed
    assert f"The labels of partition {week} are held" in str(shown.description)
    lineage = installation.artifacts.estimator("model").bundle.manifest.lineage
    assert week in dict(lineage.rejected)
    assert week not in lineage.files
    assert set(lineage.files) == {key for key, _, _ in lineage.partitions}
    assert not home.run_alone(TRAINING, week).success  # the held partition's own run
    decide_partition(installation, week, accept=True, who="unverified:me", reason="they are right")
    assert week in {part.partition for part in installation.training_set(week).accepted}
    home.run_alone(["preprocessor"])  # which judges labels
    assert week in {part.partition for part in installation.training_set(week).accepted}  # the same labels are not held again


def inverted(installation: Installation, week: str) -> Table:
    """The week's transformed with its labels inverted, as a file of labels the wrong way round makes it."""
    frame = installation.artifacts.scan("transformed", week).collect().with_columns(~pl.col("label"))
    pointer = installation.artifacts.pointer("transformed", week)
    assert pointer is not None
    return Table(frame=frame, content="ab" * 32, inputs=pointer.inputs, facts=pointer.facts)


def test_a_backfill_over_good_and_drifted_partitions_promotes_nothing(guarded: Home) -> None:
    outcomes = {}
    for week in (ACCEPTED, DRIFTED):
        tags = {"dagster/backfill": "b1"}
        outcomes[week] = guarded.run("run_partition", week, tags=tags).success
    assert outcomes == {ACCEPTED: True, DRIFTED: False}


def test_an_automation_tick_asks_for_no_training_after_a_rejection(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    step = next_training(guarded.installation, guarded.instance, datetime.now(UTC))
    assert step.run_key is None


def test_an_automation_condition_that_launches_all_the_same_is_refused(guarded: Home) -> None:
    updated = dg.AutomationCondition.any_deps_updated()
    chained = guarded.definitions.map_resolved_asset_specs(
        func=lambda spec: spec.replace_attributes(automation_condition=updated) if spec.key.to_user_string() in TRAINING else spec
    )
    first = dg.evaluate_automation_conditions(chained, guarded.instance)
    guarded.run("materialize_partition", DRIFTED)  # fails its check
    second = dg.evaluate_automation_conditions(chained, guarded.instance, cursor=first.cursor)
    asked = [name for name in TRAINING if second.get_num_requested(dg.AssetKey(name))]
    assert asked == list(TRAINING), "Dagster's conditions do not see the verdict, which is why the assets ask the gate"

    remove(guarded.installation.artifacts.store, verdict_key(DRIFTED))
    result = guarded.run_alone(asked)
    assert not result.success
    assert refusals(result)


def test_the_command_fraud_leaves_the_champion_as_it_is(guarded: Home) -> None:
    done = guarded.fraud("pipeline")
    assert done.status == 0, done.err
    assert (done.result["accepted"], done.result["rejected"]) == (7, 1)
    assert f"{DRIFTED}: drift: Partition {DRIFTED} is rejected" in done.err


def test_two_commands_at_once_leave_the_champion_as_it_is(guarded: Home) -> None:
    home = guarded.installation.settings.home
    environment(guarded.installation.settings)
    dg.DagsterInstance.from_config(str(home / "dagster")).dispose()  # Dagster makes its tables once, and one at a time
    commands = [started(guarded, "pipeline") for _ in range(2)]
    for command in commands:
        _, errors = command.communicate(timeout=120)
        assert command.returncode == 0, errors


def test_a_partition_refused_while_its_training_runs_is_not_promoted(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    guarded.decide("accept", DRIFTED)
    assert guarded.run_alone(["preprocessor", "model"]).success  # one run, before its last step ...
    guarded.decide("refuse", DRIFTED)  # ... and a person meanwhile
    result = guarded.run_alone(["champion"])
    assert "trained on other partitions than the gate accepts now" in refusals(result)[0]


def test_two_runs_at_once_cannot_mix_a_preprocessor_of_one_set_with_a_model_of_another(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    guarded.decide("accept", DRIFTED)
    assert guarded.run_alone(["preprocessor"]).success
    guarded.decide("refuse", DRIFTED)
    result = guarded.run_alone(["model", "champion"])
    assert "fitted on other partitions" in refusals(result)[0]


@pytest.mark.parametrize("week", [ACCEPTED, DRIFTED])
def test_without_its_verdict_file_nothing_is_trained(guarded: Home, week: str) -> None:
    guarded.run("materialize_partition", DRIFTED)
    remove(guarded.installation.artifacts.store, verdict_key(week))
    every_training_is_refused(guarded, f"The verdict on {week} is gone, of which change 1 was seen")
    step = next_training(guarded.installation, guarded.instance, datetime.now(UTC))
    assert step.run_key is None
    assert week in step.why


def test_a_verdict_edited_by_hand_is_refused(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    store = guarded.installation.artifacts.store
    verdict = json.loads(store.get(verdict_key(DRIFTED)))
    assert verdict["accepted"] is False
    store.put(verdict_key(DRIFTED), json.dumps(verdict | {"accepted": True, "findings": []}).encode())
    every_training_is_refused(guarded, "does not carry a valid signature")


def test_an_accepted_partitions_verdict_does_not_serve_another(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    store = guarded.installation.artifacts.store
    store.put(verdict_key(DRIFTED), store.get(verdict_key(ACCEPTED)))
    every_training_is_refused(guarded, f"speaks of partition {ACCEPTED}")


def test_a_partition_made_anew_after_its_verdict_is_refused(guarded: Home) -> None:
    guarded.rewrite("shift_from = 2024-02-19", "shift_from = 2024-02-12")  # the accepted week's data becomes other data
    guarded.run("land")
    assert guarded.run_alone(PARTITION, ACCEPTED).success
    every_training_is_refused(guarded, f"Partition {ACCEPTED} has changed since its drift verdict")


def test_an_acceptance_does_not_hold_for_other_content(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    guarded.decide("accept", DRIFTED)
    guarded.rewrite("amount_factor = 3.0", "amount_factor = 4.0")
    guarded.run("land")
    assert not guarded.run("materialize_partition", DRIFTED).success
    result = guarded.run_alone(TRAINING, DRIFTED)
    assert f"Partition {DRIFTED} is rejected by the drift gate" in refusals(result)[0]


def test_an_acceptance_without_words_changes_nothing(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    result = guarded.decide("accept", DRIFTED, reason="1234 !!")
    assert "give a reason in words" in refusals(result)[0]
    assert "is rejected" in refusals(guarded.run_alone(TRAINING, DRIFTED))[0]


def test_a_late_file_of_the_first_week_is_judged_against_what_it_was(guarded: Home) -> None:
    """Poisoned rows, dated in a bootstrap partition, landed when there is a champion."""
    store = guarded.installation.artifacts.store
    pointer = guarded.installation.artifacts.pointer("raw", WEEKS[0])
    assert pointer is not None
    rows = pl.read_parquet(store.get(pointer.key))
    poison = rows.with_columns(pl.col("transaction_id") + "-late", amount_cents=pl.col("amount_cents") * 10)
    table = Table(frame=pl.concat([rows, poison]).sort("timestamp"), content="late", inputs=pointer.inputs, facts=pointer.facts)
    guarded.installation.artifacts.write("raw", WEEKS[0], table)
    assert guarded.run_alone(["transformed"], WEEKS[0]).success
    judged = guarded.run("judge_partition", WEEKS[0])
    (evaluation,) = judged.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.metadata["kind"].value) == (False, "judged")
    assert evaluation.metadata["reference"].value == WEEKS[0]
    assert f"Partition {WEEKS[0]} is rejected by the drift gate" in str(evaluation.description)
    assert [part.partition for part in guarded.installation.training_set().rejected] == [WEEKS[0]]
    every_training_is_refused(guarded, f"Partition {WEEKS[0]} is rejected by the drift gate", WEEKS[0])


def test_an_old_verdict_put_back_after_a_refusal_trains_nothing(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    store = guarded.installation.artifacts.store
    old = store.get(verdict_key(ACCEPTED))
    guarded.decide("refuse", ACCEPTED)
    store.put(verdict_key(ACCEPTED), old)
    words = f"The verdict on {ACCEPTED} is change 1 of it, and change 2 was seen before"
    every_training_is_refused(guarded, words)
    assert words in next_training(guarded.installation, guarded.instance, datetime.now(UTC)).why
    guarded.load()  # and after a restart
    every_training_is_refused(guarded, words)
    (evaluation,) = guarded.run("judge_partition", ACCEPTED).get_asset_check_evaluations()  # nor does judging anew launder it
    assert (evaluation.passed, words in str(evaluation.description)) == (False, True)


def test_an_old_pointer_put_back_is_followed_by_nobody(home: Home) -> None:
    old = home.latest()
    home.run("materialize_partition", DRIFTED)
    accepted = home.decide("accept", DRIFTED)
    (evaluation,) = accepted.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.partition) == (True, DRIFTED)
    assert evaluation.metadata["accepted_by"].value == "unverified:ann"
    assert next_training(home.installation, home.instance, datetime.now(UTC)).run_key is not None
    assert home.run("train").success
    lineage = home.installation.artifacts.estimator("model").bundle.manifest.lineage
    assert (DRIFTED, "accepted_by") in [(key, how) for key, _, how in lineage.partitions]
    first = json.loads(old)["version"]
    store, settings = home.installation.artifacts.store, home.installation.settings
    store.put("models/latest.json", old)
    home.load()
    follower = ModelFollower(store, home.installation.artifacts.signing_key, heads=Heads(open_database(settings), store.url))
    status = follower.poll()
    assert status.served is None
    assert "is change 1 of it, and change 2 was seen before" in str(status.problem)
    with pytest.raises(IntegrityError, match="change 2 was seen before"):
        next_training(home.installation, home.instance, datetime.now(UTC))
    assert home.fraud("pipeline").status == 1
    assert ModelFollower(store, home.installation.artifacts.signing_key).poll().served.version == first  # type: ignore[union-attr]

    (second,) = {key.split("/")[1] for key in store.list("models")} - {first, "latest.json"}
    rollback(home.installation, second, who="ann", reason="the newer one was taken away")
    assert json.loads(home.latest())["sequence"] == 3
    assert follower.poll().served.version == second  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bootstrap_partitions = 3", "bootstrap_partitions = 8"),
        ('first = "2024-01-01"', 'first = "2024-02-12"'),
        ("history_days = 7", 'history_days = 7\nexcluded_features = ["log_amount", "amount_over_mean"]'),
        ("[drift]", "[drift]\nnull_share = 1.0"),
    ],
)
def test_the_toml_does_not_change_the_gate_until_a_person_confirms_it(guarded: Home, old: str, new: str) -> None:
    guarded.rewrite(old, new)
    words = "The source's TOML changes what the gate decides by"
    result = guarded.run("materialize_partition", DRIFTED)
    (evaluation,) = (e for e in result.get_asset_check_evaluations() if e.check_name == "drift")
    assert (evaluation.passed, words in str(evaluation.description)) == (False, True)
    every_training_is_refused(guarded, words)
    for step in (next_training, next_partition):
        assert words in step(guarded.installation, guarded.instance, datetime.now(UTC)).why


def test_rules_that_a_person_confirmed_are_shown_and_everything_is_judged_anew(guarded: Home) -> None:
    guarded.run("materialize_partition", DRIFTED)
    guarded.rewrite("bootstrap_partitions = 3", "bootstrap_partitions = 8")
    done = guarded.fraud("pipeline")
    assert (done.status, "drift.bootstrap_partitions was 3 and is 8" in done.err) == (1, True)
    config = {"ops": {"confirm": {"config": {"reason": "eight weeks are to be the beginning", "who": "ann"}}}}
    assert guarded.run("confirm_rules", config=config).success
    assert f"Partition {WEEKS[0]} comes first" in next_training(guarded.installation, guarded.instance, datetime.now(UTC)).why
    first = next_partition(guarded.installation, guarded.instance, datetime.now(UTC))
    assert first.partition == WEEKS[0]
    assert guarded.fraud("pipeline").status == 0
    (evaluation,) = guarded.run("judge_partition", DRIFTED).get_asset_check_evaluations()
    shown = evaluation.metadata["rules_confirmed_by"].value
    assert str(shown).startswith("unverified:ann")
    assert str(shown).endswith("eight weeks are to be the beginning")
    assert (evaluation.passed, evaluation.metadata["kind"].value) == (False, "judged"), "a reference is there: no bootstrap"


def started(home: Home, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.few_trees", *arguments],
        env=os.environ | home.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
