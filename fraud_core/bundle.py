"""The serving bundle: what was learned and nothing else, written once under its hash, and the signed pointer to the champion.

    models/<version>/      model.treelite or model.json, encoder.json, manifest.json: write-once; and where the model uses
                           history, fallback.treelite or fallback.json, fallback_encoder.json: a second one that does without
    models/latest.json     which version is champion, who was before, what is withdrawn: the one mutable object

Nothing here is a pickle, and signature and hashes are verified before anything is parsed.
"""

import hashlib
import json
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fraud_core.encoder import Encoder
from fraud_core.errors import IntegrityError, PromotionError, StoreConflictError
from fraud_core.history.windows import NEWEST_EVENTS, Reach
from fraud_core.keys import Key, canonical_json, open_signed, sign
from fraud_core.stores.heads import Head, Heads
from fraud_core.stores.objects import ObjectStore

FORMAT = 2
LATEST = "models/latest.json"
SUFFIXES = {"boosting": "treelite", "forest": "treelite", "linear": "json"}
MAIN, FALLBACK = ("model", "encoder"), ("fallback", "fallback_encoder")  # what the files of each model are called
ModelKind = Literal["boosting", "forest", "linear"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Calibration(_Model):
    """Platt's map: log-odds = slope * margin + intercept.

    The margin is boosting's raw log-odds, a forest's mean probability, or a linear model's decision function.
    """

    slope: float
    intercept: float


class Thresholds(_Model):
    """Probabilities from which a payment is reviewed and declined; review <= decline."""

    review: float
    decline: float


class Lookback(_Model):
    """How far the features of the past look back, in days, and at how many payments of a card at most."""

    history_days: int
    label_delay_days: int
    newest_events: int = NEWEST_EVENTS

    @property
    def reach(self) -> Reach:
        """The same as the windows take it."""
        return Reach.of_days(self.history_days, self.label_delay_days, self.newest_events)


class LearnedModel(_Model):
    """What decides the scores of one model; its two files by their hashes."""

    features: tuple[str, ...]
    kind: ModelKind
    model_sha256: str
    encoder_sha256: str
    calibration: Calibration
    thresholds: Thresholds


class Learned(LearnedModel):
    """Everything that decides a score. The version of a bundle is the hash of this.

    `lookback` and `fallback`, the second model, are None where no feature speaks of the past.
    """

    format: int = FORMAT
    source: str
    timezone: str
    feature_version: int
    lookback: Lookback | None = None
    fallback: LearnedModel | None = None

    @property
    def version(self) -> str:
        """16 hex digits."""
        deciding = self.model_dump(mode="json")
        if self.lookback is not None and self.lookback.newest_events == NEWEST_EVENTS:
            del deciding["lookback"]["newest_events"]  # bundles of before it was declared are known by what was declared then
        return hashlib.sha256(canonical_json(deciding)).hexdigest()[:16]


class Lineage(_Model):
    """Where the knowledge came from: partitions as (key, content hash, verdict), and under which keys and libraries.

    `data_revision` is the commit of the data repository that holds all of it; None where no data versions are made, or where
    this one was made later. It is found by the version in any case.
    """

    training_set: str
    labels: str = ""  # hash of what the log of labels changed among these payments; empty: nothing
    partitions: tuple[tuple[str, str, str], ...]
    rejected: tuple[tuple[str, str], ...] = ()
    files: dict[str, str] = {}  # partition -> SHA-256 of the file that was read; empty where release 0.1.0 trained
    dropped_features: tuple[str, ...] = ()
    card_key_id: str
    libraries: dict[str, str]
    data_revision: str | None = None
    digits: dict[str, tuple[int, ...]] = {}  # names that are numbers of so many digits by design (`sources.TextColumn`)


class Manifest(_Model):
    """A bundle's table of contents."""

    version: str
    learned: Learned
    lineage: Lineage


class Fitted(_Model):
    """A model that can score: its bytes, how features become its columns, and how its margins become decisions."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    kind: ModelKind
    model: bytes
    encoder: Encoder
    calibration: Calibration
    thresholds: Thresholds


class Bundle(Fitted):
    """A bundle in memory: its model, its manifest, and the second model, which scores where history cannot be had."""

    manifest: Manifest
    fallback: Fitted | None = None

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.manifest.version

    @property
    def without_history(self) -> "Bundle | None":
        """The second model in the first one's place; None where the first uses no history."""
        return None if self.fallback is None else Bundle(manifest=self.manifest, **dict(self.fallback))


class Change(_Model):
    """One change of the pointer."""

    sequence: int
    version: str
    at: datetime
    how: Literal["promotion", "rollback", "restoration"]
    who: str
    reason: str = ""


class Withdrawal(_Model):
    """Why a version may not be promoted by any automation."""

    who: str
    reason: str
    at: datetime


class Latest(_Model):
    """The pointer. `history` holds the changes so far, newest last; `withdrawn` the versions taken out of service."""

    version: str
    manifest_sha256: str
    sequence: int
    history: tuple[Change, ...] = ()
    withdrawn: dict[str, Withdrawal] = {}


Signed = TypeVar("Signed", Manifest, Latest)


def make_bundle(
    *,
    source: str,
    timezone: str,
    feature_version: int,
    kind: ModelKind,
    model: bytes,
    encoder: Encoder,
    calibration: Calibration,
    thresholds: Thresholds,
    lineage: Lineage,
    lookback: Lookback | None = None,
    fallback: Fitted | None = None,
) -> Bundle:
    """Put a bundle together; its version follows from what was learned.

    Args:
        lookback: how far the features of the past look back; None where there are none.
        fallback: a second model, without features of the past.
    """
    fitted = Fitted(kind=kind, model=model, encoder=encoder, calibration=calibration, thresholds=thresholds)
    learned = Learned(
        **_learned(fitted),
        source=source,
        timezone=timezone,
        feature_version=feature_version,
        lookback=lookback,
        fallback=None if fallback is None else LearnedModel(**_learned(fallback)),
    )
    manifest = Manifest(version=learned.version, learned=learned, lineage=lineage)
    return Bundle(manifest=manifest, fallback=fallback, **dict(fitted))


def write_bundle(store: ObjectStore, bundle: Bundle, key: Key) -> None:
    """Write the bundle under its version, the manifest last. A version that is there already is left as it is."""
    folder = f"models/{bundle.version}"
    contents = _files(bundle, MAIN) | ({} if bundle.fallback is None else _files(bundle.fallback, FALLBACK))
    contents["manifest.json"] = canonical_json(sign(bundle.manifest.model_dump(mode="json"), key))
    for name, data in contents.items():
        try:
            store.put_if(f"{folder}/{name}", data, None)
        except StoreConflictError:
            if name != "manifest.json" and store.get(f"{folder}/{name}") != data:
                raise IntegrityError(
                    f"{store.uri(folder)}/{name} exists with other content than its version says; remove the folder."
                ) from None


def read_bundle(store: ObjectStore, version: str, key: Key, manifest_sha256: str | None = None) -> Bundle:
    """Read and verify a bundle: the manifest, then every file's hash.

    Raises:
        IntegrityError: something is missing or is not what was signed.
    """
    manifest = read_manifest(store, version, key, manifest_sha256)
    folder, learned = f"models/{version}", manifest.learned
    fallback = None if learned.fallback is None else _read_fitted(store, folder, learned.fallback, FALLBACK)
    return Bundle(manifest=manifest, fallback=fallback, **dict(_read_fitted(store, folder, learned, MAIN)))


def read_manifest(store: ObjectStore, version: str, key: Key, manifest_sha256: str | None = None) -> Manifest:
    """Read a bundle's manifest alone, and verify its signature (and hash, where the pointer gives one).

    Raises:
        IntegrityError: it is missing, is not what was signed, or is not one that this release reads.
    """
    folder = f"models/{version}"
    raw = _required(store, f"{folder}/manifest.json")
    if manifest_sha256 is not None and hashlib.sha256(raw).hexdigest() != manifest_sha256:
        raise IntegrityError(f"{store.uri(folder)}/manifest.json is not the one the pointer names.")
    manifest = _parsed(Manifest, raw, key, f"{store.uri(folder)}/manifest.json")
    learned = manifest.learned
    if learned.format != FORMAT:
        what = "Train anew" if learned.format < FORMAT else "Upgrade"
        raise IntegrityError(f"{store.uri(folder)} has format {learned.format}; this release reads format {FORMAT}. {what}.")
    if not version == manifest.version == learned.version:
        raise IntegrityError(f"{store.uri(folder)}/manifest.json speaks of version {manifest.version}.")
    return manifest


class StoredCard(_Model):
    """A version's card as it lies in the store (see `ModelCard`).

    `is_signed` is False where it carries no signature, as release 0.1.0 wrote cards: then anybody who can write to the store may
    have written its figures, and whoever shows them says so.
    """

    body: dict[str, Any]
    is_signed: bool


def newest_card(store: ObjectStore, version: str, key: Key) -> StoredCard | None:
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


def read_latest(store: ObjectStore, key: Key) -> Latest | None:
    """The pointer, None where there is no champion yet.

    Raises:
        IntegrityError: its signature does not hold.
    """
    found = store.get_tagged(LATEST)
    return None if found is None else parse_latest(found[0], key, store.uri(LATEST))


def parse_latest(data: bytes, key: Key, where: str) -> Latest:
    """Verify and parse the bytes of a pointer.

    Raises:
        IntegrityError: the signature does not hold.
    """
    return _parsed(Latest, data, key, where)


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
    needed = [file for each, names in models for file in (f"{names[0]}.{SUFFIXES[each.kind]}", f"{names[1]}.json")]
    return present.issuperset(needed)


def pointer_head(data: bytes, latest: Latest) -> Head:
    """Which change of the pointer these bytes are; they were verified before."""
    return Head(latest.sequence, str(json.loads(data)["signature"]))


def follow_latest(store: ObjectStore, key: Key, heads: Heads) -> Latest | None:
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
) -> Latest:
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
    latest = Latest(
        version=version,
        manifest_sha256=manifest_sha256,
        sequence=sequence,
        history=(*(current.history if current else ()), change),
        withdrawn=withdrawn,
    )
    data = canonical_json(sign(latest.model_dump(mode="json"), key))
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


