"""The drift gate: which partitions may train a model. Pure functions over the object store; Dagster shows what they say.

A verdict is a signed file, `drift/<partition>.json`, bound to the content it judged. The training set is the materialized
partitions whose verdict holds for their present content and accepts them. Nothing else is asked: neither Dagster's records nor
the run.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import metadata
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from fraud_core import drift, partitions
from fraud_core.errors import GateRefusalError, IntegrityError, StoreConflictError
from fraud_core.features import Feature
from fraud_core.keys import Key, canonical_json, sign, verify
from fraud_core.sources import Drift, Source
from fraud_core.stores.objects import ObjectStore

FOLDER = "drift"
REJECTED_SHARE = 0.2  # the partition is rejected when a larger share of its blocking features has drifted,
REJECTED_SEVERITY = 2.0  # or when one of them lies further out than so many times its bound
MINIMUM_ROWS = 500  # fewer cannot tell a shift from chance
UNSEEN_SHARE = 0.001  # of the rows may lie in categories that the reference has never seen ...
UNSEEN_ROWS = 10  # ... or this many in as many rows as the reference has: a small one has not seen every rare category
CONSTANT_PROBABILITY = 1e-6  # a constant column is a finding where chance makes one less often
NULL_DEVIATIONS = 3.0  # standard errors added to the tolerated share of nulls
VOLUME_FACTOR = 3.0  # more or fewer rows than the references' median by this factor are a (non-blocking) finding
NATURAL_PARTITIONS = 24  # so many accepted partitions tell how large natural variation is
_ATTEMPTS = 5


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PartitionRef(_Model):
    """A partition and the sha256 (hex) of its transformed content."""

    partition: str
    content: str


class ReferencePart(PartitionRef):
    """An accepted partition behind the reference, and how many of the reference's rows are its."""

    rows: int


class FeatureResult(_Model):
    """One feature of the judged partition against the reference.

    `excess` is the distance beyond `noise`, which is what sampling alone gives; `clustering` says how much of that comes from
    rows that share a card. The feature has drifted when its corrected p-value lies under the significance and its excess above
    the bound.
    """

    name: str
    role: Literal["blocks", "reported"]
    measure: Literal["KS distance", "Cramer's V"]
    distance: float
    noise: float
    clustering: float
    excess: float
    bound: float
    statistic: float
    p_value: float
    p_corrected: float
    rows_reference: int
    rows_current: int
    drifted: bool

    @property
    def severity(self) -> float:
        """Excess in units of the bound; above 2 the feature alone rejects the partition."""
        return self.excess / self.bound


class Finding(_Model):
    """Something about the partition that has a name of its own; `message` is a sentence for people."""

    name: Literal[
        "too_few_rows",
        "no_reference",
        "missing_column",
        "constant_column",
        "null_share",
        "unseen_category",
        "feature_drift",
        "drifted_share",
        "volume",
    ]
    message: str
    blocking: bool = True
    feature: str | None = None
    value: float
    bound: float


class Decision(_Model):
    """What a person said about one content, whatever the statistics say."""

    action: Literal["accept", "refuse"]
    who: str
    reason: str
    at: datetime


