"""Background writer with a durable queue: while its store is gone, what is to be written waits in a spool."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from fraud_core.errors import StoreError
from fraud_core.storage.queue.spool import Spool

logger = logging.getLogger(__name__)

TEND_SECONDS = 1.0  # how often the spool is looked at

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class SpooledWriter(Generic[Item]):
    """Writes items into a store, or into a spool while the store is gone; a thread of its own delivers the spool.

    Attributes:
        spool: where they go then.
        problem: why nothing can be written anywhere at present; None: it can.

    Args:
        spool: see there.
        names: what the items are, and what the store is called, in the log's sentences.
        to_line, from_line: an item as a line of the spool, and back.
        deliver: takes what waited; raises StoreError while the store is gone.
        rest: seconds for which a store that has failed is left alone; infinity: until the spool was delivered, what was left over
            from a former process included, so that nothing overtakes what waits.
    """

    def __init__(
        self,
        spool: Spool,
        names: tuple[str, str],
        to_line: Callable[[Item], str],
        from_line: Callable[[str], Item],
        deliver: Callable[[Sequence[Item]], object],
        rest: float,
    ) -> None:
        self.spool = spool
        self.problem: str | None = None
        self._items, self._store = names
        self._to_line, self._from_line, self._deliver = to_line, from_line, deliver
        self._rest, self._rests_until = rest, 0.0
        if rest == math.inf and self.are_waiting:
            self._rests_until = rest
        self._was_gone = self.is_gone
        self._closed = threading.Event()
        self._tender = threading.Thread(target=self._tend, name=f"{self._items}-spool", daemon=True)
        self._tender.start()

    @property
    def is_gone(self) -> bool:
        """Whether items go to the spool at present."""
        return time.monotonic() < self._rests_until

    @property
    def are_waiting(self) -> bool:
        """Whether items wait on this machine's disk that the store does not have yet."""
        try:
            return self.is_gone or self.spool.waiting() > 0
        except StoreError as error:
            logger.error("the spool cannot be read: %s", error)
            return False

    def close(self) -> None:
        """Deliver what waits, if that is possible, and end."""
        self._closed.set()
        self._tender.join()

    def _put(self, items: Sequence[Item], write: Callable[[Sequence[Item]], Answer]) -> Answer | None:
        """Write items; None: they went to the spool.

        Raises:
            StoreError: neither the store nor the spool takes them; none of them is kept.
        """
        if not self.is_gone:
            try:
                answer = write(items)
            except StoreError as error:
                if not self._was_gone:
                    logger.error(
                        "%s go to the spool %s until the %s is back: %s", self._items, self.spool.path, self._store, error
                    )
                self._was_gone = True
                self._rests_until = time.monotonic() + self._rest
            else:
                self._was_gone = False
                self.problem = None
                return answer
        try:
            self.spool.append([self._to_line(item) for item in items])
        except StoreError as error:
            if self.problem is None:
                logger.error("%s can be written nowhere, and payments are refused until they can: %s", self._items, error)
            self.problem = str(error)
            raise
        self.problem = None
        return None

    def _tend(self) -> None:
        """Deliver the spool as soon as the store is back."""
        ended = False
        while not ended:
            ended = self._closed.wait(TEND_SECONDS)
            try:
                if self.problem is not None:
                    self.spool.see_that_it_takes()
                    self.problem = None
                    logger.info("%s can be written again", self._items)
                kept = self.spool.waiting()
                self.spool.deliver(self._from_line, self._deliver)
                if kept or self.is_gone:
                    self._rests_until, self._was_gone = 0.0, False
                    logger.info("the %s is back; %d %s were delivered from the spool", self._store, kept, self._items)
                if not ended:
                    self._look()
            except StoreError as error:
                logger.debug("the %s is not back: %s", self._store, error)
            except Exception as error:  # its words may hold data; whatever it is, the next look comes
                logger.error("%s cannot be delivered from the spool: %s", self._items, type(error).__name__)

    def _look(self) -> None:
        """What else is done at every look."""
