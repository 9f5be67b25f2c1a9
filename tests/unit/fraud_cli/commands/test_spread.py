"""Handing partitions to workers: what is handed out, and what is left to this machine."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from pydantic import SecretStr

from fraud_assets.runtime import workers
from fraud_assets.schedule.state import read_states
from fraud_cli.commands import spread
from fraud_cli.commands.servers import worker
from fraud_core import gate
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from tests.home import SOURCE, WEEKS, Home

KEYS = WEEKS[:4]


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[list[Home]]:
    made = []
    for name in ("spread", "alone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "small.toml").write_text(SOURCE)
        made.append(Home(tmp_path / name, {"card_key": "ab" * 32, "signing_key": "cd" * 32}))
    yield made
    for home in made:
        home.close()


def judged(home: Home) -> dict[str, Any]:
    """The verdicts, and what raw and transformed hold."""
    artifacts = home.installation.artifacts
    verdicts = {key: gate.read_verdict(artifacts.store, artifacts.signing_key, key) for key in KEYS}
    return {
        "verdicts": {key: verdict and verdict.model_dump(exclude={"created_at"}) for key, verdict in verdicts.items()},
        "contents": {name: {key: one.sha256 for key, one in artifacts.pointers(name).items()} for name in ("raw", "transformed")},
    }


def test_partitions_made_in_any_order_and_judged_in_order_are_what_they_are_one_by_one(homes: list[Home]) -> None:
    scattered, alone = homes
    for home in homes:
        assert home.run("land").success
    for job in ("make_raw", "make_transformed"):
        for key in reversed(KEYS):
            assert scattered.run(job, key).success
    assert set(judged(scattered)["verdicts"].values()) == {None}
    for key in KEYS:
        assert scattered.run("check_partition", key).success
        assert alone.run("materialize_partition", key).success
    assert judged(scattered) == judged(alone)

    installation = scattered.installation
    assert not spread.without_raw(installation, KEYS)
    assert not spread.without_transformed(installation, KEYS)
    quality = installation.source.quality.model_copy(update={"quarantined_share": -1.0})
    tolerates_none = replace(installation, source=installation.source.model_copy(update={"quality": quality}))
    assert all(state.is_up_to_date and state.is_tolerable for state in read_states(installation, KEYS))
    assert not any(state.is_tolerable for state in read_states(tolerates_none, KEYS))


class Instance:
    """Takes runs, and loses the first on the way to its worker."""

    def __init__(self) -> None:
        self.runs: list[dg.DagsterRun] = []
        self.run_launcher = self

    def get_runs(self, filters: dg.RunsFilter) -> list[dg.DagsterRun]:
        return [run for run in self.runs if filters.tags.items() <= run.tags.items()]

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        return CheckRunHealthResult(WorkerStatus.FAILED)

    def report_run_failed(self, run: dg.DagsterRun, message: str) -> None:
        self.runs[self.runs.index(run)] = run.with_status(dg.DagsterRunStatus.FAILURE)


def test_a_run_that_was_lost_before_it_began_is_handed_out_again(homes: list[Home], monkeypatch: pytest.MonkeyPatch) -> None:
    home, said = homes[0], []
    assert home.run("land").success
    instance = Instance()

    def hand_out(installation: Any, job: str, keys: list[str], identity: str) -> None:
        for key in keys:
            lost = not instance.runs
            if not lost:
                assert home.run(job, key).success
            status = dg.DagsterRunStatus.STARTING if lost else dg.DagsterRunStatus.SUCCESS
            tags = {spread.SPREAD_TAG: identity, "dagster/partition": key}
            instance.runs.append(dg.DagsterRun(job, tags=tags, status=status))

    monkeypatch.setattr(spread, "_hand_out", hand_out)
    wanted, installation = KEYS[:2], home.installation

    def missing() -> list[str]:
        return spread.without_raw(installation, wanted)

    spread._make(installation, instance, "make_raw", missing, said.append)  # type: ignore[arg-type]
    assert said == ["make_raw: 2 partitions go to the workers", "make_raw: 1 partitions go to the workers again"]
    assert not missing()


def test_where_no_worker_answers_it_is_said_and_nothing_is_handed_out(homes: list[Home], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(workers, "answering", lambda broker: [])
    installation = SimpleNamespace(settings=SimpleNamespace(broker=SecretStr("redis://127.0.0.1:1/0")))
    spread.spread(installation, homes[0].instance, KEYS, said.append)  # type: ignore[arg-type]
    assert said == ["no worker answers, so partitions are made here"]
    assert homes[0].instance.get_runs_count() == 0


def test_a_worker_without_a_broker_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FRAUD_BROKER names the Redis"):
        worker(Settings(_env_file=None, home=tmp_path))
    assert list(tmp_path.iterdir()) == []