class Verdict(_Model):
    """What the gate says about one partition's content, and its evidence.

    `accepted` is what the statistics say; `is_accepted` is what holds, with the last decision of a person.
    """

    format: Literal[1] = 1
    partition: str
    content: str
    kind: Literal["bootstrap", "judged"]
    accepted: bool
    rows: int
    features: tuple[FeatureResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    reference: tuple[ReferencePart, ...] = ()
    sample_rows: int
    sample_sha256: str
    seed: int
    detector: str
    versions: dict[str, str]
    created_at: datetime
    decisions: tuple[Decision, ...] = ()

    @property
    def ref(self) -> PartitionRef:
        """The partition and content that this verdict speaks of."""
        return PartitionRef(partition=self.partition, content=self.content)

    @property
    def overruled_by(self) -> Decision | None:
        """The person's acceptance that holds, if any."""
        return self._last("accept")

    @property
    def refused_by(self) -> Decision | None:
        """The person's refusal that holds, if any."""
        return self._last("refuse")

    @property
    def is_accepted(self) -> bool:
        """Whether this content may train: the last decision of a person, else what the statistics say."""
        return self.refused_by is None and (self.accepted or self.overruled_by is not None)

    @property
    def sample_key(self) -> str:
        """Where this partition's sample of features lies in the store."""
        return f"{FOLDER}/samples/{self.partition}-{self.content[:12]}.parquet"

    @property
    def worst(self) -> tuple[FeatureResult, ...]:
        """The features, furthest beyond their bound first."""
        return tuple(sorted(self.features, key=lambda feature: -feature.severity))

    def _last(self, action: str) -> Decision | None:
        return self.decisions[-1] if self.decisions and self.decisions[-1].action == action else None


@dataclass(frozen=True)
class Judgement:
    """A verdict with the two samples behind it (watched features only, Float64 or String), for plots and for the store.

    `sample` is `current` as Parquet, whose hash the verdict holds. `reference` is empty where nothing was accepted before.
    """

    verdict: Verdict
    current: pl.DataFrame
    reference: pl.DataFrame
    sample: bytes


@dataclass(frozen=True)
class Past:
    """What a partition is judged against: accepted verdicts before it, oldest first, and the samples of the last K of them."""

    verdicts: tuple[Verdict, ...] = ()
    samples: tuple[pl.DataFrame, ...] = ()

    @property
    def references(self) -> tuple[Verdict, ...]:
        """The verdicts of the partitions whose samples are the reference."""
        return self.verdicts[len(self.verdicts) - len(self.samples) :]

    def after(self, judgement: Judgement, settings: Drift) -> "Past":
        """This past with one more partition, if it was accepted."""
        if not judgement.verdict.is_accepted:
            return self
        return Past(
            (*self.verdicts, judgement.verdict)[-NATURAL_PARTITIONS:],
            (*self.samples, judgement.current)[-settings.reference_partitions :],
        )


@dataclass(frozen=True)
class TrainingSet:
    """The partitions that may train, and those that may not, each bound to its present content; in key order."""

    accepted: tuple[PartitionRef, ...]
    rejected: tuple[PartitionRef, ...]
    verdicts: Mapping[str, Verdict]


def verdict_key(partition: str) -> str:
    """Key of a partition's verdict in the store."""
    return f"{FOLDER}/{partition}.json"


def position(source: Source, partition: str) -> int:
    """How many partitions of the source lie before this one, by the calendar.

    Raises:
        PartitionError: the key is not one of the source's cadence.
    """
    return len(partitions.key_range(source.first, partition, source.cadence)) - 1


def judge(
    *,
    partition: str,
    content: str,
    frame: pl.DataFrame,
    features: Sequence[Feature],
    past: Past,
    position: int,
    settings: Drift,
    seed: int,
    detector: drift.Detector,
    now: datetime,
) -> Judgement:
    """Judge a partition against the accepted ones before it. Pure: reads and writes nothing.

    Args:
        partition: its key.
        content: sha256 (hex) of its transformed content.
        frame: the transformed partition, n rows; columns other than features and `card` are not looked at.
        features: those that this source has (`features.available`).
        past: from `load_past`.
        position: how many partitions of the source lie before this one (`gate.position`); the first `bootstrap_partitions` are
            accepted unjudged unless they are broken. By the calendar, so that no order of materialization makes a bootstrap.
        settings: the source's.
        seed: of the samples; each draw is also bound to the content.
        detector: who computes the p-values.
        now: when, with a time zone.
    """
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(content.encode()).digest()[:8])])
    watched = [feature for feature in features if feature.drift != "left_out"]
    present = _values(frame, watched)
    drawn = _draw(frame.height, settings.sample_rows, rng)
    current = present[drawn]
    cards = _codes(frame["card"][drawn]) if "card" in frame.columns else None
    reference, parts = _reference(past, settings.sample_rows, rng)
    bootstrap = position < settings.bootstrap_partitions

    broken = _broken(present, watched)
    strange = _incomparable(present, reference, watched) + _strange(present, reference, watched, past, settings)
    results = _results(current, reference, cards=cards, features=watched, past=past, detector=detector)
    drifted = _drifted(results)
    if bootstrap:
        strange, drifted = [_unblocking(f) for f in strange], [_unblocking(f) for f in drifted]
    findings = (*broken, *strange, *drifted)

    buffer = io.BytesIO()
    current.write_parquet(buffer)
    verdict = Verdict(
        partition=partition,
        content=content,
        kind="bootstrap" if bootstrap else "judged",
        accepted=not any(finding.blocking for finding in findings),
        rows=frame.height,
        features=results,
        findings=findings,
        reference=parts,
        sample_rows=current.height,
        sample_sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        seed=seed,
        detector=detector.__name__,
        versions=_versions(),
        created_at=now,
    )
    return Judgement(verdict, current, reference, buffer.getvalue())


