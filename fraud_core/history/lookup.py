"""History lookup: what a store remembers of the past of payments, counted for the scorer."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from pydantic import SecretStr

from fraud_core.errors import StoreError
from fraud_core.features.online import Query, Tallying
from fraud_core.features.windows import Plan, Reach
from fraud_core.history.store import HistoryStore
from fraud_core.signing.card_numbers import hashed_card
from fraud_core.signing.keys import Key
from fraud_core.transactions.transaction import Transaction
from fraud_core.units.time import to_microseconds

REST_SECONDS = 1.0  # a store that has failed is left alone for so long: nobody waits for it in vain, again and again


class Recalled(NamedTuple):
    """The past of n payments.

    Attributes:
        states: tally -> float64[n].
        sequence: number of the newest recorded payment that was taken into account.
    """

    states: dict[str, npt.NDArray[np.float64]]
    sequence: int


class HistoryLookup:
    """Asks a history store. Safe to share between threads.

    Args:
        store: what is asked.
        card_key: by which cards are hashed, here as at the intake.
    """

    def __init__(self, store: HistoryStore, card_key: Key) -> None:
        self.store = store
        self._card_key = card_key
        self._reach: Reach | None = None  # the widest that a model has asked for
        self._plan: Plan | None = None  # the last that a model has asked for
        self._tallying: tuple[tuple[Plan, Reach, ZoneInfo], Tallying] | None = None  # and how its past is tallied
        self._rests_until = 0.0

    def card(self, transaction: Transaction) -> str | None:
        """The hash that a payment's card is known by."""
        return None if transaction.card is None else self.hashed(transaction.card)

    def hashed(self, secret: SecretStr) -> str:
        """The hash that a card or another personal id is known by: of the same text the same, whichever field it stands in."""
        return hashed_card(secret.get_secret_value(), self._card_key)

    def values(self, transaction: Transaction, plan: Plan) -> dict[str, Any]:
        """What a store is asked about a payment: its entities, and what pairs are made of."""
        asked: dict[str, Any] = {}
        for name in plan.asked:
            value = self.card(transaction) if name == "card" else getattr(transaction, name, None)
            asked[name] = hashed_card(value.get_secret_value(), self._card_key) if isinstance(value, SecretStr) else value
        return asked

    def prepare(self, plan: Plan, reach: Reach) -> None:
        """See that the store keeps of payments what a model asks for."""
        if self._reach is None or not self._reach.holds(reach):
            # The new champion looks further back than the one before.
            self._reach = self.store.reach = reach if self._reach is None else self._reach.widened(reach)
        if self._plan is not plan:
            self._plan = plan
            self.store.plan = self.store.plan.joined(plan)

    def past(
        self, transactions: Sequence[Transaction], plan: Plan, reach: Reach, zone: ZoneInfo, unnamed: str | None = None
    ) -> Recalled:
        """What the entities of each payment did before, as of its own time. Payments in one question see none of each other.

        Args:
            transactions: the payments.
            plan: what is asked of their past.
            reach: how far back it is looked at.
            zone: says what is night.
            unnamed: hash of the card of payments that name none.

        Raises:
            StoreError: the store cannot be used, or could not a moment ago.
        """
        if time.monotonic() < self._rests_until:
            raise StoreError("The history store did not answer a moment ago; it is asked again within a second.")
        self.prepare(plan, reach)
        queries = []
        for transaction in transactions:
            values = self.values(transaction, plan)
            if unnamed is not None and values.get("card") is None:
                values["card"] = unnamed
            queries.append(Query(to_microseconds(transaction.timestamp), values))
        try:
            found = self.store.look(queries, plan)
        except StoreError:
            self._rests_until = time.monotonic() + REST_SECONDS
            raise
        tallying = self._tallying_of(plan, reach, zone)
        rows = np.array([tallying.of(query, past) for query, past in zip(queries, found, strict=True)])
        columns = np.ascontiguousarray(rows.T)
        return Recalled(dict(zip(plan.names, columns, strict=True)), min((past.sequence for past in found), default=0))

    def _tallying_of(self, plan: Plan, reach: Reach, zone: ZoneInfo) -> Tallying:
        """Made once for each model that asks; a new one asks for another plan."""
        last = self._tallying
        if last is None or last[0][0] is not plan or last[0][1:] != (reach, zone):
            last = self._tallying = (plan, reach, zone), Tallying(plan, reach, zone)
        return last[1]
