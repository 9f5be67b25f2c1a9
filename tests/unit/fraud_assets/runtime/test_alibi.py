"""alibi-detect and its scipy twin are interchangeable."""

import warnings
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from fraud_assets.runtime import alibi
from fraud_core import gate
from fraud_core.errors import SettingsError
from fraud_core.gate import statistics
from fraud_core.sources.source import Drift
from tests.history_features import BY_NAME

NOW = datetime(2024, 5, 1, tzinfo=UTC)
FEATURES = tuple(BY_NAME[name] for name in ("log_amount", "hour", "age", "category"))


@pytest.fixture(scope="module")
def alibi_detector() -> statistics.Detector:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what alibi-detect's own imports warn of is not ours to mend
        import alibi_detect.cd  # noqa: F401
    return alibi.alibi_detector


def frame(rows: int, seed: int, factor: float = 1.0, hours: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "log_amount": np.log1p(factor * rng.lognormal(3.5, 1.0, rows)),
            "hour": (rng.binomial(23, 0.6, rows) + hours) % 24,
            "age": pl.Series(np.where(rng.random(rows) < 0.01, np.nan, rng.integers(18, 90, rows))),
            "category": rng.choice(["food", "fuel", "shop", "travel"], rows, p=[0.4, 0.3, 0.2, 0.1]),
        }
    )


def arrays(table: pl.DataFrame) -> dict[str, statistics.Array]:
    return {
        "log_amount": table["log_amount"].to_numpy(),
        "hour": table["hour"].to_numpy(),
        "age": table["age"].fill_nan(None).drop_nulls().to_numpy(),
        "category": table["category"].rank("dense").cast(pl.Int64).to_numpy(),
    }


@pytest.mark.parametrize("shift", [{}, {"factor": 1.02}, {"factor": 1.3}, {"hours": 6}])
def test_both_detectors_give_the_same_statistics_and_p_values(
    alibi_detector: statistics.Detector, shift: dict[str, float]
) -> None:
    reference, current = arrays(frame(5_000, 1)), arrays(frame(3_000, 2, **shift))
    ours = statistics.scipy_detector(reference, current, {"category"})
    theirs = alibi_detector(reference, current, {"category"})
    assert ours.keys() == theirs.keys()
    for name, (statistic, p_value) in ours.items():
        assert theirs[name] == (pytest.approx(statistic, rel=1e-6), pytest.approx(p_value, abs=1e-6))


def test_both_detectors_give_the_same_verdicts(alibi_detector: statistics.Detector) -> None:
    shifts = [{}, {}, {}, {}, {"factor": 1.05}, {"factor": 1.3}, {"hours": 6}, {}]
    parts = [(f"2024-{i + 1:02d}", frame(4_000, i, **shift)) for i, shift in enumerate(shifts)]  # type: ignore[arg-type]
    settings = Drift(sample_rows=3_000)

    def verdicts(detector: statistics.Detector) -> list[gate.Verdict]:
        walked = gate.walk_forward(parts, features=FEATURES, settings=settings, seed=1, detector=detector, now=NOW)
        return [judgement.verdict for judgement in walked]

    ours, theirs = verdicts(statistics.scipy_detector), verdicts(alibi_detector)
    assert [v.accepted for v in ours] == [True] * 5 + [False, False, True]
    for our, their in zip(ours, theirs, strict=True):
        assert (our.accepted, our.kind, our.reference, our.sample_sha256) == (
            their.accepted,
            their.kind,
            their.reference,
            their.sample_sha256,
        )
        assert [(f.name, f.feature, f.blocking) for f in our.findings] == [
            (f.name, f.feature, f.blocking) for f in their.findings
        ]
        for ours_feature, theirs_feature in zip(our.features, their.features, strict=True):
            assert theirs_feature.p_value == pytest.approx(ours_feature.p_value, abs=1e-6)
            assert theirs_feature.excess == pytest.approx(ours_feature.excess, abs=1e-6)
    assert {v.detector for v in ours} == {"scipy_detector"}
    assert {v.detector for v in theirs} == {"alibi_detector"}


@pytest.mark.parametrize(
    ("name", "is_installed", "chosen"),
    [
        ("auto", False, "scipy_detector"),
        ("auto", True, "alibi_detector"),
        ("scipy", True, "scipy_detector"),
        ("alibi-detect", True, "alibi_detector"),
        ("alibi-detect", False, None),
    ],
)
def test_without_the_extra_scipy_judges_and_who_asks_for_what_is_not_there_is_told(
    name: str, is_installed: bool, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alibi, "find_spec", lambda _: object() if is_installed else None)
    if chosen is None:
        with pytest.raises(SettingsError, match=r"fraud-detection\[alibi\]"):
            alibi.chosen_detector(name)
    else:
        assert alibi.chosen_detector(name).__name__ == chosen