def load_past(store: ObjectStore, key: Key, partition: str, materialized: Mapping[str, str], settings: Drift) -> Past:
    """The accepted verdicts before the partition that hold for their present content, and the samples of the last K.

    Args:
        store: where verdicts and samples lie.
        key: the signing key.
        partition: the one to be judged.
        materialized: partition -> sha256 of its present transformed content, for every materialized partition.
        settings: the source's.

    Raises:
        IntegrityError: a sample is missing or is not the one that its verdict was signed with.
    """
    verdicts: list[Verdict] = []
    for earlier in sorted((other for other in materialized if other < partition), reverse=True):
        if len(verdicts) == NATURAL_PARTITIONS:
            break
        try:
            verdict = read_verdict(store, key, earlier)
        except IntegrityError:
            continue  # not trusted, so not a reference; `training_set` refuses until it is judged again
        if verdict is not None and verdict.content == materialized[earlier] and verdict.is_accepted:
            verdicts.insert(0, verdict)
    samples = tuple(_read_sample(store, verdict) for verdict in verdicts[-settings.reference_partitions :])
    return Past(tuple(verdicts), samples)


def record(store: ObjectStore, key: Key, judgement: Judgement) -> Verdict:
    """Write the sample and the signed verdict, and return it as written.

    What people decided about this very content is carried over; decisions about other content go with its verdict.

    Raises:
        StoreError: the store refuses, or others keep writing the same verdict.
    """
    store.put(judgement.verdict.sample_key, judgement.sample)

    def renewed(data: bytes | None) -> Verdict:
        try:
            previous = None if data is None else _parse(data, key, judgement.verdict.partition)
        except IntegrityError:
            previous = None  # what does not verify decides nothing, and is replaced
        same = previous is not None and previous.content == judgement.verdict.content
        return judgement.verdict.model_copy(update={"decisions": previous.decisions if previous and same else ()})

    return _update(store, key, judgement.verdict.partition, renewed)


def read_verdict(store: ObjectStore, key: Key, partition: str) -> Verdict | None:
    """The partition's verdict; None where there is none.

    Raises:
        IntegrityError: it was changed by hand, signed with another key, or belongs to another partition.
    """
    try:
        data = store.get(verdict_key(partition))
    except KeyError:
        return None
    return _parse(data, key, partition)


def training_set(store: ObjectStore, key: Key, materialized: Mapping[str, str], own_partition: str | None = None) -> TrainingSet:
    """The partitions that may train a model.

    Args:
        store: where the verdicts lie.
        key: the signing key.
        materialized: partition -> sha256 of its present transformed content, for every materialized partition.
        own_partition: the partition of the asking run, if it has one; it must be accepted.

    Raises:
        GateRefusalError: a materialized partition has no verdict, one for other content or one that does not verify; the run's
            own partition is not accepted; or none is.
    """
    verdicts = {partition: _holding(store, key, partition, materialized[partition]) for partition in sorted(materialized)}
    if own_partition is not None:
        if own_partition not in verdicts:
            raise GateRefusalError(
                f"Partition {own_partition} is not materialized, so it has no drift verdict; materialize transformed for it."
            )
        if not verdicts[own_partition].is_accepted:
            raise GateRefusalError(explain(verdicts[own_partition]))
    if not any(verdict.is_accepted for verdict in verdicts.values()):
        raise GateRefusalError(
            "No partition is accepted by the drift gate, so there is nothing to train on; "
            "materialize transformed and run its check `drift`."
        )
    return TrainingSet(
        accepted=tuple(verdict.ref for verdict in verdicts.values() if verdict.is_accepted),
        rejected=tuple(verdict.ref for verdict in verdicts.values() if not verdict.is_accepted),
        verdicts=verdicts,
    )


