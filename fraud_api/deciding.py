"""Decide on single payments: read the past of card and merchant, score, record, log, and then answer.

Payments that arrive together are decided together: NumPy costs the same for one row as for twenty, and a commit the same for one
record as for twenty. So a request leaves its payment here, and at the end of the event loop's turn all that were left are taken
in one go. Nobody waits for a later one: with one request at a time each is decided at once.

A payment and its decision are recorded as one, if its id is not there yet. Sent again, it gets the decision that it got.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pydantic_core
from pydantic import SecretStr

from fraud_api.http.problems import Refused
from fraud_api.metrics.registry import Metrics
from fraud_api.schemas import Explanation, Reason, Refunded, Score
from fraud_core.decisions.log import DecisionRecord, same_payment
from fraud_core.decisions.record import columns_of, own_columns_of
from fraud_core.decisions.writer import DecisionWriter
from fraud_core.errors import StoreError
from fraud_core.features import catalogue
from fraud_core.features.online import Event
from fraud_core.fields.declared import REFUND
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.store import Entry, Kept
from fraud_core.history.writer import HistoryWriter
from fraud_core.models.follower import LoadedModel
from fraud_core.scoring.score import Examined, Scored, examined, made_id, score_together
from fraud_core.settings import Settings
from fraud_core.transactions.decision import Decision
from fraud_core.transactions.transaction import Transaction
from fraud_core.units.time import to_microseconds

MOST_AT_ONCE = 256  # so that a turn of the loop stays short
NAN = float("nan")
_UNSHOWN = {"explanation"}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A payment that waits for its decision."""

    served: LoadedModel
    transaction: Transaction
    identity: str
    explain: bool
    future: asyncio.Future[Score]


