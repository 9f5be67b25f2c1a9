"""How labels are judged while there is no champion: by the scores of a simple model."""

from typing import Any

import pytest
from threadpoolctl import threadpool_info

from fraud_assets.operations import judging_labels
from fraud_assets.training.simple_score import cross_fitted


def test_the_simple_model_is_fitted_on_as_many_threads_as_the_settings_give(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def watched(*arguments: Any) -> Any:
        used.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
        return cross_fitted(*arguments)

    monkeypatch.setattr(judging_labels, "cross_fitted", watched)
    judging_labels.judge_training_labels(bench.installation, bench.installation.training_set())
    assert set(used) == {bench.installation.settings.threads}