def explain(verdict: Verdict) -> str:
    """One sentence: why the partition may not train, and how a person accepts it."""
    if verdict.refused_by is not None:
        cause = f"was refused by {verdict.refused_by.who} ({verdict.refused_by.reason})"
    else:
        blocking = [finding.message for finding in verdict.findings if finding.blocking]
        more = f"; and {len(blocking) - 3} more" if len(blocking) > 3 else ""
        cause = f"is rejected by the drift gate: {'; '.join(blocking[:3])}{more}"
    return (
        f"Partition {verdict.partition} {cause}. No model is trained on it; if the data is right all the same, "
        f'accept it with `fraud accept {verdict.partition} --reason "..."`.'
    )


def accept(store: ObjectStore, key: Key, partition: str, content: str, *, who: str, reason: str, now: datetime) -> Verdict:
    """A person lets this content train, whatever the statistics say; returns the verdict as written.

    Args:
        store: where the verdict lies.
        key: the signing key.
        partition: its key.
        content: sha256 (hex) of its present transformed content; the acceptance holds for no other.
        who: the person, as far as known.
        reason: why, in at least two words.
        now: when, with a time zone.

    Raises:
        GateRefusalError: the reason has no words, there is no verdict, or it speaks of other content.
    """
    return _decide(store, key, partition, content, Decision(action="accept", who=who, reason=reason, at=now))


def refuse(store: ObjectStore, key: Key, partition: str, content: str, *, who: str, reason: str, now: datetime) -> Verdict:
    """A person takes an acceptance back, their own or the gate's: the contrary of `accept`, with its arguments and errors."""
    return _decide(store, key, partition, content, Decision(action="refuse", who=who, reason=reason, at=now))


def fingerprint(accepted: TrainingSet) -> str:
    """sha256 (hex) of the accepted partitions and their contents: equal for equal training sets, whatever was rejected."""
    pairs = sorted((part.partition, part.content) for part in accepted.accepted)
    return hashlib.sha256(canonical_json({"accepted": pairs})).hexdigest()


def walk_forward(
    frames: Iterable[tuple[str, pl.DataFrame]],
    *,
    features: Sequence[Feature],
    settings: Drift,
    seed: int,
    detector: drift.Detector,
    now: datetime,
) -> list[Judgement]:
    """Judge partitions (key, frame of features), oldest first, each against the accepted ones before it; all in memory."""
    past, judgements = Past(), []
    for place, (partition, frame) in enumerate(frames):
        judgement = judge(
            partition=partition,
            content=hashlib.sha256(partition.encode()).hexdigest(),  # only names the draw
            frame=frame,
            features=features,
            past=past,
            position=place,
            settings=settings,
            seed=seed,
            detector=detector,
            now=now,
        )
        judgements.append(judgement)
        past = past.after(judgement, settings)
    return judgements


def _values(frame: pl.DataFrame, features: Sequence[Feature]) -> pl.DataFrame:
    """The features that the frame has, as Float64 or String; NaN, which blinds every test, becomes null."""
    present = [feature for feature in features if feature.name in frame.columns]
    return frame.select(
        pl.col(feature.name).cast(pl.String) if feature.is_category else pl.col(feature.name).cast(pl.Float64).fill_nan(None)
        for feature in present
    )


