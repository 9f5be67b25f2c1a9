"""What acts by itself: what it launches, and when it leaves things alone."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_assets.definitions import build
from fraud_assets.installation import Installation
from fraud_assets.schedule import proposals
from fraud_assets.schedule import sensors as automation
from fraud_assets.schedule.proposals import next_fraud_rates, next_training
from fraud_assets.schedule.sensors import next_landing, next_partition
from fraud_assets.stages.volume import FRAUD_RATE
from fraud_core import gate
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.models.bundle import make_bundle, write_bundle
from fraud_core.models.manifest import Calibration, Lineage, Thresholds
from fraud_core.models.registry import point_at
from fraud_core.settings import Settings
from fraud_core.storage.artifacts import Estimator
from tests.stores import remove

QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
NOW = datetime(2024, 3, 1, tzinfo=UTC)
SOURCE = """
name = "files"
paths = ["data/*.csv"]
timezone = "UTC"
cadence = "weekly"
first = "2024-01-01"
last = "2024-12-30"
label_delay_days = 1
history_days = 6

[columns]
timestamp = { column = "at", formats = ["%Y-%m-%d %H:%M:%S"] }
amount = "amount"
label = "fraud"
card = "card"
"""
WEEKS = ("2024-01-01", "2024-01-08", "2024-01-15")


@dataclass
class Files:
    """An installation that reads CSV files, and the Dagster instance on which its runs go."""

    folder: Path
    installation: Installation
    instance: dg.DagsterInstance

    def write(self, name: str, *days: str, rows: int = 40) -> Path:
        """A file with some rows on each of these days."""
        path = self.folder / "data" / name
        path.parent.mkdir(exist_ok=True)
        lines = [
            f"{day} {i % 24:02d}:00:{i % 60:02d},{i + 1}.50,{int(i % 10 == 0)},card{i % 7}" for day in days for i in range(rows)
        ]
        path.write_text("\n".join(["at,amount,fraud,card", *lines]) + "\n")
        return path

    def launch(self, step: proposals.Proposal, job: str) -> bool:
        """What the daemon does with a request."""
        (request,) = step.result().run_requests or ()
        assert request.run_key
        run = (
            build(self.installation)
            .resolve_job_def(job)
            .execute_in_process(
                instance=self.instance,
                partition_key=request.partition_key,
                tags={**request.tags, "dagster/run_key": request.run_key},
                run_config=QUIET,
                raise_on_error=False,
            )
        )
        return run.success

    def land(self) -> None:
        """Land without asking the sensor."""
        assert self.launch(proposals.Proposal("test", run_key=f"land {datetime.now(UTC)}"), "land")

    def partition(self, now: datetime = NOW) -> proposals.Proposal:
        return next_partition(self.installation, self.instance, now)

    def take_all(self) -> list[str]:
        """Take partitions until the sensor asks for none; which these were."""
        taken: list[str] = []
        while (step := self.partition()).run_key is not None:
            assert step.partition is not None
            taken.append(step.partition)
            self.launch(step, "materialize_partition")
            assert len(taken) < 20
        return taken


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    (tmp_path / "files.toml").write_text(SOURCE)
    settings = Settings(
        _env_file=None,
        home=tmp_path / "home",
        source=tmp_path / "files.toml",
        drift_detector="scipy",
        dvc_remote="off",
        mlflow_url="off",
    )
    instance = dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))
    yield Files(tmp_path, Installation.load(settings), instance)
    instance.dispose()


# ---- new files


def test_without_files_it_waits(files: Files) -> None:
    step = next_landing(files.installation, None)
    assert step.run_key is None
    assert "data/*.csv" in step.why


def test_new_files_land_once_they_are_the_same_on_two_looks(files: Files) -> None:
    files.write("a.csv", "2024-01-02")
    first = next_landing(files.installation, None)
    assert first.run_key is None
    second = next_landing(files.installation, first.cursor)
    assert second.run_key is not None
    third = next_landing(files.installation, second.cursor)
    assert (third.run_key, third.why) == (None, "No file is new or changed.")


def test_a_file_that_still_grows_is_left_alone(files: Files) -> None:
    files.write("a.csv", "2024-01-02")
    cursor = next_landing(files.installation, None).cursor
    for rows in (41, 42, 43):
        files.write("a.csv", "2024-01-02", rows=rows)
        step = next_landing(files.installation, cursor)
        assert step.run_key is None
        cursor = step.cursor
    assert next_landing(files.installation, cursor).run_key is not None


@pytest.mark.parametrize("change", ["another", "rewritten", "gone"])
def test_every_change_of_the_files_lands_again(files: Files, change: str) -> None:
    path = files.write("a.csv", "2024-01-02")
    files.write("b.csv", "2024-01-03")
    step = next_landing(files.installation, next_landing(files.installation, None).cursor)
    match change:
        case "another":
            files.write("c.csv", "2024-01-09")
        case "rewritten":  # the same size
            stat = path.stat()
            path.write_text(path.read_text().replace("card1", "card2"))
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        case "gone":
            path.unlink()
    waiting = next_landing(files.installation, step.cursor)
    assert waiting.run_key is None
    assert next_landing(files.installation, waiting.cursor).run_key not in {None, step.run_key}


def test_files_read_otherwise_land_again(files: Files) -> None:
    files.write("a.csv", "2024-01-02")
    step = next_landing(files.installation, next_landing(files.installation, None).cursor)
    columns = files.installation.source.columns.model_copy(update={"card": None})
    other = replace(files.installation, source=files.installation.source.model_copy(update={"columns": columns}))
    waiting = next_landing(other, step.cursor)
    assert next_landing(other, waiting.cursor).run_key not in {None, step.run_key}


def test_what_somebody_landed_by_hand_is_not_landed_again(files: Files) -> None:
    files.write("a.csv", "2024-01-02")
    files.land()
    assert next_landing(files.installation, None).run_key is None
    files.write("b.csv", "2024-01-03")
    assert next_landing(files.installation, next_landing(files.installation, None).cursor).run_key is not None


def test_the_simulator_lands_once(files: Files) -> None:
    simulated = Path(__file__).parents[4] / "sources" / "simulated.toml"
    installation = Installation.load(
        files.installation.settings.model_copy(update={"source": simulated, "home": files.folder / "other"})
    )
    step = next_landing(installation, None)
    assert step.run_key is not None
    assert next_landing(installation, step.cursor).run_key is None


# ---- partitions


def test_partitions_are_taken_oldest_first_and_one_at_a_time(files: Files) -> None:
    files.write("a.csv", *WEEKS)
    assert files.partition().run_key is None, "nothing has landed"
    files.land()
    assert files.take_all() == list(WEEKS)
    assert set(files.installation.transformed()) == set(WEEKS)


def test_a_partition_is_taken_when_its_time_is_over(files: Files) -> None:
    files.write("a.csv", "2024-01-02")
    files.land()
    assert files.partition(datetime(2024, 1, 7, 23, tzinfo=UTC)).run_key is None
    assert files.partition(datetime(2024, 1, 8, tzinfo=UTC)).partition == "2024-01-01"


def test_after_the_last_rows_no_partition_is_taken_and_between_them_every_one(files: Files) -> None:
    files.write("a.csv", "2024-01-02", "2024-01-16")
    files.land()
    assert files.take_all() == list(WEEKS)


def test_while_a_run_is_under_way_nothing_is_taken(files: Files) -> None:
    files.write("a.csv", "2024-01-02")
    files.land()
    run = files.instance.create_run_for_job(build(files.installation).resolve_job_def("land"))
    files.instance.report_run_canceling(run)
    now = datetime.now(UTC)
    assert files.partition(now).why == "A run of land is under way."
    assert next_training(files.installation, files.instance, now).why == "A run of land is under way."
    assert files.partition(now + timedelta(days=1)).run_key is not None, "nothing was heard of that run for too long"


def test_a_partition_that_failed_is_not_tried_again_with_the_same_data_and_the_next_one_is(files: Files) -> None:
    files.write("a.csv", "2024-01-02")
    bad = files.write("b.csv", "2024-01-03")
    bad.write_text(bad.read_text().replace(".50", ".x"))  # half of the rows are refused: the check on raw stops the run
    files.write("c.csv", "2024-01-09")
    files.land()
    assert files.take_all() == ["2024-01-01", "2024-01-08"]
    assert set(files.installation.transformed()) == {"2024-01-08"}
    files.write("b.csv", "2024-01-03")
    files.land()
    assert files.take_all()[0] == "2024-01-01"
    assert set(files.installation.transformed()) == {"2024-01-01", "2024-01-08"}


def test_a_partition_waits_for_those_it_looks_back_into(files: Files) -> None:
    files.write("a.csv", *WEEKS)
    files.land()
    step = files.partition()
    assert files.instance.get_runs_count() == 1
    files.instance.create_run_for_job(  # the first week was tried, and its run died before raw was made
        build(files.installation).resolve_job_def("materialize_partition"),
        tags={"dagster/run_key": str(step.run_key), "dagster/partition": WEEKS[0]},
        status=dg.DagsterRunStatus.FAILURE,
    )
    assert files.partition().run_key is None


def test_a_new_file_makes_anew_only_what_it_touches(files: Files) -> None:
    files.write("a.csv", *WEEKS, "2024-01-22")
    files.land()
    files.take_all()
    files.write("late.csv", "2024-01-10")
    files.land()
    assert files.take_all() == ["2024-01-08", "2024-01-15"], "the week itself, and the one that looks back into it"


def test_a_removed_verdict_is_left_to_a_person(files: Files) -> None:
    files.write("a.csv", *WEEKS)
    files.land()
    files.take_all()
    files.instance.wipe()  # not even the memory of what was tried
    remove(files.installation.artifacts.store, gate.verdict_key(WEEKS[1]))
    assert files.partition().run_key is None


def test_a_partition_that_somebody_made_anew_without_its_checks_is_judged(files: Files) -> None:
    files.write("a.csv", *WEEKS)
    files.land()
    files.take_all()
    files.write("late.csv", "2024-01-17")
    files.land()
    alone = dg.define_asset_job("alone", dg.AssetSelection.assets("raw", "quarantine", "transformed").without_checks())
    definitions = dg.Definitions.merge(build(files.installation), dg.Definitions(jobs=[alone]))
    definitions.resolve_job_def("alone").execute_in_process(instance=files.instance, partition_key=WEEKS[2], run_config=QUIET)
    step = files.partition()
    assert step.partition == WEEKS[2]
    files.launch(step, "materialize_partition")
    verdict = gate.read_verdict(files.installation.artifacts.store, files.installation.artifacts.signing_key, WEEKS[2])
    assert verdict is not None
    assert verdict.content == files.installation.transformed()[WEEKS[2]].content
    assert files.partition().run_key is None


# ---- training


def champion_on(installation: Installation, training_set: str) -> None:
    """A champion that says it was trained on this set; its model is no model."""
    artifacts = installation.artifacts
    bundle = make_bundle(
        source="bench",
        timezone="UTC",
        feature_version=1,
        kind="linear",
        model=training_set.encode(),
        encoder=Encoder(columns=(ColumnEncoding(feature="log_amount", missing=0.0),)),
        calibration=Calibration(slope=1.0, intercept=0.0),
        thresholds=Thresholds(review=0.5, decline=0.9),
        lineage=Lineage(training_set=training_set, partitions=(), card_key_id="some", libraries={}),
    )
    write_bundle(artifacts.store, bundle, artifacts.signing_key)
    point_at(artifacts.store, bundle.version, artifacts.signing_key, how="promotion", who="test", at=NOW)


def trained_with(installation: Installation, inputs: str) -> None:
    """The last training had these inputs."""
    installation.artifacts.write("model", None, Estimator(fitted={"inputs": inputs}, inputs=inputs, facts={"version": "v"}))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        yield made


def tried(instance: dg.DagsterInstance, step: proposals.Proposal) -> None:
    """The step was launched, and its run failed."""
    job = dg.GraphDefinition("train").to_job()
    instance.create_run_for_job(job, tags={"dagster/run_key": str(step.run_key)}, status=dg.DagsterRunStatus.FAILURE)


def test_training_is_launched_when_the_accepted_set_is_another_than_the_champions(
    bench: Any, instance: dg.DagsterInstance
) -> None:
    champion_on(bench.installation, "of long ago")
    step = next_training(bench.installation, instance, NOW)
    assert step.run_key is not None
    assert "accepts 6 partitions" in step.why


def test_training_is_launched_where_there_is_no_champion(bench: Any, instance: dg.DagsterInstance) -> None:
    assert next_training(bench.installation, instance, NOW).run_key is not None


def test_on_the_champions_own_set_nothing_is_launched(bench: Any, instance: dg.DagsterInstance) -> None:
    champion_on(bench.installation, gate.fingerprint(bench.installation.training_set()))
    step = next_training(bench.installation, instance, NOW)
    assert step.run_key is None
    assert "trained on exactly these partitions" in step.why


def test_what_was_trained_and_not_promoted_is_not_trained_again(bench: Any, instance: dg.DagsterInstance) -> None:
    champion_on(bench.installation, "of long ago")
    trained_with(bench.installation, bench.installation.training_task(bench.installation.training_set()).inputs)
    assert next_training(bench.installation, instance, NOW).why == "The last training was on exactly these partitions."


def test_a_training_that_failed_is_not_launched_again_until_something_changes(bench: Any, instance: dg.DagsterInstance) -> None:
    tried(instance, next_training(bench.installation, instance, NOW))
    step = next_training(bench.installation, instance, NOW)
    assert step.run_key is None
    assert "was tried" in step.why
    bench.fill({"2024-06": bench.rows(seed=9)["2024-06"]})
    assert next_training(bench.installation, instance, NOW).run_key is not None


def test_a_set_that_comes_back_after_another_is_trained_again(bench: Any, instance: dg.DagsterInstance) -> None:
    first = next_training(bench.installation, instance, NOW)
    tried(instance, first)
    champion_on(bench.installation, "another set in between")
    trained_with(bench.installation, "another set in between")
    assert next_training(bench.installation, instance, NOW).run_key not in {None, first.run_key}


def test_a_rejected_partition_launches_no_training(bench: Any, instance: dg.DagsterInstance) -> None:
    champion_on(bench.installation, gate.fingerprint(bench.installation.training_set()))
    bench.fill({"2024-07": bench.rows()["2024-06"]}, rejected=("2024-07",))
    assert next_training(bench.installation, instance, NOW).run_key is None


def test_a_partition_that_is_not_judged_holds_training_back_with_the_gates_sentence(
    bench: Any, instance: dg.DagsterInstance
) -> None:
    remove(bench.installation.artifacts.store, gate.verdict_key("2024-03"))
    step = next_training(bench.installation, instance, NOW)
    assert step.run_key is None
    assert "Partition 2024-03 is materialized but has no drift verdict" in step.why


def test_with_too_little_data_it_waits(new_bench: Any, instance: dg.DagsterInstance) -> None:
    empty = new_bench()
    empty.fill({"2024-01": empty.rows()["2024-01"]})
    step = next_training(empty.installation, instance, NOW)
    assert step.run_key is None
    assert "Not yet trainable" in step.why


def test_partitions_on_their_way_come_before_training(files: Files) -> None:
    files.write("a.csv", *WEEKS)
    files.land()
    assert next_training(files.installation, files.instance, NOW).why == f"Partition {WEEKS[0]} comes first."


# ---- fraud rates


def judged_again(files: Files, cursor: str | None) -> tuple[dict[str, int], str | None]:
    """Mature rows of the partitions that are judged again, in the run that the sensor launches; and its cursor."""
    step = next_fraud_rates(files.installation, files.instance, NOW, cursor)
    if step.run_key is None:
        return {}, step.cursor
    run = (
        build(files.installation)
        .resolve_job_def("repeat_fraud_rates")
        .execute_in_process(instance=files.instance, run_config=QUIET | dict(step.config or {}))
    )
    evaluations = run.get_asset_check_evaluations()
    assert {evaluation.asset_check_key for evaluation in evaluations} == {FRAUD_RATE}
    return {str(each.partition): each.metadata["mature_rows"].value for each in evaluations}, step.cursor  # type: ignore[misc]


def test_fraud_rates_are_judged_again_when_labels_have_matured(files: Files) -> None:
    files.write("a.csv", *(f"2024-01-{day:02d}" for day in range(1, 15)), rows=60)
    files.land()
    files.take_all()
    counted, cursor = judged_again(files, None)
    assert counted == {"2024-01-01": 420, "2024-01-08": 360}, "the last day's labels are not known yet"
    assert judged_again(files, cursor) == ({}, cursor)

    files.write("b.csv", "2024-01-15", "2024-01-16")
    files.land()
    files.take_all()
    counted, cursor = judged_again(files, cursor)
    assert counted == {"2024-01-08": 420, "2024-01-15": 40}
    assert judged_again(files, cursor) == ({}, cursor)


def test_many_matured_partitions_are_judged_in_several_runs(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "MATURED_AT_ONCE", 1)
    files.write("a.csv", *WEEKS)
    files.land()
    files.take_all()
    cursor, judged = None, []
    for _ in range(4):
        counted, cursor = judged_again(files, cursor)
        judged += list(counted)
    assert judged == list(WEEKS[:2]), "of the last week no label is mature"


# ---- the sensors


@pytest.mark.parametrize(("switch", "expected"), [("on", "RUNNING"), ("off", "STOPPED")])
def test_everything_that_makes_is_switched_by_one_setting_and_what_tells_others_always_runs(
    files: Files, switch: str, expected: str
) -> None:
    settings = files.installation.settings.model_copy(update={"automation": switch})
    sensors = {sensor.name: sensor for sensor in automation.build(replace(files.installation, settings=settings))}
    assert {sensors.pop(name).default_status.value for name in ("alert", "deliver")} == {"RUNNING"}
    assert {name: sensor.default_status.value for name, sensor in sensors.items()} == dict.fromkeys(
        ["new_files", "due_partitions", "new_labels", "accepted_partitions", "matured_labels", "stale_history", "served_day"],
        expected,
    )


def test_nothing_else_acts_by_itself(files: Files) -> None:
    definitions = build(files.installation)
    assert {sensor.name for sensor in definitions.sensors or ()} == {
        sensor.name for sensor in automation.build(files.installation)
    }
    assert not definitions.schedules
    graph = definitions.resolve_asset_graph()
    assert [node.key for node in graph.asset_nodes if node.automation_condition is not None] == []


def test_left_alone_the_sensors_take_files_to_judged_partitions(files: Files) -> None:
    """Every sensor of the definitions, as the daemon ticks them."""
    files.write("a.csv", *WEEKS)
    definitions = build(files.installation)
    sensors = {sensor.name: sensor for sensor in definitions.sensors or ()}
    cursors: dict[str, str | None] = dict.fromkeys(sensors)
    launched: list[str] = []
    for _ in range(8):
        for name, sensor in sensors.items():
            with dg.build_sensor_context(instance=files.instance, cursor=cursors[name], definitions=definitions) as context:
                ticked = sensor.evaluate_tick(context)
            cursors[name] = ticked.cursor or cursors[name]
            for request in ticked.run_requests:
                launched.append(f"{sensor.job_name} {request.partition_key or ''}".strip())
                definitions.resolve_job_def(sensor.job_name).execute_in_process(
                    instance=files.instance,
                    partition_key=request.partition_key,
                    tags={**request.tags, "dagster/run_key": str(request.run_key)},
                    run_config={**QUIET, **request.run_config},
                    raise_on_error=False,
                )
    taken = [f"materialize_partition {week}" for week in WEEKS]
    assert launched == ["land", *taken, "repeat_fraud_rates"], "too few rows: none is accepted, none trains or reaches the scorer"
