"""Labels that come in over HTTP, about payments that were decided here."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from fraud_api.problems import Refused
from fraud_api.schemas import Labelled, Labelling
from fraud_api.services import Services
from fraud_core.errors import StoreError
from fraud_core.refusals import MOST_PROBLEMS, FieldProblem
from fraud_core.stores.labels import Word

logger = logging.getLogger(__name__)

UNKEYED = "unkeyed"  # the author where nobody is asked for a key


def add(services: Services, given: Sequence[Labelling], author: str) -> list[Labelled]:
    """Write labels down, all or none; known from now on.

    Raises:
        Refused: a payment is not in the decision log; or the database cannot be used.
    """
    known_at = datetime.now(UTC)
    try:
        waiting = services.decisions.are_waiting
        decided = services.decisions.log.find_all([one.transaction_id for one in given])
        unknown = [at for at, one in enumerate(given) if one.transaction_id not in decided]
        if unknown and waiting:
            raise not_yet_known()
        if unknown:
            raise no_such_payment(given, unknown)
        words = [
            Word(
                one.transaction_id,
                one.outcome,
                one.source,
                author,
                decided[one.transaction_id].timestamp,
                known_at,
                note=one.note,
            )
            for one in given
        ]
        added = services.labels.append_all(words)
    except StoreError as error:
        logger.error("labels cannot be written: %s", error)
        raise Refused(
            503, "labels-unreachable", "The labels cannot be written now, and none was; send them again shortly."
        ) from error
    return [Labelled(transaction_id=one.transaction_id, sequence=one.sequence, known_at=one.known_at) for one in added]


def no_such_payment(given: Sequence[Labelling], places: Sequence[int]) -> Refused:
    """The refusal of labels about payments that nobody asked about, each named."""
    problems = [
        FieldProblem(
            field="transaction_id" if len(given) == 1 else f"{at}.transaction_id",
            reason=f"no decision is known about {given[at].transaction_id}",
        )
        for at in places[:MOST_PROBLEMS]
    ]
    count = "One payment is" if len(places) == 1 else f"{len(places)} payments are"
    return Refused(
        404,
        "no-such-payment",
        f"{count} not in the decision log, so nothing was added. Send the transaction_id under which the payment was scored.",
        problems,
    )


def not_yet_known() -> Refused:
    """Decisions wait on a machine's disk; whether the payment is among them is not known before they are delivered."""
    return Refused(
        503,
        "decisions-waiting",
        "Decisions wait for the database, and this payment may be among them; nothing was added. Try again shortly.",
    )
