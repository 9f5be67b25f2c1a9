"""Plots are small, the same for the same report, and survive what data can be."""

import base64
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fraud_assets.reports import plots
from fraud_core.evaluation.metrics import NEVER
from fraud_core.evaluation.report import EvaluationRows, Policy, Report, evaluate

POLICY = Policy(
    review_threshold=0.05,
    decline_threshold=0.6,
    review_cost=5.0,
    false_decline_cost=30.0,
    label_delay_days=7,
    draws=100,
    seed=1,
    min_frauds=10,
)
LARGEST = 60_000


def block(n: int) -> EvaluationRows:
    generator = np.random.default_rng(n)
    scores = 1 / (1 + np.exp(-generator.normal(-6, 3, n)))
    return EvaluationRows(
        labels=generator.random(n) < scores,
        scores=scores,
        amounts_cents=generator.integers(100, 50_000, n),
        cards=None,
        local_day=None,
        month=None,
    )


@pytest.fixture(scope="module")
def validation() -> Report:
    return evaluate(block(5_000), POLICY)


@pytest.fixture(scope="module")
def holdout() -> Report:
    return evaluate(block(20_000), POLICY)


def assert_small_png(png: bytes) -> None:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 600
    assert height >= 400
    assert len(png) < LARGEST


def test_the_plots_of_a_report_are_small_pictures(validation: Report, holdout: Report):
    for png in (plots.pr_plot(validation, holdout), plots.calibration_plot(validation, holdout), plots.cost_plot(holdout)):
        assert_small_png(png)


def test_equal_reports_give_equal_bytes_and_other_reports_others(validation: Report, holdout: Report):
    assert plots.pr_plot(validation, holdout) == plots.pr_plot(validation, holdout)
    assert plots.cost_plot(holdout) == plots.cost_plot(holdout)
    assert plots.cost_plot(holdout) != plots.cost_plot(validation)


def test_a_policy_that_never_declines_or_alerts_can_be_drawn():
    never = evaluate(block(5_000), replace(POLICY, review_threshold=NEVER, decline_threshold=NEVER))
    assert_small_png(plots.pr_plot(never, never))
    assert_small_png(plots.cost_plot(never))


def test_a_perfect_model_of_certain_scores_can_be_drawn():
    rows = block(5_000)
    perfect = evaluate(replace(rows, scores=rows.labels.astype(float)), POLICY)
    for png in (plots.pr_plot(perfect, perfect), plots.calibration_plot(perfect, perfect), plots.cost_plot(perfect)):
        assert_small_png(png)


NORMAL = np.random.default_rng(0).normal(4, 1, 2_000)
NAMES = np.array([f"category_{i % 30}" for i in range(2_000)], dtype=object)


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        pytest.param(NORMAL, NORMAL + 1, id="numbers"),
        pytest.param(NORMAL, np.append(NORMAL, [1e9, np.nan]), id="a wild value and a missing one"),
        pytest.param(NORMAL, np.full(50, np.nan), id="all missing"),
        pytest.param(NORMAL, NORMAL[:0], id="no rows"),
        pytest.param(NORMAL[:0], NORMAL[:0], id="nothing at all"),
        pytest.param(np.full(50, 3.0), np.full(50, 3.0), id="one constant"),
        pytest.param(np.append(np.zeros(99_999), np.arange(50.0)), np.zeros(100), id="nearly constant"),
        pytest.param(np.arange(2_000) % 24, np.arange(500) % 12, id="whole numbers, as integers"),
        pytest.param(NAMES, np.where(np.arange(2_000) % 5, NAMES, None), id="many categories and missing ones"),
        pytest.param(NAMES[:3], np.array(["never_seen"] * 9, dtype=object), id="an unseen category"),
        pytest.param(NAMES, np.full(9, None, dtype=object), id="categories all missing"),
        pytest.param(NAMES[:3], np.array(["a $\\nonsense{$ name", "$", ""], dtype=object), id="names that look like formulas"),
    ],
)
def test_the_shift_of_any_feature_can_be_drawn(reference, current):
    assert_small_png(plots.feature_shift_plot("some_feature", reference, current, "unit"))


def test_a_shift_is_seen():
    assert plots.feature_shift_plot("x", NORMAL, NORMAL) != plots.feature_shift_plot("x", NORMAL, NORMAL + 0.5)


def test_the_markdown_image_carries_the_very_bytes():
    png = plots.feature_shift_plot("x", NORMAL, NORMAL)
    markdown = plots.as_markdown_image(png, "shift of x")
    head = "![shift of x](data:image/png;base64,"
    assert markdown.startswith(head)
    assert markdown.endswith(")")
    assert base64.b64decode(markdown[len(head) : -1], validate=True) == png


def test_plotting_leaves_no_global_state():
    program = (
        "import sys, numpy as np; from fraud_assets.reports import plots; "
        "plots.feature_shift_plot('x', np.arange(100.0), np.arange(100.0)); print('matplotlib.pyplot' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
