"""A field of one's own is two lines of TOML: from then on it is learned, judged for drift, asked for, and named as a reason."""

from pathlib import Path

import polars as pl
import pytest

from fraud_api.app import create_app
from fraud_core.gate.records import verdict_of
from fraud_core.transactions.transaction import EXAMPLE
from tests.few_trees import few_trees
from tests.home import Home
from tests.simulated import SHORT, WEEKS, five_weeks
from tests.unit.fraud_api.conftest import Caller

pytestmark = pytest.mark.integration

OWN = '\n[fields.entry_mode]\nkind = "category"\n'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Five weeks of payments in a file, which has a column that nobody has declared."""
    rows = five_weeks()
    typed = pl.when(pl.col("label").cast(pl.Boolean)).then(pl.col("transaction_id").hash(1) % 10 < 9)
    entered = typed.otherwise(pl.col("transaction_id").hash(2) % 10 < 1)
    modes = pl.when(entered).then(pl.lit("typed")).otherwise(pl.lit("chip"))
    amounts = (pl.col("amount_cents") / 100).alias("amount")
    rows.with_columns(amounts, modes.alias("entry_mode")).drop("kind", "amount_cents").write_parquet(
        tmp_path / "payments.parquet"
    )
    simulator = SHORT[SHORT.index("[simulator]") : SHORT.index("[split]")]
    source = SHORT.replace(simulator, "").replace('timezone = "UTC"', 'timezone = "UTC"\npaths = ["payments.parquet"]')
    (tmp_path / "small.toml").write_text(source.replace('"2024-02-05"', '"2024-01-29"'))
    return Home(tmp_path)


def trained(home: Home) -> None:
    """Take every partition through the graph, and train."""
    assert home.run("land").success
    for week in WEEKS:
        done = home.run("materialize_partition", week)
        assert done.success, [evaluation.description for evaluation in done.get_asset_check_evaluations()]
    with few_trees():
        assert home.run("train").success


def test_two_lines_of_toml_bring_a_field_to_training_drift_api_and_reasons(home: Home) -> None:
    trained(home)
    payment = {name: value for name, value in EXAMPLE.items() if name != "transaction_id"} | {"timestamp": "2024-01-30T12:00:00Z"}
    with Caller(create_app(home.installation.settings, asks_for_keys=False)) as api:
        assert "entry_mode" not in api.get("/v1/model").json()["features"]
        assert api.post("/v1/score", json=payment | {"entry_mode": "typed"}).status_code == 422

        home.source.write_text(home.source.read_text() + OWN)
        home.load()
        # What is judged for drift is a rule of the gate, which a person lets change.
        confirmed = {"who": "ann", "reason": "the entry mode was declared"}
        assert home.run("confirm_rules", config={"ops": {"confirm": {"config": confirmed}}}).success
        trained(home)
        bundle = home.installation.artifacts.estimator("model").bundle
        assert "entry_mode" in bundle.encoder.features
        store, key = home.installation.artifacts.store, home.installation.artifacts.signing_key
        verdict = verdict_of(store, key, WEEKS[-1], home.installation.heads).follow()
        assert verdict is not None
        assert "entry_mode" in {result.name for result in verdict.features}

        api.app.state.services.follower.poll()
        assert "entry_mode" in api.get("/v1/model").json()["features"]
        answers = {
            mode: api.post("/v1/score?explain=true", json=payment | {"entry_mode": mode}).json() for mode in ("typed", "chip")
        }
        assert answers["typed"]["probability"] > answers["chip"]["probability"]
        (reason,) = [one for one in answers["typed"]["explanation"]["reasons"] if one["feature"] == "entry_mode"]
        assert reason["sentence"] == 'The entry mode "typed" raises the risk.'
        assert "entry_mode" in api.get("/openapi.json").text
