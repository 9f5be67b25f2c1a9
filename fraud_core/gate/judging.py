"""Judging a partition against the accepted ones before it. Pure: nothing is read or written."""

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache
from importlib import metadata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_core.features import catalogue
from fraud_core.features.feature import Feature
from fraud_core.gate import statistics
from fraud_core.gate.findings import (
    MINIMUM_ROWS,
    as_warning,
    blocking_findings,
    drifts,
    has_values,
    incomparable,
    known_step,
    rewritten,
    slow_drifts,
    warning_findings,
)
from fraud_core.gate.past import select_past
from fraud_core.gate.rules import Rules
from fraud_core.gate.verdict import (
    Decision,
    FeatureResult,
    Finding,
    FormerSelf,
    Judgement,
    Likened,
    LongComparison,
    LongReference,
    Past,
    ReferencePart,
    Verdict,
)
from fraud_core.sources import partitions
from fraud_core.sources.source import Drift, Source
from fraud_core.units.arrays import Array


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
    detector: statistics.Detector,
    now: datetime,
    rules: Rules | None = None,
) -> Judgement:
    """Judge a partition against the accepted ones before it. Pure: reads and writes nothing.

    Args:
        partition: its key.
        content: sha256 (hex) of its transformed content.
        frame: the transformed partition, n rows; columns other than features and `card` are not looked at.
        features: those that this source has (`features.available`).
        past: from `load_past`.
        position: how many partitions of the source lie before this one (`gate.position`); the first `bootstrap_partitions` are
            accepted unjudged unless they are broken. By the calendar, so that no order of materialization makes a bootstrap; and
            only until there is something to compare with: what they were themselves, or a partition that was judged.
        settings: the source's.
        seed: of the samples; each draw is also bound to the content.
        detector: who computes the p-values.
        now: when, with a time zone.
        rules: those in force, to which the verdict is bound.
    """
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(content.encode()).digest()[:8])])
    watched = [feature for feature in features if feature.drift != "left_out"]
    present = _values(frame, watched)
    drawn = _draw(frame.height, settings.sample_rows, rng)
    current = present[drawn]
    cards = _codes(frame["card"][drawn]) if "card" in frame.columns else None
    bootstrap = is_bootstrap(position, content, past, settings)
    if position < settings.bootstrap_partitions and not bootstrap:
        past = _instead(past, content)

    comparer = _Comparer(current, cards, settings.sample_rows, rng, detector)

    def compared(likened: Likened, verdicts: Sequence[Verdict | FormerSelf], samples: Sequence[pl.DataFrame]) -> _Compared:
        reference, parts = comparer.reference(verdicts, samples)
        natural = {feature.name: statistics.bound(_natural(past, feature.name)) for feature in watched}
        results = comparer.results(reference, watched, natural.__getitem__)
        return _Compared(likened, reference, parts, results, drifts(results))

    short = compared("last", past.references, past.samples)
    broken = blocking_findings(present, watched)
    strange = incomparable(present, short.reference, watched, _by_other_rules(past, rules)) + warning_findings(
        present, short.reference, watched, past, settings
    )
    if not bootstrap:
        short = _known_step(short, past.steps, compared)
    drifted, long = short.findings, None
    if bootstrap:
        strange, drifted = [as_warning(f) for f in strange], [as_warning(f) for f in drifted]
    else:
        long, slow = comparer.long(past.long, watched)
        drifted += slow
    if past.former is not None and not bootstrap and position < settings.bootstrap_partitions:
        strange += rewritten(frame.height, past.former[0])
    findings = (*broken, *strange, *drifted)

    buffer = io.BytesIO()
    current.write_parquet(buffer)
    verdict = Verdict(
        partition=partition,
        content=content,
        rules="" if rules is None else rules.sha256,
        confirmed=None if rules is None else rules.confirmed,
        kind="bootstrap" if bootstrap else "judged",
        accepted=not any(finding.blocking for finding in findings),
        rows=frame.height,
        features=short.features,
        findings=findings,
        reference=short.parts,
        likened=short.likened,
        long=long,
        former=None if past.former is None else past.former[0],
        sample_rows=current.height,
        sample_sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        seed=seed,
        detector=detector.__name__,
        versions=dict(_versions()),
        created_at=now,
    )
    return Judgement(verdict, current, short.reference, buffer.getvalue())