def _draw(rows: int, most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Positions of at most so many of the rows, drawn without replacement, in order."""
    return np.arange(rows) if rows <= most else np.sort(rng.choice(rows, most, replace=False))


def _codes(cards: pl.Series) -> npt.NDArray[np.int64]:
    """A number for each card; a missing one is a card of its own."""
    codes = cards.rank("dense").cast(pl.Int64).fill_null(0).to_numpy().copy()
    unknown = codes == 0
    codes[unknown] = len(codes) + np.arange(unknown.sum()) + 1
    return codes


def _reference(past: Past, rows: int, rng: np.random.Generator) -> tuple[pl.DataFrame, tuple[ReferencePart, ...]]:
    """At most so many rows of the past samples, each partition in proportion to its own rows."""
    if not past.samples:
        return pl.DataFrame(), ()
    sizes = np.array([verdict.rows for verdict in past.references])
    shares = sizes * rows // sizes.sum() if sizes.sum() > rows else sizes
    drawn = [sample[_draw(sample.height, int(share), rng)] for sample, share in zip(past.samples, shares, strict=True)]
    parts = tuple(
        ReferencePart(partition=verdict.partition, content=verdict.content, rows=part.height)
        for verdict, part in zip(past.references, drawn, strict=True)
    )
    return pl.concat(drawn, how="diagonal"), parts


def _broken(present: pl.DataFrame, features: Sequence[Feature]) -> list[Finding]:
    """What makes a partition unfit even as a bootstrap."""
    findings: list[Finding] = []
    if present.height < MINIMUM_ROWS:
        message = f"{present.height} rows are too few to judge, which takes {MINIMUM_ROWS}"
        findings.append(Finding(name="too_few_rows", message=message, value=present.height, bound=MINIMUM_ROWS))
    for feature in features:
        if feature.name not in present.columns:
            message = f"column {feature.name} is missing"
            findings.append(Finding(name="missing_column", feature=feature.name, message=message, value=1, bound=0))
        elif feature.drift == "blocks" and present[feature.name].null_count() == present.height > 0:
            message = f"column {feature.name} holds no value at all"
            findings.append(Finding(name="null_share", feature=feature.name, message=message, value=1, bound=0))
    return findings


def _incomparable(present: pl.DataFrame, reference: pl.DataFrame, features: Sequence[Feature]) -> list[Finding]:
    """What cannot be compared. With `_broken`, every blocking feature is either compared or has a blocking finding."""
    if reference.height < MINIMUM_ROWS:
        message = f"the accepted partitions before it offer {reference.height} rows to compare with, of at least {MINIMUM_ROWS}"
        return [Finding(name="no_reference", message=message, value=reference.height, bound=MINIMUM_ROWS)]
    return [
        Finding(
            name="no_reference",
            feature=feature.name,
            message=f"no accepted partition before it has values of {feature.name} to compare with",
            value=0,
            bound=1,
        )
        for feature in features
        if feature.drift == "blocks" and _has_values(present, feature.name) and not _has_values(reference, feature.name)
    ]


def _strange(
    present: pl.DataFrame, reference: pl.DataFrame, features: Sequence[Feature], past: Past, settings: Drift
) -> list[Finding]:
    """What a comparison of distributions does not see, or should not have to."""
    findings: list[Finding] = []
    for feature in features:
        if not (_has_values(present, feature.name) and _has_values(reference, feature.name)):
            continue
        values, usual = present[feature.name], reference[feature.name]
        found = [_nulls(values, usual, settings.null_share), _constant(values, usual)]
        if feature.is_category:
            samples = [sample[feature.name] for sample in past.samples if feature.name in sample.columns]
            found.append(_unseen(values, samples))
        findings += [
            finding.model_copy(update={"blocking": feature.drift == "blocks"}) for finding in found if finding is not None
        ]
    if past.samples:
        typical = float(np.median([verdict.rows for verdict in past.references]))
        ratio = present.height / max(typical, 1.0)
        if not 1 / VOLUME_FACTOR <= ratio <= VOLUME_FACTOR:
            message = f"{present.height} rows where {typical:.0f} are usual"
            findings.append(Finding(name="volume", blocking=False, message=message, value=ratio, bound=VOLUME_FACTOR))
    return findings


def _has_values(frame: pl.DataFrame, name: str) -> bool:
    return name in frame.columns and frame[name].null_count() < frame.height


def _nulls(values: pl.Series, usual: pl.Series, tolerated: float) -> Finding | None:
    share, before = values.null_count() / len(values), usual.null_count() / len(usual)
    error = np.sqrt(before * (1 - before) * (1 / len(values) + 1 / len(usual)))
    limit = float(before + tolerated + NULL_DEVIATIONS * error)
    if share <= limit:
        return None
    message = f"{values.name} is missing in {share:.1%} of the rows, where {before:.1%} is usual"
    return Finding(name="null_share", feature=values.name, message=message, value=share, bound=limit)


def _constant(values: pl.Series, usual: pl.Series) -> Finding | None:
    values, usual = values.drop_nulls(), usual.drop_nulls()
    if values.n_unique() > 1:
        return None
    by_chance = float((usual == values[0]).sum() / len(usual)) ** len(values)
    if by_chance >= CONSTANT_PROBABILITY:
        return None
    message = f"{values.name} has one value in all {len(values)} rows"
    return Finding(name="constant_column", feature=values.name, message=message, value=by_chance, bound=CONSTANT_PROBABILITY)


def _unseen(values: pl.Series, seen: Sequence[pl.Series]) -> Finding | None:
    known, values = pl.concat(seen).drop_nulls(), values.drop_nulls()
    strangers = values.filter(~values.is_in(known.unique().implode()))
    share, limit = len(strangers) / len(values), max(UNSEEN_SHARE, UNSEEN_ROWS / len(known))
    if share <= limit:
        return None
    names = strangers.value_counts(sort=True)[values.name].head(3).to_list()
    shown = ", ".join(f"'{name[:40]}'" for name in names)
    message = f"{share:.1%} of the rows lie in categories of {values.name} never seen before ({shown})"
    return Finding(name="unseen_category", feature=values.name, message=message, value=share, bound=limit)


def _results(
    current: pl.DataFrame,
    reference: pl.DataFrame,
    *,
    cards: npt.NDArray[np.int64] | None,
    features: Sequence[Feature],
    past: Past,
    detector: drift.Detector,
) -> tuple[FeatureResult, ...]:
    """Compare feature by feature; those that block and those that are reported are two families of tests."""
    results: list[FeatureResult] = []
    categories = {feature.name for feature in features if feature.is_category}
    for role in ("blocks", "reported"):
        family = [
            feature.name
            for feature in features
            if feature.drift == role and _has_values(current, feature.name) and _has_values(reference, feature.name)
        ]
        arrays = {name: _arrays(reference[name], current[name]) for name in family}
        comparisons = drift.compare(
            {name: pair[0] for name, pair in arrays.items()},
            {name: pair[1] for name, pair in arrays.items()},
            categories,
            detector,
            None if cards is None else {name: cards[current[name].is_not_null().to_numpy()] for name in family},
        )
        for name, comparison in comparisons.items():
            limit = drift.bound(_natural(past, name))
            results.append(
                FeatureResult(
                    name=name,
                    role=role,
                    measure="Cramer's V" if name in categories else "KS distance",
                    **asdict(comparison),
                    excess=comparison.excess,
                    bound=limit,
                    drifted=comparison.p_corrected < drift.SIGNIFICANCE and comparison.excess > limit,
                )
            )
    return tuple(results)


def _arrays(reference: pl.Series, current: pl.Series) -> tuple[drift.Array, drift.Array]:
    """Values without nulls; names become numbers by their place in the sorted union."""
    both = pl.concat([reference.drop_nulls(), current.drop_nulls()])
    if both.dtype == pl.String:
        both = both.rank("dense").cast(pl.Int64)
    values = both.to_numpy()
    split = len(reference) - reference.null_count()
    return values[:split], values[split:]


def _natural(past: Past, name: str) -> list[float]:
    """A feature's excess in the partitions that the gate itself accepted. What a person let pass widens no bound."""
    return [
        feature.excess for verdict in past.verdicts if verdict.accepted for feature in verdict.features if feature.name == name
    ]


def _drifted(results: Sequence[FeatureResult]) -> list[Finding]:
    findings: list[Finding] = []
    for result in results:
        if result.drifted:
            findings.append(
                Finding(
                    name="feature_drift",
                    feature=result.name,
                    blocking=result.role == "blocks" and result.severity > REJECTED_SEVERITY,
                    message=f"{result.name} has drifted: {result.measure} {result.distance:.3f}, {result.excess:.3f} beyond "
                    f"noise, {result.severity:.1f} times its bound",
                    value=result.excess,
                    bound=result.bound,
                )
            )
    judged = [result for result in results if result.role == "blocks"]
    names = [result.name for result in judged if result.drifted]
    share = len(names) / max(len(judged), 1)
    if share > REJECTED_SHARE:
        message = f"{len(names)} of {len(judged)} features have drifted ({', '.join(names)})"
        findings.append(Finding(name="drifted_share", message=message, value=share, bound=REJECTED_SHARE))
    return findings


def _unblocking(finding: Finding) -> Finding:
    return finding.model_copy(update={"blocking": False})


def _versions() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("numpy", "polars", "scipy")}
    with suppress(metadata.PackageNotFoundError):  # the twin does without
        versions["alibi-detect"] = metadata.version("alibi-detect")
    return versions


