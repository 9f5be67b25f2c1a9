"""What decides at the gate is changed by nobody without a trace."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fraud_core import gate
from fraud_core.errors import GateRefusalError
from fraud_core.gate.rules import RULES, changes
from fraud_core.settings import Settings
from fraud_core.signing.keys import Key, sign
from fraud_core.sources.source import Source
from fraud_core.storage.database import open_database
from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.heads import Heads
from tests.stores import remove

NOW = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
KEY = Key(b"k" * 32)
ANN: dict[str, Any] = {"who": "ann", "reason": "the source begins later", "now": NOW}


def source(**changed: Any) -> Source:
    declared = {
        "name": "cards",
        "simulator": {},
        "cadence": "monthly",
        "first": "2023-11",
        "label_delay_days": 0,
        "columns": {"timestamp": {"column": "t"}, "amount": "a", "label": {"column": "l"}, "category": "c"},
    }
    return Source.model_validate(declared | changed)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def heads(store: DirectoryStore, tmp_path: Path) -> Heads:
    return Heads(open_database(Settings(_env_file=None, home=tmp_path / "home")), store.url)


def test_the_first_start_records_what_is_declared_and_asks_nobody(store: DirectoryStore, heads: Heads) -> None:
    gate.rules_in_force(store, KEY, source(first="2023-01"), NOW, heads, record=False)  # who only asks binds nobody
    first = gate.rules_in_force(store, KEY, source(), NOW, heads)
    assert (first.sequence, first.confirmed, first.rules["drift.bootstrap_partitions"]) == (1, None, 3)
    assert gate.rules_in_force(store, KEY, source(), NOW, heads) == first
    assert first.holds(first.sha256)
    assert first.holds(""), "verdicts of the release before hold"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"drift": {"bootstrap_partitions": 99}}, "drift.bootstrap_partitions was 3 and is 99"),
        ({"drift": {"null_share": 1.0}}, "drift.null_share was 0.02 and is 1.0"),
        ({"first": "2024-06"}, 'first was "2023-11" and is "2024-06"'),
        ({"excluded_features": ["log_amount"]}, 'excluded_features was [] and is ["log_amount"]'),
        ({"columns": {"timestamp": "t", "amount": "a", "label": "l"}}, "columns was"),
        (
            {
                "columns": {
                    "timestamp": "t",
                    "amount": "a",
                    "label": {"column": "l", "fraud": "0", "legitimate": "1"},
                    "category": "c",
                }
            },
            "label was",
        ),
        ({"history": {"enabled": False, "reason": "so"}}, "history was true and is false"),
        ({"cadence": "yearly", "first": "2023"}, "cadence was"),
        ({"fields": {"basket": {"kind": "number", "column": "b"}}}, "columns was"),
        ({"fields": {"amount": {"drift": "left_out"}}}, "amount_cents (left_out)"),
    ],
)
def test_other_rules_decide_only_when_a_person_has_confirmed_them(
    store: DirectoryStore, heads: Heads, changed: dict[str, Any], said: str
) -> None:
    first, other = gate.rules_in_force(store, KEY, source(), NOW, heads), source(**changed)
    with pytest.raises(GateRefusalError) as refusal:
        gate.rules_in_force(store, KEY, other, NOW, heads)
    assert said in str(refusal.value)
    assert "fraud confirm --reason" in str(refusal.value)
    assert gate.rules_in_force(store, KEY, source(), NOW, heads) == first, "taken back, it goes on"

    (told, *_) = gate.confirm(store, KEY, other, **ANN, heads=heads)
    assert said in told
    after = gate.rules_in_force(store, KEY, other, NOW, heads)
    assert after.confirmed is not None
    assert (after.sequence, after.confirmed.who, after.confirmed.reason) == (2, ANN["who"], ANN["reason"])
    assert not after.holds(first.sha256)
    assert not after.holds("")
    with pytest.raises(GateRefusalError, match="TOML changes what the gate decides by"):
        gate.rules_in_force(store, KEY, source(), NOW, heads)


def test_what_does_not_decide_is_nobodys_business(store: DirectoryStore) -> None:
    gate.rules_in_force(store, KEY, source(), NOW)
    gate.rules_in_force(store, KEY, source(last="2025-01", description="longer"), NOW)


def test_a_rule_that_is_younger_than_the_record_is_no_change() -> None:
    assert changes({"first": "2024-01"}, {"first": "2024-01", "drift.new": 7}) == ()


@pytest.mark.parametrize("reason", ["", "x", "12 34"])
def test_a_confirmation_needs_words_and_something_to_confirm(store: DirectoryStore, reason: str) -> None:
    gate.rules_in_force(store, KEY, source(), NOW)
    with pytest.raises(GateRefusalError, match="reason in words"):
        gate.confirm(store, KEY, source(first="2024-01"), who="ann", reason=reason, now=NOW)
    with pytest.raises(GateRefusalError, match="nothing to confirm"):
        gate.confirm(store, KEY, source(), **ANN)


def test_a_record_that_is_edited_removed_or_put_back_lets_nothing_be_judged(store: DirectoryStore, heads: Heads) -> None:
    gate.rules_in_force(store, KEY, source(), NOW, heads)
    old = store.get(RULES)
    gate.confirm(store, KEY, source(first="2024-01"), **ANN, heads=heads)
    newest = store.get(RULES)

    store.put(RULES, old)
    with pytest.raises(GateRefusalError, match="an old one was put back"):
        gate.rules_in_force(store, KEY, source(), NOW, heads)
    store.put(RULES, json.dumps(json.loads(newest) | {"rules": {}}).encode())
    with pytest.raises(GateRefusalError, match="valid signature"):
        gate.rules_in_force(store, KEY, source(), NOW, heads)
    remove(store, RULES)
    with pytest.raises(GateRefusalError, match="is gone"):
        gate.rules_in_force(store, KEY, source(), NOW, heads)
    store.put("drift/2024-01.json", json.dumps(sign({"rules": "a" * 64}, KEY)).encode())
    with pytest.raises(GateRefusalError, match="is gone"):
        gate.rules_in_force(store, KEY, source(), NOW)  # a machine that has seen nothing sees that there were rules


def test_after_a_backup_was_restored_a_person_lets_it_go_on(store: DirectoryStore, heads: Heads) -> None:
    gate.rules_in_force(store, KEY, source(), NOW, heads)
    backup = store.get(RULES)
    gate.confirm(store, KEY, source(first="2024-01"), **ANN, heads=heads)
    store.put(RULES, backup)
    said = gate.take_as_restored(store, KEY, who="ann", reason="the disk was lost", now=NOW, heads=heads)
    assert "forgotten" in said
    rules = gate.rules_in_force(store, KEY, source(), NOW, heads)
    assert (rules.sequence, rules.history[-1].decision.reason) == (3, "the disk was lost")