def _learned(fitted: Fitted) -> dict[str, Any]:
    """The fields of `LearnedModel`."""
    return {
        "features": fitted.encoder.features,
        "kind": fitted.kind,
        "model_sha256": hashlib.sha256(fitted.model).hexdigest(),
        "encoder_sha256": hashlib.sha256(_encoder_bytes(fitted.encoder)).hexdigest(),
        "calibration": fitted.calibration,
        "thresholds": fitted.thresholds,
    }


def _files(fitted: Fitted, names: tuple[str, str]) -> dict[str, bytes]:
    model, encoder = names
    return {f"{model}.{SUFFIXES[fitted.kind]}": fitted.model, f"{encoder}.json": _encoder_bytes(fitted.encoder)}


def _read_fitted(store: ObjectStore, folder: str, learned: LearnedModel, names: tuple[str, str]) -> Fitted:
    model = _checked(store, f"{folder}/{names[0]}.{SUFFIXES[learned.kind]}", learned.model_sha256)
    encoder = _checked(store, f"{folder}/{names[1]}.json", learned.encoder_sha256)
    return Fitted(
        kind=learned.kind,
        model=model,
        encoder=Encoder.model_validate_json(encoder),
        calibration=learned.calibration,
        thresholds=learned.thresholds,
    )


def _encoder_bytes(encoder: Encoder) -> bytes:
    return canonical_json(encoder.model_dump(mode="json"))


def _parsed(kind: type[Signed], data: bytes, key: Key, where: str) -> Signed:
    """A signed document, verified before it is parsed."""
    body = open_signed(data, key, where)
    try:
        return kind.model_validate(body)
    except ValidationError as error:  # signed by us, and yet another document, or another release's
        raise IntegrityError(f"{where} is signed, but is not a {kind.__name__.lower()} that this release reads.") from error


def _required(store: ObjectStore, key: str) -> bytes:
    try:
        return store.get(key)
    except KeyError:
        raise IntegrityError(f"{store.uri(key)} is missing; the bundle is not whole.") from None


def _checked(store: ObjectStore, key: str, sha256: str) -> bytes:
    data = _required(store, key)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(f"{store.uri(key)} does not have the hash its manifest gives; it is not used.")
    return data
