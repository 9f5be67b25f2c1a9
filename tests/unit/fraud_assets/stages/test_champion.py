"""The champion: written whole, pointed at last, rolled back and restored by people."""

import json
import os
import pwd
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from fraud_assets.access.attribution import who_asks, who_is_at_the_shell
from fraud_assets.operations import rollback as champion_rollback
from fraud_assets.operations.rollback import restore, rollback
from fraud_assets.runtime.io_manager import ArtifactIOManager
from fraud_assets.stages import champion as stage
from fraud_assets.training.training import TrainedModel
from fraud_core.errors import PromotionError
from fraud_core.evaluation.model_card import ModelCard
from fraud_core.gate.baseline import read_reference
from fraud_core.models.bundle import read_bundle, write_bundle
from fraud_core.models.registry import LATEST, latest_model_card, point_at, read_latest, versions
from fraud_core.storage.artifacts import Estimator

GOOD = {"log_amount": 1.4, "night": 2.0}
POOR = {"log_amount": 1.0, "age": 0.08}
Make = Callable[..., TrainedModel]


@pytest.fixture
def bench(bench: Any) -> Any:
    """Six months, and rules of promotion that a handmade model can meet."""
    return bench.with_settings(promotion_lift=1.0)


def promote(bench: Any, model: TrainedModel, **tags: str) -> dg.ExecuteInProcessResult:
    """Materialize the asset, alone, with this as the model."""
    bench.installation.artifacts.write("model", None, Estimator(fitted=model, inputs="", facts={"version": model.bundle.version}))
    resources = {"artifacts": dg.IOManagerDefinition.hardcoded_io_manager(ArtifactIOManager(bench.installation))}
    assets = [*stage.build(bench.installation), dg.AssetSpec("model")]
    return dg.materialize(assets, resources=resources, raise_on_error=False, tags=tags)


