"""Labels that come in over HTTP. A payment need not have been scored here, nor have come in yet: a chargeback may be there first.

Such a label waits until the payment is scored here or a file brings it; from then on it counts as any other does.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from fraud_api.http.problems import Refused
from fraud_api.schemas import Labelled, Labelling
from fraud_api.services import Services
from fraud_core.errors import StoreError
from fraud_core.labels.log import NewLabel

logger = logging.getLogger(__name__)

UNKEYED = "unkeyed"  # the author where nobody is asked for a key


def add(services: Services, given: Sequence[Labelling], author: str) -> list[Labelled]:
    """Write labels down, all or none; known from now on.

    Raises:
        Refused: the database cannot be used, or whether a payment was decided is not known before it can be.
    """
    known_at = datetime.now(UTC)
    try:
        waiting = services.decisions.are_waiting
        decided = services.decisions.log.find_all([one.transaction_id for one in given])
        if waiting and any(one.transaction_id not in decided for one in given):
            raise not_yet_known()
        # When a payment was made that was not decided here, nobody knows: the label's own time stands for it.
        times = {identity: record.timestamp for identity, record in decided.items()}
        words = [
            NewLabel(
                one.transaction_id,
                one.outcome,
                one.source,
                author,
                times.get(one.transaction_id, known_at),
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
    return [
        Labelled(
            transaction_id=one.transaction_id,
            sequence=one.sequence,
            known_at=one.known_at,
            decided=one.transaction_id in decided,
        )
        for one in added
    ]


def not_yet_known() -> Refused:
    """Decisions wait on a machine's disk; whether the payment is among them is not known before they are delivered."""
    return Refused(
        503,
        "decisions-waiting",
        "Decisions wait for the database, and this payment may be among them; nothing was added. Try again shortly.",
    )
