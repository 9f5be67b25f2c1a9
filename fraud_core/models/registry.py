"""Model registry: the signed pointer to the champion, its changes and withdrawals, the versions and their cards."""

import hashlib
import json
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from fraud_core.errors import IntegrityError, PromotionError, StoreConflictError
from fraud_core.models.bundle import read_bundle, read_manifest
from fraud_core.models.manifest import FALLBACK, MAIN, SignedPart, file_names
from fraud_core.signing.keys import Key, open_signed
from fraud_core.storage.documents import Counted, Found, SignedDocument
from fraud_core.storage.heads import Heads, ProcessHeads
from fraud_core.storage.objects import ObjectStore

LATEST = "models/latest.json"


class Change(SignedPart):
    """One change of the pointer."""

    sequence: int
    version: str
    at: datetime
    how: Literal["promotion", "rollback", "restoration"]
    who: str
    reason: str = ""


class Withdrawal(SignedPart):
    """Why a version may not be promoted by any automation."""

    who: str
    reason: str
    at: datetime


class ChampionPointer(Counted):
    """The pointer. `history` holds the changes so far, newest last; `withdrawn` the versions taken out of service."""

    version: str
    manifest_sha256: str
    history: tuple[Change, ...] = ()
    withdrawn: dict[str, Withdrawal] = Field(default_factory=dict)


class StoredCard(SignedPart):
    """A version's card as it lies in the store (see `ModelCard`).

    `is_signed` is False where it carries no signature, as release 0.1.0 wrote cards: then anybody who can write to the store may
    have written its figures, and whoever shows them says so.
    """

    body: dict[str, Any]
    is_signed: bool


def latest_model_card(store: ObjectStore, version: str, key: Key) -> StoredCard | None:
    """The newest card of a version: of signed ones, where there are any. None where there is none; a forged one is none."""
    keys = [name for name in store.list(f"models/{version}/runs") if name.endswith("/card.json")]
    cards = [card for name in keys if (card := _card(store.get(name), key)) is not None and card.body["version"] == version]
    return max(cards, key=lambda card: (card.is_signed, str(card.body["created"])), default=None)


def _card(data: bytes, key: Key) -> StoredCard | None:
    try:
        found = json.loads(data)
        is_signed = "signature" in found
        body = open_signed(data, key, "The card") if is_signed else dict(found)
    except (IntegrityError, ValueError, TypeError, RecursionError):  # damaged, or changed by hand
        return None
    return StoredCard(body=body, is_signed=is_signed) if {"version", "created"} <= body.keys() else None


def latest_of(store: ObjectStore, key: Key, heads: Heads | ProcessHeads | None = None) -> SignedDocument[ChampionPointer]:
    """The pointer, in its place in the store."""
    return SignedDocument(
        ChampionPointer,
        LATEST,
        store,
        key,
        heads,
        what="The pointer to the champion",
        renew="`fraud rollback` to a version makes a newer change; if the store was restored from a backup: "
        '`fraud confirm --restored --reason "..."`, then restart the scorers.',
    )


def read_latest(store: ObjectStore, key: Key) -> ChampionPointer | None:
    """The pointer, None where there is no champion yet.

    Raises:
        IntegrityError: its signature does not hold.
    """
    return latest_of(store, key).read()


def versions(store: ObjectStore, key: Key) -> list[str]:
    """Versions whose bundle is complete: the manifest's signature holds, and every file that it names is there."""
    files: dict[str, set[str]] = {}
    for name in (path.split("/") for path in store.list("models")):
        if len(name) == 3:
            files.setdefault(name[1], set()).add(name[2])
    return [version for version, present in files.items() if _is_whole(store, version, key, present)]


def _is_whole(store: ObjectStore, version: str, key: Key, present: set[str]) -> bool:
    try:
        learned = read_manifest(store, version, key).learned
    except IntegrityError:
        return False
    models = [(learned, MAIN), *([(learned.fallback, FALLBACK)] if learned.fallback is not None else [])]
    return present.issuperset(file for each, names in models for file in file_names(each.kind, names))


def point_at(
    store: ObjectStore,
    version: str,
    key: Key,
    *,
    how: Literal["promotion", "rollback", "restoration"],
    who: str,
    at: datetime,
    reason: str = "",
    withdraw: str | None = None,
    heads: Heads | None = None,
) -> ChampionPointer:
    """Make a version the champion, in one conditional write; nothing happens where it is the champion already.

    Args:
        withdraw: a version marked as withdrawn in the same write.
        heads: remembers which changes were seen; this one becomes newer than all of them.

    Raises:
        IntegrityError: the version's bundle is not whole.
        PromotionError: the version is withdrawn (a restoration lifts that), or somebody else moved the pointer meanwhile.
    """
    read_bundle(store, version, key)
    manifest_sha256 = hashlib.sha256(store.get(f"models/{version}/manifest.json")).hexdigest()
    document = latest_of(store, key, heads)

    def pointed(found: Found[ChampionPointer]) -> ChampionPointer:
        if found.problem is not None:
            raise IntegrityError(found.problem)
        current, sequence = found.document, document.next_sequence(found)
        withdrawn = {} if current is None else dict(current.withdrawn)
        if how == "restoration":
            withdrawn.pop(version, None)
        if version in withdrawn:
            raise PromotionError(
                f"Version {version} was withdrawn by {withdrawn[version].who}: {withdrawn[version].reason}. "
                f"`fraud restore {version}` takes that back."
            )
        if withdraw == version:
            raise PromotionError(f"Version {version} cannot be made champion and withdrawn at once.")
        if withdraw is not None:
            withdrawn[withdraw] = Withdrawal(who=who, reason=reason, at=at)
        is_newest = current is not None and current.sequence + 1 == sequence
        if is_newest and current is not None and current.version == version and withdrawn == current.withdrawn:
            return current
        change = Change(sequence=sequence, version=version, at=at, how=how, who=who, reason=reason)
        return ChampionPointer(
            version=version,
            manifest_sha256=manifest_sha256,
            history=(*(current.history if current else ()), change),
            withdrawn=withdrawn,
        )

    try:
        return document.update(pointed, attempts=1)
    except StoreConflictError as error:
        raise PromotionError("Another promotion or rollback moved the pointer at the same moment; look and try again.") from error