def is_bootstrap(position: int, content: str, past: Past, settings: Drift) -> bool:
    """Whether a partition is accepted unjudged: one of the first, as long as there is nothing to compare it with.

    Content that was accepted so remains so; other content in its place does not.
    """
    if position >= settings.bootstrap_partitions:
        return False
    if past.former is None:
        return not past.has_begun
    former, _ = past.former
    return former.content == content and former.kind == "bootstrap"


def _by_other_rules(past: Past, rules: Rules | None) -> bool:
    """Whether no reference was judged by the rules in force. Of a former self it is not known, and its sample tells."""
    verdicts = [reference for reference in past.references if isinstance(reference, Verdict)]
    return rules is not None and rules.confirmed is not None and not any(rules.holds(verdict.rules) for verdict in verdicts)


def _instead(past: Past, content: str) -> Past:
    """What one of the first partitions is compared with, since nothing lies before it: its former self, and the others."""
    rest = () if past.rest is None else (past.rest,)
    if past.former is not None and past.former[0].content != content:
        return replace(past, verdicts=(), references=(past.former[0],), samples=(past.former[1],), long=rest)
    if past.rest is None:
        return past
    return replace(past, verdicts=past.rest.verdicts, references=past.rest.verdicts, samples=past.rest.samples, long=())


@dataclass
class Walk:
    """Accepted partitions in memory, for judging others that follow them in time.

    Attributes:
        settings: the source's.
    """

    settings: Drift
    _accepted: dict[str, tuple[Verdict, pl.DataFrame]] = field(default_factory=dict)

    def past(self, partition: str) -> Past:
        """What the next partition is judged against."""
        verdicts = [verdict for verdict, _ in self._accepted.values()]
        return select_past(
            partition, verdicts, verdicts, None, lambda verdict: self._accepted[verdict.partition][1], self.settings
        )

    def add(self, judgement: Judgement) -> None:
        """Go on by a partition, if it was accepted."""
        if judgement.verdict.is_accepted:
            self._accepted[judgement.verdict.partition] = (judgement.verdict, judgement.current)


def walk_forward(
    frames: Iterable[tuple[str, pl.DataFrame]],
    *,
    features: Sequence[Feature],
    settings: Drift,
    seed: int,
    detector: statistics.Detector,
    now: datetime,
    person: Callable[[Verdict], Decision | None] = lambda _: None,
) -> list[Judgement]:
    """Judge partitions (key, frame of features), oldest first, each against the accepted ones before it; all in memory.

    Args:
        person: decides on each verdict, or does not.
    """
    walk, judgements = Walk(settings), []
    for place, (partition, frame) in enumerate(frames):
        judgement = judge(
            partition=partition,
            content=hashlib.sha256(partition.encode()).hexdigest(),  # only names the draw
            frame=frame,
            features=features,
            past=walk.past(partition),
            position=place,
            settings=settings,
            seed=seed,
            detector=detector,
            now=now,
        )
        decision = person(judgement.verdict)
        if decision is not None:
            judgement = replace(judgement, verdict=judgement.verdict.model_copy(update={"decisions": (decision,)}))
        judgements.append(judgement)
        walk.add(judgement)
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


class _Compared(NamedTuple):
    """What a partition was compared with, and what follows."""

    likened: Likened
    reference: pl.DataFrame
    parts: tuple[ReferencePart, ...]
    features: tuple[FeatureResult, ...]
    findings: list[Finding]

    @property
    def is_strange(self) -> bool:
        """Whether it rejects the partition."""
        return any(finding.blocking for finding in self.findings)


def _known_step(last: _Compared, steps: Sequence[LongReference], compare: Callable[..., _Compared]) -> _Compared:
    """The comparison with a step that a person accepted, where a partition is unlike the last ones but like that; else `last`."""
    for step in steps if last.is_strange else ():
        other = compare(step.kind, step.verdicts, step.samples)
        is_whole = {result.name for result in other.features} >= {result.name for result in last.features}
        if is_whole and other.reference.height >= MINIMUM_ROWS and not other.is_strange:
            return other._replace(findings=[*other.findings, known_step(last.features, step)])
    return last