def _read_sample(store: ObjectStore, verdict: Verdict) -> pl.DataFrame:
    try:
        data = store.get(verdict.sample_key)
    except KeyError:
        data = b""
    if hashlib.sha256(data).hexdigest() != verdict.sample_sha256:
        raise IntegrityError(
            f"The reference sample {verdict.sample_key} is missing or was changed; run the check `drift` on transformed for "
            f"{verdict.partition} again, which writes it anew."
        )
    return pl.read_parquet(data)


def _parse(data: bytes, key: Key, partition: str) -> Verdict:
    what = f"The drift verdict {verdict_key(partition)}"
    try:
        document = json.loads(data)
    except ValueError as error:
        raise IntegrityError(f"{what} is not JSON; run the check `drift` on transformed for {partition} again.") from error
    if not isinstance(document, dict):
        raise IntegrityError(f"{what} is not a verdict; run the check `drift` on transformed for {partition} again.")
    body = verify(document, key, what)
    try:
        verdict = Verdict.model_validate(body)
    except ValidationError as error:
        raise IntegrityError(
            f"{what} was written by another version of this product; run the check `drift` on transformed for {partition} again."
        ) from error
    if verdict.partition != partition:
        raise IntegrityError(f"{what} speaks of partition {verdict.partition}: it was moved there, and is not used.")
    return verdict


