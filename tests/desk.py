"""The desk as it runs, for tests: an installation with everything that can be shown, and its process."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import httpx
import numpy as np
import polars as pl
from playwright.sync_api import expect

from fraud_assets.delivery import delivery
from fraud_assets.delivery.mlflow.records import Logged
from fraud_assets.reports import plots
from fraud_assets.stages import champion
from fraud_assets.training.card import model_card
from fraud_assets.training.split import Block, Split
from fraud_assets.training.training import SideCount, TrainedModel
from fraud_core import gate
from fraud_core.access.users import Users
from fraud_core.decisions.log import DecisionLog
from fraud_core.evaluation.intervals import Interval
from fraud_core.evaluation.model_card import Promotion
from fraud_core.evaluation.report import EvaluationRows, Policy, Report, evaluate
from fraud_core.features import catalogue
from fraud_core.gate import PartitionRef, TrainingSet
from fraud_core.gate.statistics import scipy_detector
from fraud_core.labels.log import LabelLog
from fraud_core.models.bundle import Bundle
from fraud_core.models.scorer import Scorer
from fraud_core.sources.source import Drift
from fraud_core.storage.artifacts import Artifacts, Table
from fraud_core.storage.database import open_database
from fraud_ui.sign_in import cookie_name
from tests.api_server import eventually
from tests.scored import decide, suspicious

DRIFT = Drift(bootstrap_partitions=1, reference_partitions=2)
PATIENCE = 240.0  # seconds that a process may take to start, on a machine with other work
expect.set_options(timeout=60_000)  # a machine with other work is no fault of the page


@cache
def figures() -> tuple[Policy, Report]:
    """Figures of random rows."""
    rng = np.random.default_rng(5)
    n = 3_000
    scores = 1 / (1 + np.exp(-rng.normal(-3, 2.5, n)))
    rows = EvaluationRows(
        labels=rng.random(n) < scores,
        scores=scores,
        amounts_cents=np.round(100 * rng.lognormal(3.5, 1.2, n)).astype(np.int64),
        cards=rng.integers(0, 300, n),
        local_day=18_400 + np.sort(rng.integers(0, 40, n)),
        month=np.array(["2020-06"] * n),
    )
    policy = Policy(
        review_threshold=0.4,
        decline_threshold=0.8,
        review_cost=5.0,
        false_decline_cost=30.0,
        label_delay_days=7,
        draws=100,
        seed=1,
        min_frauds=30,
    )
    return policy, evaluate(rows, policy)


def trained(bundle: Bundle) -> TrainedModel:
    """A bundle as a training hands it over."""
    policy, report = figures()
    block = Block(start=datetime(2020, 5, 18, tzinfo=UTC), end=datetime(2020, 6, 27, tzinfo=UTC))
    return TrainedModel(
        bundle=bundle,
        estimator=None,
        split=Split(training=block, validation_a=block, validation_b=block, holdout=block),
        sides={"holdout": SideCount(report.rows, report.frauds)},
        candidates=(("boosting", 0.9),),
        candidates_fraud_rate=0.05,
        policy=policy,
        validation=report,
        holdout=report,
        holdout_without_rejected=None,
        holdout_id="0" * 16,
        holdout_looks=2,
    )


def write_run(installation: Any, number: int, before: str | None) -> None:
    """What pipeline and delivery to MLflow write of a training, by their own hands; pictures are empty: the desk shows none."""
    artifacts = Artifacts(installation.store, installation.key)
    place: Any = SimpleNamespace(artifacts=artifacts, settings=installation.settings)
    model, run = trained(installation.bundle(number)), f"{number}f00ba12-3c"
    accepted = tuple(PartitionRef(partition=key, content=content) for key, content, _ in model.bundle.manifest.lineage.partitions)
    rows = pl.DataFrame({"hour": np.arange(1_000) % 24})
    judged = [judge_anew(rows, part.partition, part.content, 0, gate.Walk(DRIFT)).verdict for part in accepted]
    allowed = TrainingSet(accepted, (), {verdict.partition: verdict for verdict in judged})
    compared: dict[str, Any] = {"difference": 0.0123, "interval": Interval(0.004, 0.02)} if before else {}
    promotion = Promotion(promoted=True, reasons=("It is good enough.",), champion=before, **compared)
    no_picture = mock.Mock(return_value=b"")
    with mock.patch.multiple(plots, pr_plot=no_picture, calibration_plot=no_picture, cost_plot=no_picture):
        champion._write_run(place, model, model_card(model, allowed, promotion, datetime.now(UTC)), run, None)
    # Of a training that is delivered to MLflow, this much is read.
    noted: Any = SimpleNamespace(run_id=run, model=SimpleNamespace(facts={"version": model.bundle.version}))
    delivery._write_beside_card(place, noted, Logged("7", "http://127.0.0.1:5000/#/experiments/1/runs/7"))


def judge_anew(frame: pl.DataFrame, key: str, content: str, position: int, walk: gate.Walk) -> gate.Judgement:
    """The gate's judgement on a partition."""
    return gate.judge(
        partition=key,
        content=content,
        frame=frame,
        features=[feature for feature in catalogue.PLAIN if feature.name in frame.columns],
        past=walk.past(key),
        position=position,
        settings=DRIFT,
        seed=1,
        detector=scipy_detector,
        now=datetime.now(UTC),
    )


