"""Judge a candidate for champion by what the store holds, once a run."""

from collections.abc import Mapping
from datetime import datetime

from fraud_assets.installation import Installation
from fraud_assets.training.promotion import SETTINGS, judge_promotion, recent_champions
from fraud_assets.training.rows import Rows, read_rows
from fraud_assets.training.task import measured_partitions
from fraud_assets.training.training import TrainedModel
from fraud_core.errors import IntegrityError
from fraud_core.evaluation.model_card import Promotion
from fraud_core.models.bundle import Bundle, read_bundle
from fraud_core.models.registry import ChampionPointer
from fraud_core.storage.artifacts import fingerprint


def promotion_of(installation: Installation, trained: TrainedModel, now: datetime) -> Promotion:
    """Whether the candidate may become champion (see `judge_promotion`). Reads the store, writes nothing.

    A run asks twice, in its check and before it points at the model. The second time gets the first one's answer where nothing
    that decides has changed. That is remembered in this process alone: another one, and whoever can write to the store, has no
    part in it.
    """
    latest = installation.latest()
    champions = {} if latest is None else {version: _champion(installation, version) for version in recent_champions(latest, now)}
    given = _given(installation, trained, latest, champions)
    promotion = installation.promotions.get(given)
    if promotion is None:
        promotion = judge_promotion(trained, latest, champions, lambda: _holdout(installation, trained), installation.settings)
        installation.promotions.clear()
        installation.promotions[given] = promotion
    return promotion


def _given(
    installation: Installation,
    trained: TrainedModel,
    latest: ChampionPointer | None,
    champions: Mapping[str, Bundle | IntegrityError],
) -> str:
    """Hash of all that decides: the candidate and its figures, the champions, the settings, and the hold-out's rows."""
    artifacts = installation.artifacts
    labels = artifacts.pointer("labels")
    return fingerprint(
        trained.bundle.model_dump_json(),
        trained.holdout.model_dump_json(),
        trained.split.model_dump_json(),
        "" if latest is None else latest.model_dump_json(),
        *(f"{version} {found if isinstance(found, IntegrityError) else 'is whole'}" for version, found in champions.items()),
        installation.settings.model_dump_json(include=SETTINGS),
        installation.source.model_dump_json(),
        "" if labels is None else labels.sha256,
        *(f"{key} {pointer.sha256}" for key, pointer in installation.transformed().items()),
        *(f"{part.partition} {part.content}" for part in measured_partitions(artifacts)),
    )


def _champion(installation: Installation, version: str) -> Bundle | IntegrityError:
    """A champion's bundle, or why there is none to compare with."""
    try:
        return read_bundle(installation.artifacts.store, version, installation.artifacts.signing_key)
    except IntegrityError as error:
        return error


def _holdout(installation: Installation, trained: TrainedModel) -> Rows:
    return read_rows(installation.training_data(), measured_partitions(installation.artifacts), trained.split.holdout)
