"""Signed documents of the object store: read, verified, followed forward only, and changed by compare-and-swap.

A signature says who wrote a document, not that it is the newest. So each counts its changes, whoever follows one remembers how
far it was (see `heads`), and an older one that is put back is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from fraud_core.errors import FraudError, IntegrityError, StoreConflictError
from fraud_core.signing.documents import is_signed, open_document, signature_of, signed_document
from fraud_core.signing.keys import Key
from fraud_core.storage.heads import Head, Heads, ProcessHeads
from fraud_core.storage.objects import ObjectStore

ATTEMPTS = 5


class Counted(BaseModel):
    """A document that counts its changes: `sequence`, 0 where it was written before they were counted."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    sequence: int = 0


D = TypeVar("D", bound=Counted)


@dataclass(frozen=True)
class Found(Generic[D]):
    """What lies in the place of a document: it, or why it is not used; nothing where nothing lies there.

    `tag` is the store's, for a conditional write. `is_signed` is False where this installation's key did not sign what is there.
    """

    document: D | None = None
    head: Head | None = None
    problem: str | None = None
    tag: str | None = None
    is_signed: bool = True


@dataclass(frozen=True)
class SignedDocument(Generic[D]):
    """One document in its place in the store.

    Attributes:
        kind: what it is.
        where: its key in the store.
        store: where it lies.
        key: the signing key.
        heads: where the newest change that was seen is remembered; None: what lies in the store is taken.
        what: how messages name it, at the beginning of a sentence.
        repair: what to do where it does not verify; a sentence.
        renew: what to do where it is not the newest that was seen; a sentence.
        named: see `open_document`.
        error: what is raised where it is not used.
        indent: of what is written; None: canonical.
    """

    kind: type[D]
    where: str
    store: ObjectStore
    key: Key
    heads: Heads | ProcessHeads | None = None
    what: str = ""
    repair: str = ""
    renew: str = ""
    named: Mapping[str, str | None] = field(default_factory=dict)
    error: type[FraudError] = IntegrityError
    indent: int | None = None

    def look(self) -> Found[D]:
        """What lies in the store, be it the newest that was seen or not."""
        tagged = self.store.get_tagged(self.where)
        return Found() if tagged is None else self._opened(*tagged)

    def read(self) -> D | None:
        """The document as it lies in the store; None where there is none.

        Raises:
            FraudError (`error`): it does not verify.
        """
        return self._used(self.look())

    def follow(self) -> D | None:
        """The document, for what decides by it; None where there is none, and none was seen.

        Raises:
            FraudError (`error`): it does not verify, it is gone, or an older one was put back.
            StoreError: the database that remembers which was seen cannot be used.
        """
        return self._used(follow_all([self])[0])

    def changed(self, tag: str | None) -> Found[D] | None:
        """The document if it is another than the one with this tag, else None, which costs next to nothing. Raises as `follow`.

        Raises:
            KeyError: there is none.
        """
        data = self.store.get_changed(self.where, tag)
        if data is None:
            return None
        found = self._opened(*data)
        if self.heads is not None and found.head is not None and self.heads.behind({self.where: found.head}):
            found = follow_all([self])[0]
        self._used(found)
        return found

    def update(self, change: Callable[[Found[D]], D], attempts: int = ATTEMPTS) -> D:
        """Write what `change` makes of what lies there, as its next change, newer than whatever was seen; returns it as written.

        Args:
            change: called again where others wrote in between. The very document that it was given is not written again.
            attempts: how often at most.

        Raises:
            StoreConflictError: others wrote in between each time.
        """
        while True:
            found = self.look()
            given = change(found)
            if given is found.document:
                return given
            written = given.model_copy(update={"sequence": self.next_sequence(found)})
            data = signed_document(written, self.key, indent=self.indent)
            try:
                self.store.put_if(self.where, data, found.tag)
            except StoreConflictError:
                attempts -= 1
                # A retry after a lost answer meets its own write: that is a success.
                if self.look().head != Head(written.sequence, signature_of(data)):
                    if not attempts:
                        raise
                    continue
            if self.heads is not None:
                self.heads.behind({self.where: Head(written.sequence, signature_of(data))})
            return written

    def next_sequence(self, found: Found[D]) -> int:
        """The number of the change that comes after what was found, and after whatever was seen."""
        lying = 0 if found.document is None else found.document.sequence
        return max(lying, 0 if self.heads is None else self.heads.sequence(self.where)) + 1

    def not_the_newest(self, lies: Head | None, seen: Head) -> str:
        """Why what lies in the store (None: nothing) is not used, in words for people."""
        if lies is None:
            return f"{self.what} is gone, of which change {seen.sequence} was seen. It is not used. {self.renew}"
        return (
            f"{self.what} is change {lies.sequence} of it, and change {seen.sequence} was seen before: an old one was put back. "
            f"It is not used. {self.renew}"
        )

    def _opened(self, data: bytes, tag: str) -> Found[D]:
        try:
            document = open_document(self.kind, data, self.key, f"{self.what}: {self.store.uri(self.where)}", **self.named)
        except IntegrityError as error:
            return Found(problem=f"{error} {self.repair}".rstrip(), tag=tag, is_signed=is_signed(data, self.key))
        return Found(document, Head(document.sequence, signature_of(data)), None, tag)

    def _used(self, found: Found[D]) -> D | None:
        if found.problem is not None:
            raise self.error(found.problem)
        return found.document


def follow_all(documents: Sequence[SignedDocument[D]]) -> list[Found[D]]:
    """What lies in the place of each document, all of which are followed in the same `heads`.

    That one is not the newest that was seen, or is gone, is its problem; the others are remembered as far as they verify.

    Raises:
        StoreError: the database that remembers which were seen cannot be used.
    """
    found = {each.where: each.look() for each in documents}
    late = _behind(documents, found)
    again = {each.where: each.look() for each in documents if each.where in late}  # a newer one may have come between
    late = _behind(documents, again) if again else {}
    found |= again
    return [
        replace(found[each.where], document=None, problem=each.not_the_newest(found[each.where].head, late[each.where]))
        if each.where in late
        else found[each.where]
        for each in documents
    ]


def _behind(documents: Sequence[SignedDocument[D]], found: Mapping[str, Found[D]]) -> dict[str, Head]:
    heads = documents[0].heads if documents else None
    return {} if heads is None else heads.behind({where: each.head for where, each in found.items() if each.problem is None})