def furnish(installation: Any) -> list[str]:
    """Two versions with cards and runs, and three partitions, the last rejected; returns the versions, newest first."""
    names: list[str] = []
    for number in (1, 2):
        names.insert(0, installation.promote(number))
        write_run(installation, number, names[1] if number > 1 else None)
    artifacts = Artifacts(installation.store, installation.key)
    walk = gate.Walk(DRIFT)
    rng = np.random.default_rng(9)
    for place, key in enumerate(("2024-01", "2024-02", "2024-03")):
        frame = pl.DataFrame(
            {
                "log_amount": rng.normal(3 + 2 * (place == 2), 1, 2_000),
                "hour": rng.integers(0, 24, 2_000),
                "category": rng.choice(["travel", "misc_net"], 2_000),
            }
        )
        artifacts.write("transformed", key, Table(frame=frame, content=f"c{place}", inputs="i"))
        judgement = judge_anew(frame, key, f"c{place}", place, walk)
        gate.record(installation.store, installation.key, judgement)
        walk.add(judgement)
    return names


@dataclass
class DeskServer:
    """A running desk. `versions` are its own, newest first.

    Attributes:
        installation: where its models are.
        folder: for its log.
        variables: of its process, beside the usual ones.
        furnished: whether there are models, partitions, and sixty cases to review; else it is as on the first day.
    """

    installation: Any
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    furnished: bool = True
    url: str = ""

    def __enter__(self) -> "DeskServer":
        self.settings = self.installation.settings
        if self.furnished:
            self.versions = furnish(self.installation)
            self.scorer = Scorer(self.installation.bundle(2))
        self.log = self.folder / "desk.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD_")}
        named = {"FRAUD_HOME": str(self.settings.home), "FRAUD_POLL_SECONDS": "0.2", "FRAUD_UI_AUTH": "users"}
        command = [sys.executable, "-m", "fraud_cli.main", "ui", "--port", "0"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, env=clean | named | self.variables, stdout=out, stderr=out)
        found = eventually(
            lambda: re.search(r"desk on (http://\S+:\d+)", self.log.read_text()) or self.process.poll() is not None,
            seconds=PATIENCE,
        )
        assert found is not True, self.log.read_text()
        self.url = found[1]
        eventually(self._answers, seconds=PATIENCE)
        self.engine = open_database(self.settings)
        self.users, self.decisions, self.labels = Users(self.engine), DecisionLog(self.engine, 400), LabelLog(self.engine)
        if self.furnished:
            self.fill_queue()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.engine.dispose()

    def fill_queue(self) -> None:
        """Decide sixty payments that are to be reviewed."""
        decide(self.settings, [suspicious(number) for number in range(60)])

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def cookie_name(self) -> str:
        """The name of this desk's cookie."""
        return cookie_name({"host": self.url.removeprefix("http://")})

    def cookie(self, name: str, password: str) -> str:
        """The cookie of somebody who signed in."""
        answer = httpx.post(f"{self.url}/sign-in", data={"name": name, "password": password}, timeout=60)
        assert answer.status_code == 303, answer.text
        return answer.cookies[self.cookie_name]

    def newcomer(self, name: str, role: str = "analyst") -> str:
        """A new user's cookie."""
        _, password = self.users.create(name, role)
        return self.cookie(name, password)
