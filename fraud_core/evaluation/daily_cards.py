"""Card precision at k: of the k cards that an analyst looks at each day, how many are compromised."""

from dataclasses import dataclass

import numpy as np

from fraud_core.evaluation.metrics import tied_runs
from fraud_core.units.arrays import Array


@dataclass(frozen=True)
class CardPrecision:
    """Mean daily card precision at k, the most that was attainable, and over how many days."""

    k: int
    value: float
    ceiling: float
    days: int


@dataclass(frozen=True)
class DailyCardPrecision:
    """Card precision at k of each day that has transactions, in order: arrays of one length d."""

    k: int
    day: Array
    precision: Array
    ceiling: Array

    def mean(self, days: Array | None = None) -> CardPrecision:
        """The mean over the given day numbers (None: all)."""
        chosen = np.ones(len(self.day), dtype=bool) if days is None else np.isin(self.day, days)
        return CardPrecision(
            k=self.k,
            value=float(self.precision[chosen].mean()),
            ceiling=float(self.ceiling[chosen].mean()),
            days=int(chosen.sum()),
        )


def daily_card_precision(
    day: Array,
    cards: Array,
    labels: Array,
    scores: Array,
    *,
    label_delay_days: int,
    known: tuple[Array, Array] | None = None,
    k: int = 100,
) -> DailyCardPrecision:
    """Card precision at k a day, as the Fraud Detection Handbook defines it (Le Borgne et al. 2022, chapters 3.4 and 4.4).

    Each day, cards are ranked by their highest score of that day, and the k first are looked at; the precision is the number
    of compromised cards among them (with a fraud that day) over k, though a day may have fewer cards. Two kinds of cards are
    left out: those whose fraud lies more than the label delay back, so that it is known by now, and those that were among the
    k on an earlier day of this block and turned out compromised. The ceiling counts the compromised cards that were not left
    out, k at most, over k. Where scores tie, the lower card code comes first.

    Args:
        day: int [n], local day number.
        cards: int [n], card codes from 0 on.
        labels, scores: n rows.
        label_delay_days: a fraud of day f is known from day f + delay + 1 on.
        known: frauds before the block, as (card codes int [m], day numbers int [m]), in the same codes; None: none.
        k: cards that can be looked at in a day.
    """
    known_cards, known_days = known if known is not None else (cards[:0], day[:0])
    fraud_cards = np.concatenate([known_cards, cards[labels]])
    first_fraud = np.full(int(max(cards.max(), fraud_cards.max(initial=0))) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_fraud, fraud_cards, np.concatenate([known_days, day[labels]]))

    # One entry for each card and day, in order of day and card.
    order = np.lexsort((cards, day))
    starts = tied_runs(day[order], cards[order])
    entry_day, entry_card = day[order][starts], cards[order][starts]
    highest = np.maximum.reduceat(scores[order], starts)
    compromised = np.logical_or.reduceat(labels[order], starts)

    day_starts = tied_runs(entry_day)
    days = entry_day[day_starts]
    detected = np.zeros(len(first_fraud), dtype=bool)
    hits, attainable = np.zeros(len(days)), np.zeros(len(days))
    for i, today in enumerate(np.split(np.arange(len(entry_day)), day_starts[1:])):
        left_out = detected[entry_card[today]] | (first_fraud[entry_card[today]] < days[i] - label_delay_days)
        ranked = today[~left_out]
        top = ranked[np.argsort(-highest[ranked], kind="stable")[:k]]
        found = top[compromised[top]]
        detected[entry_card[found]] = True
        hits[i] = len(found)
        attainable[i] = min(k, int(compromised[ranked].sum()))
    return DailyCardPrecision(k=k, day=days, precision=hits / k, ceiling=attainable / k)