def cause(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    (event,) = result.filter_events(lambda event: event.is_step_failure)
    error = event.step_failure_data.error
    while error.cause is not None:
        error = error.cause
    return str(error.message)


def stored(bench: Any) -> dict[str, bytes]:
    store = bench.installation.artifacts.store
    return {key: store.get(key) for key in store.list("models")}


def promoted(bench: Any, *models: TrainedModel) -> list[str]:
    """Make each the champion in turn; returns their versions."""
    for model in models:
        store, key = bench.installation.artifacts.store, bench.installation.artifacts.signing_key
        write_bundle(store, model.bundle, key)
        point_at(store, model.bundle.version, key, how="promotion", who="test", at=datetime.now(UTC))
    return [model.bundle.version for model in models]


def latest(bench: Any) -> Any:
    return read_latest(bench.installation.artifacts.store, bench.installation.artifacts.signing_key)


# ---- the asset


def test_a_promotion_leaves_a_whole_bundle_its_card_and_the_pointer(bench: Any, make_model: Make) -> None:
    model = make_model(bench, **GOOD)
    result = promote(bench, model)
    assert result.success
    assert latest(bench).version == model.bundle.version
    store = bench.installation.artifacts.store
    bundle = read_bundle(store, model.bundle.version, bench.installation.artifacts.signing_key, latest(bench).manifest_sha256)
    assert bundle == model.bundle  # what was evaluated is what ships
    folder = f"models/{model.bundle.version}/runs/{result.run_id}"
    names = {"card.json", "card.md", "precision_recall.png", "calibration.png", "cost.png", "run.json", "reference.json"}
    assert {key.rpartition("/")[2] for key in store.list(folder)} == names
    card = latest_model_card(store, model.bundle.version, bench.installation.artifacts.signing_key)
    assert card is not None
    assert card.is_signed
    assert ModelCard.model_validate(card.body).version == model.bundle.version
    assert json.loads(store.get(f"{folder}/run.json"))["dagster_run_id"] == result.run_id
    reference = read_reference(store, bench.installation.artifacts.signing_key, model.bundle.version)
    assert reference is not None
    assert {bins.feature for bins in reference.columns} <= set(model.bundle.encoder.features)
    assert reference.rows > 0
    (event,) = result.get_asset_materialization_events()
    shown = event.step_materialization_data.materialization.metadata
    assert "fraud rate" in str(shown["card"].value)


def test_a_worse_candidate_leaves_the_pointer_and_the_models_byte_identical(bench: Any, make_model: Make) -> None:
    promoted(bench, make_model(bench, **GOOD))
    before = stored(bench)
    refused = promote(bench, make_model(bench, **POOR))
    assert cause(refused).startswith("fraud_core.errors.PromotionError: Not promoted: ")
    assert stored(bench) == before


def test_the_same_version_again_leaves_the_pointer_byte_identical(bench: Any, make_model: Make) -> None:
    model = make_model(bench, **GOOD)
    promoted(bench, model)
    before = stored(bench)[LATEST]
    assert promote(bench, model).success
    assert stored(bench)[LATEST] == before
    assert latest(bench).sequence == 1


def test_a_withdrawn_version_is_not_promoted_again(bench: Any, make_model: Make) -> None:
    good = make_model(bench, **GOOD)
    poor_version, good_version = promoted(bench, make_model(bench, **POOR), good)
    rollback(bench.installation, poor_version, who="kim", reason="wrong for Texas")
    before = stored(bench)
    assert f"Version {good_version} was withdrawn by kim: wrong for Texas" in cause(promote(bench, good))
    assert stored(bench) == before


def test_a_model_of_partitions_that_the_gate_accepts_no_longer_is_refused(bench: Any, make_model: Make) -> None:
    model = make_model(bench, **GOOD)
    bench.put("2024-03", bench.rows()["2024-03"], accepted=False)
    assert "other partitions than the gate accepts now" in cause(promote(bench, model))
    assert stored(bench) == {}


def test_a_run_for_a_rejected_partition_promotes_nothing(bench: Any, make_model: Make) -> None:
    bench.put("2024-03", bench.rows()["2024-03"], accepted=False)
    run = promote(bench, make_model(bench, **GOOD), **{"dagster/partition": "2024-03"})
    assert "Partition 2024-03 is rejected by the drift gate" in cause(run)
    assert stored(bench) == {}


def test_what_dies_before_the_pointer_moves_leaves_the_old_champion(
    bench: Any, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = promoted(bench, make_model(bench, **POOR))
    before = stored(bench)[LATEST]

    def dies(*_: Any, **__: Any) -> None:
        raise OSError("the plug was pulled")

    monkeypatch.setattr(stage, "point_at", dies)
    model = make_model(bench, **GOOD)
    assert "the plug was pulled" in cause(promote(bench, model))
    assert stored(bench)[LATEST] == before
    whole = versions(bench.installation.artifacts.store, bench.installation.artifacts.signing_key)
    assert sorted(whole) == sorted([old, model.bundle.version])
    monkeypatch.undo()
    assert promote(bench, model).success
    assert latest(bench).version == model.bundle.version


# ---- rollback and its undoing


def test_a_rollback_points_at_the_older_version_and_withdraws_the_newer(bench: Any, make_model: Make) -> None:
    first, second = promoted(bench, make_model(bench, **POOR), make_model(bench, **GOOD))
    assert rollback(bench.installation, first, who="unverified:kim", reason="it declined all of Texas") == second
    now = latest(bench)
    assert now.version == first
    assert (now.withdrawn[second].who, now.withdrawn[second].reason) == ("unverified:kim", "it declined all of Texas")
    assert [(change.version, change.how) for change in now.history] == [
        (first, "promotion"),
        (second, "promotion"),
        (first, "rollback"),
    ]


def test_a_restoration_takes_the_rollback_back(bench: Any, make_model: Make) -> None:
    first, second = promoted(bench, make_model(bench, **POOR), make_model(bench, **GOOD))
    rollback(bench.installation, first, who="kim", reason="it declined all of Texas")
    restore(bench.installation, second, who="kim", reason="Texas was the source's fault")
    assert (latest(bench).version, latest(bench).withdrawn) == (second, {})
    assert latest(bench).history[-1].how == "restoration"


def test_a_rollback_without_sense_changes_nothing(bench: Any, make_model: Make) -> None:
    def refused(message: str, version: str, reason: str = "a good reason") -> None:
        before = stored(bench)
        with pytest.raises(PromotionError, match=message):
            rollback(bench.installation, version, who="kim", reason=reason)
        assert stored(bench) == before

    refused("no champion yet", "0" * 16)
    first, second = promoted(bench, make_model(bench, **POOR), make_model(bench, **GOOD))
    refused("is the champion already", second)
    refused("There is no version", "0" * 16)
    refused("Give a reason", first, reason=" - ")
    (third,) = promoted(bench, make_model(bench, intercept=-4.0, **GOOD))
    rollback(bench.installation, second, who="kim", reason="too strict")
    refused(f"Version {third} was withdrawn by kim", third)


def test_only_what_is_withdrawn_is_restored(bench: Any, make_model: Make) -> None:
    first, second = promoted(bench, make_model(bench, **POOR), make_model(bench, **GOOD))
    for version in (first, second, "0" * 16):
        with pytest.raises(PromotionError, match="is not withdrawn"):
            restore(bench.installation, version, who="kim", reason="a good reason")
    rollback(bench.installation, first, who="kim", reason="too strict")
    with pytest.raises(PromotionError, match="Give a reason"):
        restore(bench.installation, second, who="kim", reason="")


def test_both_are_jobs_that_ask_for_a_version_and_a_reason(bench: Any, make_model: Make) -> None:
    first, second = promoted(bench, make_model(bench, **POOR), make_model(bench, **GOOD))
    back, again = champion_rollback.build_jobs(bench.installation)

    def config(op: str, version: str) -> dict[str, Any]:
        return {"ops": {op: {"config": {"version": version, "reason": "too strict", "who": "kim"}}}}

    assert (back.name, again.name) == ("rollback_champion", "restore_champion")
    assert back.execute_in_process(run_config=config("roll_back", first)).success
    assert latest(bench).withdrawn[second].who == "unverified:kim"
    assert again.execute_in_process(run_config=config("lift_withdrawal", second)).success
    assert latest(bench).version == second
    with pytest.raises(dg.DagsterInvalidConfigError):
        back.execute_in_process(run_config={"ops": {"roll_back": {"config": {"version": first}}}})


def test_nobody_can_claim_a_verified_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert who_asks("kim") == "unverified:kim"
    assert who_asks(who_asks("kim")) == "unverified:kim"
    monkeypatch.setenv("LOGNAME", "the shell's user")
    assert who_asks() == who_asks("  ") == "unverified:the shell's user"
    # A command is that of the user whose process it is, whatever the variables say; a name that was typed stays unverified.
    assert who_is_at_the_shell("") == f"shell:{pwd.getpwuid(os.getuid()).pw_name}"
    assert who_is_at_the_shell("shell:root") == "unverified:shell:root"
