"""A small installation: eight weeks of simulated payments, of which the last has drifted."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg

from fraud_assets.definitions import build
from fraud_assets.installation import Installation
from fraud_core.settings import Settings
from tests.commands import Finished, fraud
from tests.simulated import COLUMNS
from tests.stores import store_settings

WEEKS = ("2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29", "2024-02-05", "2024-02-12", "2024-02-19")
ACCEPTED = WEEKS[-2]
DRIFTED = WEEKS[-1]

# 200 cards; in the last week amounts are three times as large.
SOURCE = (
    """
name = "small"
timezone = "UTC"
cadence = "weekly"
first = "2024-01-01"
last = "2024-02-19"
label_delay_days = 1
history_days = 7

[simulator]
seed = 3
cardholders = 200
merchants = 120
transactions_per_card_per_day = 0.5
fraud_rate = 0.06
shift_from = 2024-02-19
amount_factor = 3.0

[simulator.kinds]
card_testing = 3
account_takeover = 3

[split]
protocol = "time"
holdout_days = 14
validation_days = 7
training_days = 14

[drift]
bootstrap_partitions = 3
reference_partitions = 4
"""
    + COLUMNS
)

# Whatever is trained is good enough to be promoted: nothing but the gate stands between it and the pointer.
EASY: dict[str, Any] = {"promotion_margin": 1.0, "promotion_decline": 1.0, "promotion_lift": 1.0}
QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Home:
    """An installation, and the Dagster instance on which its jobs run."""

    path: Path
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.path / "dagster").mkdir(exist_ok=True)
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(self.path / "dagster"))
        self.load()

    def close(self) -> None:
        """Let go of the instance."""
        self.instance.dispose()

    def load(self) -> None:
        """Read the TOML, and define everything."""
        self.installation = Installation.load(
            Settings(_env_file=None, home=self.path / "home", source=self.source, **self.settings)
        )
        self.definitions = build(self.installation)

    @property
    def source(self) -> Path:
        """The TOML."""
        return self.path / "small.toml"

    @property
    def settings(self) -> dict[str, Any]:
        """What is set otherwise than by default."""
        few = {"drift_detector": "scipy", "threads": 1, "min_holdout_frauds": 10, "bootstrap_draws": 100}
        few |= {"dvc_remote": "off", "mlflow_url": "off"}
        return few | EASY | store_settings(self.path) | self.options

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables."""
        given = {"home": self.path / "home", "source": self.source, **self.settings}
        return {f"FRAUD_{name.upper()}": str(value) for name, value in given.items()}

    def run(
        self,
        job: str,
        partition: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run a job."""
        return self._execute(self.definitions.resolve_job_def(job), partition, tags, config)

    def run_alone(self, assets: Sequence[str], partition: str | None = None) -> dg.ExecuteInProcessResult:
        """Materialize some assets without any check, as one may from the UI."""
        alone = dg.define_asset_job("alone", dg.AssetSelection.assets(*assets).without_checks())
        job = dg.Definitions.merge(self.definitions, dg.Definitions(jobs=[alone])).resolve_job_def("alone")
        if partition is None or job.partitions_def is not None:
            return self._execute(job, partition, None, None)
        return self._execute(job, None, {"dagster/partition": partition}, None)  # as a run has it that begins with partitions

    def _execute(
        self,
        job: dg.JobDefinition,
        partition: str | None,
        tags: Mapping[str, str] | None,
        config: Mapping[str, Any] | None,
    ) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=self.instance,
            partition_key=partition,
            run_config={**QUIET, **(config or {})},
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def fraud(self, *arguments: str) -> Finished:
        """Carry out a command of `fraud` on this installation, in this process."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("FRAUD_", "DAGSTER_"))}
        with mock.patch.dict(os.environ, others | self.environment, clear=True):
            return fraud(*arguments)

    def decide(self, action: str, partition: str, reason: str = "seen and discussed") -> dg.ExecuteInProcessResult:
        """Run the job with which a person accepts or refuses."""
        config = {"reason": reason, "who": "ann"}
        return self.run(f"{action}_partition", partition, config={"ops": {action: {"config": config}}})

    def latest(self) -> bytes:
        """The pointer to the champion, byte by byte."""
        return self.installation.artifacts.store.get("models/latest.json")

    def rewrite(self, old: str, new: str) -> None:
        """Change the TOML, and load the installation anew."""
        text = self.source.read_text()
        assert old in text
        self.source.write_text(text.replace(old, new))
        self.load()
