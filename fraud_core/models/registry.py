"""Model registry: the signed pointer to the champion, its changes and withdrawals, the versions and their cards."""

import hashlib
import json
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from fraud_core.errors import IntegrityError, PromotionError, StoreConflictError
from fraud_core.models.bundle import read_bundle, read_manifest
from fraud_core.models.manifest import FALLBACK, MAIN, SignedPart, file_names
from fraud_core.signing.documents import open_document, signature_of, signed_document
from fraud_core.signing.keys import Key, open_signed
from fraud_core.storage.heads import Head, Heads
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


class ChampionPointer(SignedPart):
    """The pointer. `history` holds the changes so far, newest last; `withdrawn` the versions taken out of service."""

    version: str
    manifest_sha256: str
    sequence: int
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


def read_latest(store: ObjectStore, key: Key) -> ChampionPointer | None:
    """The pointer, None where there is no champion yet.

    Raises:
        IntegrityError: its signature does not hold.
    """
    found = store.get_tagged(LATEST)
    return None if found is None else parse_latest(found[0], key, store.uri(LATEST))


def parse_latest(data: bytes, key: Key, where: str) -> ChampionPointer:
    """Verify and parse the bytes of a pointer.

    Raises:
        IntegrityError: the signature does not hold.
    """
    return open_document(ChampionPointer, data, key, where)


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


def pointer_head(data: bytes, latest: ChampionPointer) -> Head:
    """Which change of the pointer these bytes are; they were verified before."""
    return Head(latest.sequence, signature_of(data))


def follow_latest(store: ObjectStore, key: Key, heads: Heads) -> ChampionPointer | None:
    """The pointer, for what decides by it; None where there is no champion yet.

    Raises:
        IntegrityError: its signature does not hold, it is gone, or an older one was put back.
        StoreError: the database that remembers which was seen cannot be used.
    """
    for _ in range(2):  # a newer one may come between our look at the store and that at what was seen
        found = store.get_tagged(LATEST)
        latest = None if found is None else parse_latest(found[0], key, store.uri(LATEST))
        if found is None or latest is None:
            if not heads.sequence(LATEST):
                return None
        elif not heads.older({LATEST: pointer_head(found[0], latest)}):
            return latest
    lies = "is gone" if latest is None else f"is change {latest.sequence} of the pointer"
    raise IntegrityError(
        f"{store.uri(LATEST)} {lies}, and change {heads.sequence(LATEST)} was seen before: it is not used. `fraud rollback` to a "
        'version makes a newer change; if the store was restored from a backup: `fraud confirm --restored --reason "..."`.'
    )


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
    found = store.get_tagged(LATEST)
    current = None if found is None else parse_latest(found[0], key, store.uri(LATEST))
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
    seen = 0 if heads is None else heads.sequence(LATEST)
    if current is not None and current.version == version and withdrawn == current.withdrawn and current.sequence >= seen:
        return current
    sequence = max(0 if current is None else current.sequence, seen) + 1
    change = Change(sequence=sequence, version=version, at=at, how=how, who=who, reason=reason)
    latest = ChampionPointer(
        version=version,
        manifest_sha256=manifest_sha256,
        sequence=sequence,
        history=(*(current.history if current else ()), change),
        withdrawn=withdrawn,
    )
    data = signed_document(latest, key)
    try:
        store.put_if(LATEST, data, None if found is None else found[1])
    except StoreConflictError as error:
        # A retry after a lost answer meets its own write: that is a success.
        if store.get(LATEST) != data:
            raise PromotionError(
                "Another promotion or rollback moved the pointer at the same moment; look and try again."
            ) from error
    if heads is not None:
        heads.older({LATEST: pointer_head(data, latest)})
    return latest
