"""What the windows of merchants add, where a payment says nothing but time, amount, card and terminal.

Terminals are compromised for four weeks, in which most of what they charge their usual customers is fraud. One training has all
features, the other does without the windows of merchants; rows, split and candidates are the same.
"""

from pathlib import Path
from typing import Any

from tests import history_features
from tests.proofs.conftest import Record, pipeline

SOURCE = """
name = "terminals"
timezone = "UTC"
cadence = "monthly"
first = "2023-01"
last = "{last}"
label_delay_days = 7
excluded_features = {excluded}

[simulator]
seed = 20
cardholders = {cardholders}
merchants = {merchants}
transactions_per_card_per_day = 0.8
fraud_rate = {fraud_rate}

[simulator.kinds]
compromised_merchant = 1

[split]
protocol = "time"
holdout_days = {block}
validation_days = {block}
training_days = 60

[columns]
transaction_id = "transaction_id"
timestamp = "timestamp"
amount = "amount"
label = "label"
card = "card"
merchant = "merchant"
"""
WINDOWS = [feature.name for feature in history_features.HISTORY if feature.needs == {"merchant"}]
REDUCED = {"last": "2023-07", "cardholders": 400, "merchants": 400, "fraud_rate": 0.03, "block": 28}
FULL = {"last": "2024-02", "cardholders": 1_500, "merchants": 1_200, "fraud_rate": 0.02, "block": 56}


def trained(folder: Path, excluded: list[str], size: dict[str, Any]) -> dict[str, Any]:
    """The figures of a training from scratch, without some features."""
    folder.mkdir()
    toml = folder / "terminals.toml"
    toml.write_text(SOURCE.format(excluded=excluded, **size), encoding="utf-8")
    figures = pipeline(toml, folder / "home")
    assert figures["rejected"] == 0
    return figures


def test_windows_of_merchants_find_compromised_terminals(full: bool, record: Record, tmp_path: Path) -> None:
    assert WINDOWS
    size = FULL if full else REDUCED
    without = trained(tmp_path / "without", WINDOWS, size)
    with_windows = trained(tmp_path / "with", [], size)
    assert with_windows["rows"] == without["rows"]
    assert with_windows["average_precision_ci"][0] > without["average_precision_ci"][1]
    record("terminals", {"with": with_windows, "without": without})
