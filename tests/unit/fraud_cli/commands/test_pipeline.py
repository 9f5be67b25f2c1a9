"""Jobs run in this process: how each ends, and what of them needs no data."""

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_assets.installation import Installation
from fraud_cli import jobs
from fraud_cli.jobs import JobFailedError, Pipeline, rolling
from fraud_core.errors import SourceError
from fraud_core.settings import Settings
from fraud_core.sources.source import load_source

ROOT = Path(__file__).parents[4]


def test_training_after_each_partition_rolls_a_holdout_that_a_benchmark_fixes() -> None:
    fixed = load_source(ROOT / "sources" / "kaggle_sparkov.toml")
    assert fixed.split.holdout_start == date(2020, 6, 21)
    rolled = rolling(fixed)
    assert rolled.split.holdout_start is None
    assert rolled.split.validation_days == fixed.split.validation_days
    assert rolled.parse_fingerprint() == fixed.parse_fingerprint()  # nothing is read again for it


@pytest.mark.parametrize("name", ["kaggle_west_us", "simulated"])
def test_other_splits_stay_as_they_are(name: str) -> None:
    source = load_source(ROOT / "sources" / f"{name}.toml")
    assert rolling(source) == source


class Work:
    """Jobs that end in each of the ways a run can end."""

    def __init__(self, error: Exception | None, *, passed: bool = True, warned: bool = False) -> None:
        @dg.asset
        def made() -> None: ...

        @dg.asset_check(asset=made, blocking=True)
        def blocks() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=passed)

        @dg.asset_check(asset=made)
        def warns() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=not warned, severity=dg.AssetCheckSeverity.WARN)

        @dg.asset(deps=[made])
        def then() -> None:
            if error is not None:
                raise error

        jobs = [dg.define_asset_job("work")]
        self.definitions = dg.Definitions(assets=[made, then], asset_checks=[blocks, warns], jobs=jobs)


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a job that ends as asked."""

    def run(*arguments: Any, **options: Any) -> dg.ExecuteInProcessResult:
        monkeypatch.setattr(jobs, "build", lambda _: Work(*arguments, **options).definitions)
        settings = Settings(_env_file=None, home=tmp_path, source=ROOT / "sources" / "simulated.toml")
        return Pipeline(Installation.load(settings)).run("work")

    return run


def test_a_check_that_did_not_pass_is_a_result_and_no_error(at_work: Any) -> None:
    assert at_work(None).success
    assert at_work(None, warned=True).success
    assert not at_work(None, passed=False).success


def test_an_error_of_ours_is_told_as_it_is(at_work: Any) -> None:
    with pytest.raises(JobFailedError) as raised:
        at_work(SourceError("The file payments.csv has no column: label"))
    assert str(raised.value) == "The file payments.csv has no column: label"


def test_any_other_error_is_told_with_its_kind(at_work: Any) -> None:
    with pytest.raises(JobFailedError, match=r"^ZeroDivisionError: no rows$"):
        at_work(ZeroDivisionError("no rows"))


def test_an_error_beside_a_check_that_only_warns_is_not_swallowed(at_work: Any) -> None:
    with pytest.raises(JobFailedError, match="no rows"):
        at_work(ZeroDivisionError("no rows"), warned=True)