@dataclass(frozen=True)
class _Comparer:
    """A partition's sample on its way through the comparisons: its values and cards, and how they are compared."""

    current: pl.DataFrame
    cards: npt.NDArray[np.int64] | None
    rows: int
    rng: np.random.Generator
    detector: statistics.Detector

    def reference(
        self, partitions: Sequence[Verdict | FormerSelf], samples: Sequence[pl.DataFrame]
    ) -> tuple[pl.DataFrame, tuple[ReferencePart, ...]]:
        """At most so many rows of the samples, each partition in proportion to its own rows."""
        if not samples:
            return pl.DataFrame(), ()
        sizes = np.array([each.rows for each in partitions])
        shares = sizes * self.rows // sizes.sum() if sizes.sum() > self.rows else sizes
        drawn = [sample[_draw(sample.height, int(share), self.rng)] for sample, share in zip(samples, shares, strict=True)]
        parts = tuple(
            ReferencePart(partition=each.partition, content=each.content, rows=part.height)
            for each, part in zip(partitions, drawn, strict=True)
        )
        return pl.concat(drawn, how="diagonal"), parts

    def long(
        self, references: Sequence[LongReference], features: Sequence[Feature]
    ) -> tuple[LongComparison | None, list[Finding]]:
        """Compare with each long reference; what the nearest of them says counts.

        Features of the past are left out: they are compared with their own past already, and their windows are still filling in
        the first partitions.
        """
        blocking = [feature for feature in features if feature.drift == "blocks" and not feature.is_history]
        compared: list[tuple[LongComparison, list[Finding]]] = []
        for each in references:
            reference, parts = self.reference(each.verdicts, each.samples)
            if reference.height >= MINIMUM_ROWS:
                results = self.results(reference, blocking, lambda _: statistics.LONG_BOUND)
                comparison = LongComparison(kind=each.kind, reference=parts, features=results)
                compared.append((comparison, slow_drifts(comparison)))

        def nearness(pair: tuple[LongComparison, list[Finding]]) -> tuple[bool, float]:
            return any(f.blocking for f in pair[1]), max((r.severity for r in pair[0].features), default=0)

        return min(compared, key=nearness, default=(None, []))

    def results(
        self, reference: pl.DataFrame, features: Sequence[Feature], bound: Callable[[str], float]
    ) -> tuple[FeatureResult, ...]:
        """Compare feature by feature; those that block and those that are reported are two families of tests."""
        results: list[FeatureResult] = []
        categories = {feature.name for feature in features if feature.is_category}
        for role in ("blocks", "reported"):
            family = [
                feature.name
                for feature in features
                if feature.drift == role and has_values(self.current, feature.name) and has_values(reference, feature.name)
            ]
            arrays = {name: _arrays(reference[name], self.current[name]) for name in family}
            comparisons = statistics.compare(
                {name: pair[0] for name, pair in arrays.items()},
                {name: pair[1] for name, pair in arrays.items()},
                categories,
                self.detector,
                None if self.cards is None else {n: self._cards_of(self.cards, n) for n in family},
            )
            for name, comparison in comparisons.items():
                excess, limit = comparison.excess, bound(name)
                drifted = comparison.p_corrected < statistics.SIGNIFICANCE and excess > limit
                values = {**asdict(comparison), "excess": excess, "bound": limit, "drifted": drifted}
                results.append(FeatureResult(name=name, role=role, **values))
        return tuple(results)

    def _cards_of(self, cards: npt.NDArray[np.int64], name: str) -> npt.NDArray[np.int64]:
        values = self.current[name]
        return cards[values.is_not_null().to_numpy()] if values.null_count() else cards


def _arrays(reference: pl.Series, current: pl.Series) -> tuple[Array, Array]:
    """Values without nulls; names become numbers by their place in the sorted union."""
    if current.dtype != pl.String:
        numbers = reference.to_numpy(), current.to_numpy()  # a null is NaN; of hundreds of columns, Polars' own way is slower
        return numbers[0][~np.isnan(numbers[0])], numbers[1][~np.isnan(numbers[1])]
    values = pl.concat([reference.drop_nulls(), current.drop_nulls()]).rank("dense").cast(pl.Int64).to_numpy()
    split = len(reference) - reference.null_count()
    return values[:split], values[split:]


def _natural(past: Past, name: str) -> list[float]:
    """A feature's excess in the partitions that the gate itself accepted. What a person let pass widens no bound."""
    return [
        feature.excess for verdict in past.verdicts if verdict.accepted for feature in verdict.features if feature.name == name
    ]


@cache
def _versions() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("numpy", "polars", "scipy")}
    versions["features"] = str(catalogue.VERSION)
    with suppress(metadata.PackageNotFoundError):  # the twin does without
        versions["alibi-detect"] = metadata.version("alibi-detect")
    return versions
