"""Payments that arrive together are scored together.

NumPy costs the same for one row as for twenty, and the features of a row have the same bits either way. So a request leaves its
payment here, and at the end of the event loop's turn all that were left are scored in one go. Nobody waits for a later one: with
one request at a time each is scored at once, under load a score costs a tenth.
"""

import asyncio

from fraud_api.scoring import Seen, not_looked_at
from fraud_core.holder import Served
from fraud_core.payment import Transaction
from fraud_core.scoring import matrix_of

MOST_AT_ONCE = 256  # so that a turn of the loop stays short


class Together:
    """Scores for one event loop.

    Args:
        seen: is shown what was scored.
    """

    def __init__(self, seen: Seen = not_looked_at) -> None:
        self._seen = seen
        self._waiting: list[tuple[Served, Transaction, asyncio.Future[float]]] = []

    async def probability(self, served: Served, transaction: Transaction) -> float:
        """The fraud probability of a payment by the model that its request was given."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[float] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._score)
        self._waiting.append((served, transaction, future))
        if len(self._waiting) == MOST_AT_ONCE:
            self._score()
        return await future

    def _score(self) -> None:
        waiting, self._waiting = self._waiting, []
        # Two models at most: a swap may come between two requests of one turn.
        for model in {id(served): served for served, _, _ in waiting}.values():
            mine = [(transaction, future) for served, transaction, future in waiting if served is model]
            try:
                matrix = matrix_of(model.scorer, [transaction for transaction, _ in mine])
                scored = model.scorer.score_matrix(matrix).tolist()
                self._seen(model, matrix, scored)
            except Exception as error:
                # Each of those requests fails as it would have failed alone, and none is left waiting.
                for _, future in mine:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), probability in zip(mine, scored, strict=True):
                    if not future.done():  # whoever asked may have hung up
                        future.set_result(probability)
