"""A logged payment tested again, as it was or with changes: what is not changed keeps the features that it was decided by.

The log keeps neither card nor birth date nor home, and a card's past goes on; the logged features hold what came of all that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fraud_core.decisions.log import DecisionRecord
from fraud_core.errors import StoreError
from fraud_core.features import catalogue
from fraud_core.features.feature import Feature
from fraud_core.history.lookup import HistoryLookup
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.score import Scored, inputs_of
from fraud_core.transactions.transaction import Transaction


@dataclass(frozen=True)
class Starting:
    """Where a test starts from.

    Attributes:
        record: the decision, with its features.
        transaction: the payment as far as the log keeps it.
    """

    record: DecisionRecord
    transaction: Transaction

    def changed(self, transaction: Transaction) -> frozenset[str]:
        """The canonical columns in which a payment differs."""
        before, now = self.transaction.__dict__, transaction.__dict__
        return frozenset(name for name, value in now.items() if name != "transaction_id" and value != before[name])


def score_again(starting: Starting, scorer: Scorer, transactions: Sequence[Transaction], lookup: HistoryLookup) -> Scored:
    """Score payments that were made of a logged one; nothing is recorded.

    A feature that is made of something that was changed is computed anew, one of the past as of the payment's time and as history
    knows it now, by the hash of the card where no other was typed. Every other feature is the logged one, to the last bit.

    Args:
        starting: the logged payment.
        scorer: the version that decided.
        transactions: n payments.
        lookup: tells the past.
    """
    record = starting.record
    if record.degraded and scorer.without_history is not None:
        scorer = scorer.without_history
    changes = [starting.changed(transaction) for transaction in transactions]
    anew = {feature: np.array([not _made_of(feature).isdisjoint(some) for some in changes]) for feature in scorer.features}
    inputs = inputs_of(transactions, scorer.declared, lookup.hashed)
    sequence, degraded = None, record.degraded
    if scorer.reach is not None:
        assert scorer.without_history is not None
        wanted = np.any([rows for feature, rows in anew.items() if feature.is_history], axis=0)
        try:
            past = lookup.past(transactions, scorer.plan, scorer.reach, scorer.zone, unnamed=record.card)
        except StoreError:
            if wanted.any():
                scorer, degraded = scorer.without_history, True
            else:
                missing = np.full(len(transactions), np.nan)
                inputs |= dict.fromkeys(scorer.plan.names, missing)
        else:
            inputs |= past.states
            sequence = past.sequence
    values = catalogue.compute(scorer.features, inputs, scorer.zone)
    for feature in scorer.features:
        values[feature.name] = np.where(anew[feature], values[feature.name], _logged(record, feature))
    matrix = scorer.bundle.encoder.matrix(values)
    return Scored(scorer, values, matrix, scorer.score_matrix(matrix), sequence, degraded)


def _made_of(feature: Feature) -> frozenset[str]:
    """The canonical columns that a feature follows."""
    if feature.is_history:
        return feature.needs | {"timestamp"} | feature.reads
    return feature.needs


def _logged(record: DecisionRecord, feature: Feature) -> npt.NDArray[np.object_] | float:
    assert record.features is not None
    value = record.features.get(feature.name)
    if feature.is_category:
        return np.array(value, dtype=object)
    return float("nan") if value is None else float(value)
