"""What MLflow is told of a training and of a verdict."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fraud_assets.delivery.mlflow.bundle_copy import read_copy, write_copy
from fraud_assets.delivery.mlflow.records import parameters, training_metrics, verdict_metrics
from fraud_assets.training.training import TrainedModel
from fraud_core.errors import IntegrityError
from fraud_core.gate import read_verdict

Make = Callable[..., TrainedModel]


def test_every_average_precision_stands_beside_a_fraud_rate_and_its_interval(bench: Any, make_model: Make) -> None:
    model = make_model(bench, log_amount=1.4)
    told = training_metrics(model)
    for side, report in (("holdout", model.holdout), ("validation", model.validation)):
        low, high = told[f"{side}.average_precision_low"], told[f"{side}.average_precision_high"]
        assert low < told[f"{side}.average_precision"] == report.average_precision < high
        assert told[f"{side}.fraud_rate"] == report.fraud_rate
    assert told["validation_a.average_precision.random forest"] == 0.4
    assert "validation_a.fraud_rate" in told
    assert not [name for name in told if "accuracy" in name]
    assert all(math.isfinite(value) for value in told.values())


def test_the_parameters_say_what_was_trained_on_what(bench: Any, make_model: Make) -> None:
    model = make_model(bench, log_amount=1.4)
    told = parameters(bench.installation, model)
    assert told["training_set"] == model.bundle.manifest.lineage.training_set
    assert told["seed"] == str(bench.installation.settings.seed)
    assert told["features"] == "log_amount"
    assert str(model.split.holdout.start) in told["split.holdout"]


def test_a_verdict_s_figures_follow_a_person_s_decision(bench: Any) -> None:
    bench.put("2024-03", bench.rows()["2024-03"], accepted=False)
    store, key = bench.installation.artifacts.store, bench.installation.artifacts.signing_key
    verdict = read_verdict(store, key, "2024-03")
    assert verdict is not None
    assert verdict_metrics(verdict)["accepted"] == 0
    assert verdict_metrics(verdict.model_copy(update={"accepted": True}))["accepted"] == 1


def test_mlflow_s_copy_of_a_bundle_is_the_bundle_and_a_changed_one_is_refused(
    bench: Any, make_model: Make, tmp_path: Path
) -> None:
    model = make_model(bench, log_amount=1.4)
    write_copy(model.bundle, tmp_path)
    assert read_copy(tmp_path) == model.bundle
    (file,) = tmp_path.glob("models/*/model.json")
    file.write_bytes(file.read_bytes().replace(b"1.4", b"9.4"))
    with pytest.raises(IntegrityError):
        read_copy(tmp_path)
