"""Index of an asset: what all of its pointers (or verdicts) say, in one signed document, so that who plans need not read each.

    index/<name>.json

It is a cache of what the pointers say, and nothing trains by it: whoever makes, judges or learns reads each pointer and verdict
in its own place. Who writes one marks it in the index first, writes it, and then takes it in. Where that is cut off the mark
stays, and what is marked is read in its own place. An index that is missing, damaged, put back or an hour old is made anew.
"""

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fraud_core.errors import IntegrityError, StoreConflictError, StoreError
from fraud_core.signing.keys import Key
from fraud_core.storage.documents import Counted, Found, SignedDocument
from fraud_core.storage.heads import Heads
from fraud_core.storage.objects import ObjectStore

logger = logging.getLogger(__name__)

MADE_ANEW = timedelta(hours=1)  # what was changed without the index's knowledge, as by a restore, is seen by then
CUT_OFF = timedelta(minutes=10)  # nobody writes a pointer for so long
NEVER = datetime.fromtimestamp(0, UTC)
ATTEMPTS = 20  # many may write at once


class Mark(BaseModel):
    """That an entry is being written, since when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    since: datetime


class IndexDocument(Counted):
    """The entries by name, the marks by who set them, and when all was read in its own place (`NEVER`: it is yet to be)."""

    format: Literal[1] = 1
    entries: dict[str, dict[str, Any]] = Field(default_factory=dict)
    marks: dict[str, Mark] = Field(default_factory=dict)
    made_at: datetime = NEVER


E = TypeVar("E", bound=BaseModel)


@dataclass(frozen=True)
class Index(Generic[E]):
    """The index of one asset.

    Attributes:
        name: of the index.
        kind: of its entries.
        store: where it lies.
        key: the signing key.
        heads: remembers the newest change of it that was seen.
        names: lists what there is.
        read_one: reads one entry in its own place; None: it is gone, or not trusted.
    """

    name: str
    kind: type[E]
    store: ObjectStore
    key: Key
    heads: Heads | None
    names: Callable[[], Iterable[str]]
    read_one: Callable[[str], E | None]

    def read(self, now: datetime | None = None) -> dict[str, E]:
        """All entries by name, in order. As many requests for many as for few, unless it has to be made anew.

        What `read_one` raises of an entry that is read in its own place goes on.

        Raises:
            StoreError: the store cannot be reached.
        """
        now = now or datetime.now(UTC)
        try:
            found = self._document.follow()
        except IntegrityError as error:
            logger.warning("%s The index is made anew.", error)
            found = None
        if found is None or not timedelta(0) <= now - found.made_at < MADE_ANEW:
            return self._make_anew(now)
        entries = {name: self.kind.model_validate(entry) for name, entry in found.entries.items()}
        for name in {mark.name for mark in found.marks.values()}:
            entry = self.read_one(name)
            entries.pop(name, None)
            entries |= {} if entry is None else {name: entry}
        for token, mark in found.marks.items():
            if now - mark.since > CUT_OFF:
                self._take_in(token, mark.name)
        return dict(sorted(entries.items()))

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Around the write of one entry in its own place, which never fails because of the index."""
        token, mark = secrets.token_hex(8), Mark(name=name, since=datetime.now(UTC))
        self._update(lambda index: index.model_copy(update={"marks": index.marks | {token: mark}}))
        try:
            yield
        finally:
            self._take_in(token, name)

    @property
    def _document(self) -> SignedDocument[IndexDocument]:
        return SignedDocument(IndexDocument, f"index/{self.name}.json", self.store, self.key, self.heads, what="The index")

    def _take_in(self, token: str, name: str) -> None:
        """Take in what lies in an entry's own place, which is read after the index, and take the mark away."""

        def taken(index: IndexDocument) -> IndexDocument:
            entry = self.read_one(name)
            entries = {other: each for other, each in index.entries.items() if other != name}
            entries |= {} if entry is None else {name: entry.model_dump(mode="json")}
            marks = {other: mark for other, mark in index.marks.items() if other != token}
            return index.model_copy(update={"entries": entries, "marks": marks})

        self._update(taken)

    def _update(self, change: Callable[[IndexDocument], IndexDocument]) -> None:
        """Change the index where there is one that holds; where not, it is made of everything when it is read next."""

        def changed(found: Found[IndexDocument]) -> IndexDocument:
            return change(IndexDocument() if found.document is None else found.document)

        try:
            self._document.update(changed, ATTEMPTS)
        except (StoreError, IntegrityError) as error:
            logger.warning("The index %s was not brought up to date, and will be made anew: %s", self.name, error)

    def _make_anew(self, now: datetime) -> dict[str, E]:
        """Read everything in its own place; what is written meanwhile keeps the index from being replaced by what was read."""
        self._update(lambda index: index.model_copy(update={"made_at": NEVER}))
        before = self._document.look().tag
        found = {name: self.read_one(name) for name in sorted(self.names())}
        entries = {name: entry for name, entry in found.items() if entry is not None}

        def made(lying: Found[IndexDocument]) -> IndexDocument:
            if lying.document is None or lying.tag != before:
                raise StoreConflictError("something was written meanwhile")
            marks = {token: mark for token, mark in lying.document.marks.items() if now - mark.since <= CUT_OFF}
            bodies = {name: entry.model_dump(mode="json") for name, entry in entries.items()}
            return IndexDocument(sequence=lying.document.sequence, entries=bodies, marks=marks, made_at=now)

        try:
            self._document.update(made, attempts=1)
        except StoreError as error:  # the next one who reads it tries again
            logger.info("The index %s was not made anew: %s", self.name, error)
        return entries