class Deciding:
    """Decides for one event loop.

    Args:
        settings: all of it.
        lookup: tells the past of payments.
        history: records payments and their decisions.
        log: the decision log.
        metrics: are told.
    """

    def __init__(
        self, settings: Settings, lookup: HistoryLookup, history: HistoryWriter, log: DecisionWriter, metrics: Metrics
    ) -> None:
        self._recall = lookup
        self._history = history
        self._log = log
        self._metrics = metrics
        self._review_from_cents = round(settings.degraded_review_amount * 100)
        self._logged_share = settings.features_logged
        self.records = settings.record == "on"
        self._waiting: list[_Asked] = []

    async def decide(self, served: LoadedModel, transaction: Transaction, *, explain: bool = False) -> Score:
        """The decision on a payment, by the model that its request was given; recorded and logged when this returns.

        Raises:
            Refused: another payment has this id; or the decision can be logged nowhere.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._decide_waiting)
        future: asyncio.Future[Score] = loop.create_future()
        self._waiting.append(_Asked(served, transaction, transaction.transaction_id or made_id(), explain, future))
        if len(self._waiting) == MOST_AT_ONCE:
            self._decide_waiting()
        return await future

    def refund(self, served: LoadedModel, refund: Transaction) -> Refunded:
        """Record a refund, which nobody decides about, once under its id.

        Raises:
            Refused: another payment or refund has this id; or it can be recorded nowhere.
        """
        identity = refund.transaction_id or made_id()
        answer = Refunded(transaction_id=identity, recorded=self.records)
        if not self.records:
            return answer
        if served.scorer.reach is not None:
            self._recall.prepare(served.scorer.plan, served.scorer.reach)
        entry = self.entry_of(refund, identity, answer=answer.model_dump_json().encode(), is_refund=True)
        try:
            (kept,) = self._history.record([entry])
        except StoreError:  # the writer has said why, once
            raise not_recorded() from None
        if kept.content != entry.content:
            raise another_payment()
        return answer

    def entry_of(
        self, transaction: Transaction, identity: str, *, answer: bytes, declined: bool = False, is_refund: bool = False
    ) -> Entry:
        """What history keeps of a payment or a refund."""
        card = self.card(transaction)
        columns = {"transaction_id": identity, "card": card, **columns_of(transaction)}
        declared = transaction.model_declared
        brought: dict[str, Any] = {}
        derived: dict[str, Any] = {}
        if declared.own:
            brought, derived = own_columns_of(transaction, self.hashed)
        if is_refund:
            columns[REFUND] = True
        content = payment = pydantic_core.to_json(columns | brought)
        if derived:
            payment = pydantic_core.to_json(columns | brought | derived)
        kept = brought | derived
        if declared.amounts.negative == "refund":  # as raw has it, of every payment
            kept[REFUND] = is_refund
        return Entry(
            transaction_id=identity,
            content=hashlib.sha256(content).hexdigest(),
            card=card,
            event=Event(
                to_microseconds(transaction.timestamp),
                identity,
                transaction.amount_cents,
                transaction.merchant,
                transaction.category,
                NAN if transaction.merchant_latitude is None else transaction.merchant_latitude,
                NAN if transaction.merchant_longitude is None else transaction.merchant_longitude,
                kept,
            ),
            answer=answer,
            payment=payment,
            declined=declined,
        )

    def _decide_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        # Two models at most: a swap may come between two requests of one turn.
        for model in {id(asked.served): asked.served for asked in waiting}.values():
            group = [asked for asked in waiting if asked.served is model]
            try:
                self._decide(model, group)
            except StoreError:  # the writer has said why, once
                _fail(group, not_recorded())
            except Exception as error:
                # Each of those requests fails as it would have failed alone, and none is left waiting.
                _fail(group, error)

    def _decide(self, served: LoadedModel, group: list[_Asked]) -> None:
        begun = time.perf_counter()
        scored = score_together(served.scorer, [asked.transaction for asked in group], self._recall)
        if scored.degraded:
            self._metrics.history_failed()
        elif scored.sequence is not None:
            self._metrics.history_seconds("read", time.perf_counter() - begun)
        self._metrics.scored(served, scored.matrix, scored.probabilities.tolist())
        drafts = [_Draft(self, served, scored, at, asked) for at, asked in enumerate(group)]
        if not self.records:
            self._answer([(draft.asked, draft.score) for draft in drafts])
            return
        begun = time.perf_counter()
        kept = self._history.record([draft.entry for draft in drafts])
        self._metrics.history_seconds("write", time.perf_counter() - begun)
        answers: list[tuple[_Asked, Score]] = []
        new: set[str] = set()
        records: list[DecisionRecord] = []
        for draft, found in zip(drafts, kept, strict=True):
            if found.content != draft.entry.content:
                _fail([draft.asked], another_payment())
                continue
            score = draft.score if found.new else Score.model_validate_json(found.answer)
            answers.append((draft.asked, score))
            if found.new:
                new.add(score.transaction_id)
            records.append(draft.record(score, found))
        begun = time.perf_counter()
        written = self._log.submit(records)
        loop = asyncio.get_running_loop()

        def logged() -> None:
            self._metrics.decision_log_seconds(time.perf_counter() - begun)
            error = written.exception()
            if error is not None:
                _fail([asked for asked, _ in answers], not_recorded() if isinstance(error, StoreError) else error)
                return
            standing = {identity: before for identity, before in written.result().items() if identity in new}
            self._answer(_as_logged(answers, records, standing) if standing else answers)

        written.add_done_callback(lambda _: loop.call_soon_threadsafe(logged))

    def _answer(self, answers: list[tuple[_Asked, Score]]) -> None:
        for asked, score in answers:
            self._metrics.decided(score.probability, score.decision)
            if not asked.future.done():  # whoever asked may have hung up
                asked.future.set_result(score)

    def at_least_reviewed(self, decision: Decision, amount_cents: int) -> Decision:
        """What a model without history may not approve on its own: large amounts."""
        return "review" if decision == "approve" and amount_cents >= self._review_from_cents else decision

    def logs_features(self, content: str) -> bool:
        """Whether the features of this payment are logged if it is approved: of a share of all, and always the same ones."""
        return int(content[:8], 16) < self._logged_share * 2**32

    def card(self, transaction: Transaction) -> str | None:
        """The hash that the card is known by."""
        return self._recall.card(transaction)

    def hashed(self, secret: SecretStr) -> str:
        """The hash that another personal id is known by."""
        return self._recall.hashed(secret)


class _Draft:
    """A decision that is not recorded yet."""

    def __init__(self, deciding: Deciding, served: LoadedModel, scored: Scored, at: int, asked: _Asked) -> None:
        transaction = asked.transaction
        self.asked = asked
        self._deciding = deciding
        self._scored = scored
        self._at = at
        self._card = deciding.card(transaction)
        self._behind: Examined | None = None
        probability = float(scored.probabilities[at])
        decision = scored.scorer.decide(probability)
        if scored.degraded:
            decision = deciding.at_least_reviewed(decision, transaction.amount_cents)
        if asked.explain or (deciding.records and decision != "approve"):  # the log names reasons where a person may ask for them
            self._behind = examined(served, scored, at)
        self.score = Score(
            transaction_id=asked.identity,
            probability=probability,
            decision=decision,
            model_version=served.version,
            degraded=scored.degraded,
            explanation=explanation_of(self._behind) if asked.explain and self._behind is not None else None,
        )

    @cached_property
    def entry(self) -> Entry:
        """What history keeps."""
        answer = self.score.__pydantic_serializer__.to_json(self.score, exclude=_UNSHOWN)
        declined = self.score.decision == "decline"
        return self._deciding.entry_of(self.asked.transaction, self.asked.identity, answer=answer, declined=declined)

    def record(self, score: Score, kept: Kept) -> DecisionRecord:
        """What the log keeps. Of a payment that was sent again the log has it already, unless it was lost on the way there."""
        values = self._scored.plain[self._at]
        reasons = () if self._behind is None else tuple(reason.code for reason in self._behind.reasons)
        logged = kept.new and (score.decision != "approve" or self._deciding.logs_features(self.entry.content))
        return DecisionRecord.of(
            self.asked.transaction,
            transaction_id=score.transaction_id,
            scored_at=datetime.now(UTC),
            card=self._card,
            model_version=score.model_version,
            probability=score.probability,
            decision=score.decision,
            degraded=score.degraded,
            reasons=reasons,
            features_sha256=catalogue.digest(values),
            features=values if logged else None,
            sequence=self._scored.sequence,
        )


def another_payment() -> Refused:
    """The same id, but not the same payment."""
    return Refused(
        409,
        "another-payment",
        "Another payment with this transaction_id was decided before. Send each payment under an id of its own, and the same "
        "payment again without any change.",
    )


def not_recorded() -> Refused:
    """No decision without a record of it."""
    return Refused(
        503,
        "decision-log",
        "The decision could not be written down, so none is given; try again shortly. The log has more.",
        headers={"Retry-After": "5"},
    )


def _as_logged(
    answers: list[tuple[_Asked, Score]], records: list[DecisionRecord], standing: Mapping[str, DecisionRecord]
) -> list[tuple[_Asked, Score]]:
    """The answers, where the log has decisions on ids that history took for new, since it forgot them or was gone."""
    kept: list[tuple[_Asked, Score]] = []
    for (asked, score), record in zip(answers, records, strict=True):
        before = standing.get(record.transaction_id)
        if before is None:
            kept.append((asked, score))
        elif same_payment(before, record):
            kept.append((asked, _score_of(before)))
        else:
            _fail([asked], another_payment())
    return kept


def _score_of(record: DecisionRecord) -> Score:
    return Score(
        transaction_id=record.transaction_id,
        probability=record.probability,
        decision=record.decision,
        model_version=record.model_version,
        degraded=record.degraded,
    )


def _fail(group: list[_Asked], error: BaseException) -> None:
    for asked in group:
        if not asked.future.done():
            asked.future.set_exception(error)


def explanation_of(examined: Examined) -> Explanation:
    """The strongest reasons for a score, and what is left over."""
    reasons = examined.reasons
    named = sum(reason.contribution for reason in reasons)
    return Explanation(
        unit=examined.explainer.unit,
        base=examined.base,
        reasons=[Reason.model_validate(reason, from_attributes=True) for reason in reasons],
        others=examined.total - examined.base - named,
        total=examined.total,
    )
