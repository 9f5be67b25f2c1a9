"""The gate's calibration, as it is told."""

import pytest

from fraud_assets.reports import calibration as reports
from fraud_core import gate
from fraud_core.gate import calibration, statistics
from fraud_core.gate.calibration import Rate
from fraud_core.sources.source import Drift


def test_the_report_holds_both_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "false_alarms", lambda detector: [(calibration.random_portfolio(3), Rate(1, 50))])
    monkeypatch.setattr(calibration, "power", lambda rows, detector: {s.name: Rate(7, 200) for s in calibration.shifts()})
    text = reports.report()
    assert "**1 of 50: 2.0% (0.1% to 10.6%)**" in text
    assert "| shift | 1,000 rows | 10,000 rows | 100,000 rows |" in text
    assert "| hour + 6 | 3.5% (1.4% to 7.1%) |" in text


def test_a_walk_shows_verdicts_and_distances() -> None:
    portfolio = calibration.weekly_portfolio(5, 1_000)
    walked = gate.walk_forward(
        portfolio.walked(4),
        features=calibration.watched(),
        settings=Drift(),
        seed=1,
        detector=statistics.scipy_detector,
        now=calibration.NOW,
    )
    lines = reports.walk_table(walked).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == ["bootstrap", "bootstrap", "bootstrap", "accepted"]
    hour = walked[3].verdict.features[1]
    assert f"{hour.distance:.3f} ({hour.excess:.3f})" in lines[-1]
