"""The serving bundle: what was learned and nothing else, written once under its hash, and the signed pointer to the champion.

    models/<version>/      model.treelite or model.json, encoder.json, manifest.json: write-once; and where the model uses
                           history, fallback.treelite or fallback.json, fallback_encoder.json: a second one that does without
    models/latest.json     which version is champion, who was before, what is withdrawn: the one mutable object

Nothing here is a pickle, and signature and hashes are verified before anything is parsed.
"""

import hashlib
from typing import Any

from pydantic import ConfigDict

from fraud_core.errors import IntegrityError, StoreConflictError
from fraud_core.features.encoder import Encoder
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.models.manifest import (
    FALLBACK,
    FORMAT,
    MAIN,
    Calibration,
    Learned,
    LearnedModel,
    Lineage,
    Lookback,
    Manifest,
    ModelKind,
    SignedPart,
    Thresholds,
    file_names,
)
from fraud_core.signing.documents import open_document, signed_document
from fraud_core.signing.keys import Key, canonical_json
from fraud_core.storage.objects import ObjectStore


class Fitted(SignedPart):
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
    declared: Declared = NOTHING,
) -> Bundle:
    """Put a bundle together; its version follows from what was learned.

    Args:
        lookback: how far the features of the past look back; None where there are none.
        fallback: a second model, without features of the past.
    """
    fitted = Fitted(kind=kind, model=model, encoder=encoder, calibration=calibration, thresholds=thresholds)
    learned = Learned(
        declared=None if declared.is_standard else declared,
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
    contents["manifest.json"] = signed_document(bundle.manifest, key)
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
    manifest = open_document(Manifest, raw, key, f"{store.uri(folder)}/manifest.json", version=version)
    learned = manifest.learned
    if learned.format != FORMAT:
        what = "Train anew" if learned.format < FORMAT else "Upgrade"
        raise IntegrityError(f"{store.uri(folder)} has format {learned.format}; this release reads format {FORMAT}. {what}.")
    if learned.version != version:
        raise IntegrityError(f"{store.uri(folder)}/manifest.json speaks of version {learned.version}.")
    return manifest


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
    return dict(zip(file_names(fitted.kind, names), (fitted.model, _encoder_bytes(fitted.encoder)), strict=True))


def _read_fitted(store: ObjectStore, folder: str, learned: LearnedModel, names: tuple[str, str]) -> Fitted:
    model_name, encoder_name = file_names(learned.kind, names)
    model = _checked(store, f"{folder}/{model_name}", learned.model_sha256)
    encoder = _checked(store, f"{folder}/{encoder_name}", learned.encoder_sha256)
    return Fitted(
        kind=learned.kind,
        model=model,
        encoder=Encoder.model_validate_json(encoder),
        calibration=learned.calibration,
        thresholds=learned.thresholds,
    )


def _encoder_bytes(encoder: Encoder) -> bytes:
    return canonical_json(encoder.model_dump(mode="json"))


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