def _update(store: ObjectStore, key: Key, partition: str, change: Callable[[bytes | None], Verdict]) -> Verdict:
    """Replace the verdict by what `change` makes of its present bytes (None: there is none). Again if others wrote in between."""
    attempt = 1
    while True:
        tagged = store.get_tagged(verdict_key(partition))
        data, tag = (None, None) if tagged is None else tagged
        verdict = change(data)
        document = json.dumps(sign(verdict.model_dump(mode="json"), key), indent=1, sort_keys=True).encode()
        try:
            store.put_if(verdict_key(partition), document, tag)
        except StoreConflictError:
            if attempt == _ATTEMPTS:
                raise
            attempt += 1
        else:
            return verdict


def _holding(store: ObjectStore, key: Key, partition: str, content: str) -> Verdict:
    """The verdict that holds for this content of the partition."""
    again = f"Run the check `drift` on transformed for {partition}; no model is trained before."
    try:
        verdict = read_verdict(store, key, partition)
    except IntegrityError as error:
        raise GateRefusalError(f"{error} {again}") from error
    if verdict is None:
        raise GateRefusalError(f"Partition {partition} is materialized but has no drift verdict. {again}")
    if verdict.content != content:
        raise GateRefusalError(f"Partition {partition} has changed since its drift verdict. {again}")
    return verdict


def _decide(store: ObjectStore, key: Key, partition: str, content: str, decision: Decision) -> Verdict:
    if len(re.findall(r"[^\W\d_]{2,}", decision.reason)) < 2:
        raise GateRefusalError(
            f"To {decision.action} partition {partition}, give a reason in words: who reads the model's card will see it."
        )

    def decided(data: bytes | None) -> Verdict:
        if data is None:
            raise GateRefusalError(f"Partition {partition} has no drift verdict; run its check `drift` first.")
        try:
            verdict = _parse(data, key, partition)
        except IntegrityError as error:
            raise GateRefusalError(f"{error} Run the check `drift` on transformed for {partition} again first.") from error
        if verdict.content != content:
            raise GateRefusalError(
                f"Partition {partition} has changed since its drift verdict; run its check `drift` again first."
            )
        return verdict.model_copy(update={"decisions": (*verdict.decisions, decision)})

    return _update(store, key, partition, decided)
