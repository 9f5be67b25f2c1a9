"""The model's card: what was trained on what, how well it does, and what its figures do not say."""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from fraud_core.evaluation.calibration import CalibrationBin
from fraud_core.evaluation.daily_cards import CardPrecision
from fraud_core.evaluation.intervals import Interval
from fraud_core.evaluation.metrics import OperatingPoint
from fraud_core.evaluation.report import MonthReport, Policy, Report
from fraud_core.signing.card_numbers import printable

FEW_FRAUD_CARDS = 30  # below so many compromised cards a bootstrap over cards draws from too few to be trusted


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(_Model):
    """A kind of model that was tried, and its average precision on validation A."""

    kind: str
    average_precision: float
    chosen: bool


class Fallback(_Model):
    """The second model, without features of the past, and its average precision on validation B and on the hold-out."""

    kind: str
    features: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    validation: float
    holdout: float


class DroppedFeature(_Model):
    """A feature this model does without, and why."""

    name: str
    reason: str


class TrainingPartition(_Model):
    """A partition that was trained on, bound to its content, and how it passed the gate."""

    key: str
    content_hash: str
    verdict: Literal["accepted", "bootstrap", "accepted_by"]
    accepted_by: str | None = None
    reason: str | None = None


class RejectedPartition(_Model):
    """A partition that the gate kept out of training."""

    key: str
    content_hash: str
    reason: str


class Block(_Model):
    """One side of the split. Borders are days (the end is excluded) or, where cardholders are split, buckets."""

    name: str
    begin: str
    end: str
    rows: int
    frauds: int


class Promotion(_Model):
    """Whether the candidate became champion, and every reason for or against."""

    promoted: bool
    reasons: tuple[str, ...]
    champion: str | None = None  # the version it was compared with; None: there was none
    difference: float | None = None  # candidate minus champion in average precision, same rows
    interval: Interval | None = None


class ModelCard(_Model):
    """Everything a person should know before trusting this model. `created` is passed in, so that a card can be made again.

    `holdout` counts every row of the hold-out; `holdout_without_rejected` leaves out partitions that the gate rejected (None:
    it rejected none there). `holdout_looks` counts the models that were measured on this hold-out, this one included.
    """

    version: str
    source: str
    created: AwareDatetime
    kind: str
    candidates: tuple[Candidate, ...]
    candidates_fraud_rate: float
    features: tuple[str, ...]
    dropped_features: tuple[DroppedFeature, ...]
    partitions: tuple[TrainingPartition, ...]
    rejected_partitions: tuple[RejectedPartition, ...]
    split: tuple[Block, ...]
    policy: Policy
    validation: Report
    holdout: Report
    holdout_without_rejected: Report | None
    holdout_looks: int
    promotion: Promotion
    fallback: Fallback | None = None

    def to_markdown(self) -> str:
        """The card for people. Every average precision stands beside the fraud rate."""
        sections = [
            f"# Model card: `{_cell(self.version)}`",
            self._summary(),
            "## How well it does",
            self._results(),
            self._looks(),
            "## What these figures do not say",
            "\n".join(f"- {caveat}" for caveat in self._caveats()),
            "## Promotion",
            self._promotion(),
            "## Thresholds",
            self._thresholds(),
            *self._months(),
            "## Calibration on the hold-out",
            _calibration(self.holdout.calibration),
            "## Candidates",
            self._candidates(self.candidates),
            *self._second(),
            "## Features",
            self._features(),
            "## Data",
            self._data(),
        ]
        return "\n\n".join(sections) + "\n"

    def _summary(self) -> str:
        promoted = "It was promoted to champion" if self.promotion.promoted else "It was **not** promoted"
        return (
            f"**{_cell(self.kind)}** for the source `{_cell(self.source)}`, trained on {len(self.partitions)} partitions with "
            f"{len(self.features)} features on {self.created:%Y-%m-%d %H:%M %Z}. {promoted}. On the hold-out its average "
            f"precision is **{_precision(self.holdout)}**, where the fraud rate, which is what guessing gives, is "
            f"**{_percent(self.holdout.fraud_rate)}**."
        )

    def _results(self) -> str:
        reports = {"Validation B": self.validation, "Hold-out": self.holdout}
        if self.holdout_without_rejected is not None:
            reports["Hold-out without rejected partitions"] = self.holdout_without_rejected
        rows = [[label, *(text(report) for report in reports.values())] for label, text in _RESULTS]
        return _table(["", *reports], rows)

    def _looks(self) -> str:
        if self.holdout_looks == 1:
            return "This is the first model that was measured on this hold-out."
        return (
            f"This hold-out has been looked at {self.holdout_looks} times. Whoever chooses among models by what it says, "
            "fits them to it a little each time; a fresh one will be somewhat less kind."
        )

    def _caveats(self) -> Iterable[str]:
        holdout = self.holdout
        drawn = "transactions" if holdout.fraud_cards is None else "cards"
        yield (
            f"The interval behind an average precision is a 95 % percentile bootstrap over {drawn} ({self.policy.draws} draws). "
            f"It tells how far the figure would move with other {drawn} from the same time. It covers neither fraud of a new "
            "kind nor the choice of this model."
        )
        if holdout.fraud_cards is None:
            yield "Without a card in the data, transactions count as independent; the interval is then too narrow."
        elif holdout.fraud_cards < FEW_FRAUD_CARDS:
            yield (
                f"The {holdout.frauds} frauds of the hold-out lie on only {holdout.fraud_cards} cards, too few to trust the "
                "interval itself."
            )
        yield "Validation B calibrated the scores and set the thresholds, so its figures flatter; the hold-out did neither."
        yield "An average precision can only be compared with another at the same fraud rate, best on the same rows."
        if holdout.card_precision_at_100 is not None:
            yield (
                "Card precision counts compromised cards among the 100 most suspicious of a day, as the Fraud Detection "
                "Handbook defines it. Few days have 100 compromised cards that are not yet known, so 1 is out of reach: "
                "compare it with its ceiling, never with 1."
            )
        yield (
            "The cost takes for granted that a review stops every fraud it sees, that an approved fraud loses its whole amount, "
            f"that a review costs {self.policy.review_cost:g} and a false decline {self.policy.false_decline_cost:g}."
        )
        yield (
            f"A transaction counts as legitimate once {self.policy.label_delay_days} days have passed without a report of fraud. "
            "Fraud that nobody reports is counted as a legitimate payment."
        )

    def _promotion(self) -> str:
        lines = [f"- {_cell(reason)}" for reason in self.promotion.reasons]
        if self.promotion.difference is not None and self.promotion.interval is not None:
            low, high = self.promotion.interval.low, self.promotion.interval.high
            lines.append(
                f"- Average precision against champion `{_cell(self.promotion.champion or '')}` on the same rows: "
                f"{self.promotion.difference:+.4f} ({low:+.4f} to {high:+.4f}), at a fraud rate of "
                f"{_percent(self.holdout.fraud_rate)}."
            )
        return "\n".join([f"**{'Promoted' if self.promotion.promoted else 'Not promoted'}.**", "", *lines])

    def _thresholds(self) -> str:
        return (
            f"Reviewed from a score of **{self.policy.review_threshold:.6g}** on (set by what analysts can look at in a day), "
            f"declined from **{_threshold(self.policy.decline_threshold)}** on (set by cost). Both were set on validation B."
        )

    def _months(self) -> list[str]:
        if not self.holdout.months:
            return []
        header = ["Month", "Rows", "Frauds", "Fraud rate", "Average precision", "ROC AUC", "Precision, recall at review"]
        header += ["Alerts a day", "Card precision at 100 (ceiling)", "Cost per 1,000", "Calibration error"]
        return ["## The hold-out, month by month", _table(header, map(_month_row, self.holdout.months))]

    def _candidates(self, candidates: tuple[Candidate, ...]) -> str:
        rows = [
            [_cell(c.kind), f"{c.average_precision:.4f}", _percent(self.candidates_fraud_rate), "chosen" if c.chosen else ""]
            for c in candidates
        ]
        return _table(["Candidate", "Average precision on validation A", "Fraud rate there", ""], rows)

    def _second(self) -> Iterator[str]:
        if self.fallback is not None:
            second = self.fallback
            yield "## Without history"
            yield (
                "While the store of what cards and merchants did cannot be reached, a second model scores, of the "
                f"{len(second.features)} features that speak of the transaction alone. It is **{_cell(second.kind)}**, and its "
                f"average precision is {second.validation:.4f} on validation B and **{second.holdout:.4f}** on the hold-out."
            )
            yield self._candidates(second.candidates)

    def _features(self) -> str:
        used = ", ".join(f"`{_cell(name)}`" for name in self.features)
        if not self.dropped_features:
            return f"{used}.\n\nNone was dropped."
        dropped = _table(["Dropped", "Why"], [[f"`{_cell(f.name)}`", _cell(f.reason)] for f in self.dropped_features])
        return f"{used}.\n\n{dropped}"

    def _data(self) -> str:
        blocks = [
            [_cell(b.name), _cell(b.begin), _cell(b.end), f"{b.rows:,}", f"{b.frauds:,}", _percent(b.frauds / max(b.rows, 1))]
            for b in self.split
        ]
        trained = [[_cell(p.key), f"`{_cell(p.content_hash)}`", _verdict(p)] for p in self.partitions]
        parts = [
            _table(["Block", "From", "Until (excluded)", "Rows", "Frauds", "Fraud rate"], blocks),
            _table(["Trained on", "Content", "The drift gate's verdict"], trained),
        ]
        if self.rejected_partitions:
            rejected = [[_cell(p.key), f"`{_cell(p.content_hash)}`", _cell(p.reason)] for p in self.rejected_partitions]
            parts.append(_table(["Rejected, not trained on", "Content", "Why"], rejected))
        else:
            parts.append("The drift gate rejected no partition.")
        return "\n\n".join(parts)


def _precision(report: Report | MonthReport) -> str:
    if report.average_precision is None or report.average_precision_interval is None:
        return "too few frauds"
    interval = report.average_precision_interval
    return f"{report.average_precision:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _operating(point: OperatingPoint) -> str:
    return f"{_share(point.precision)}, {_share(point.recall)}"


def _card_precision(figure: CardPrecision | None) -> str:
    return "—" if figure is None else f"{figure.value:.4f} ({figure.ceiling:.4f})"


def _alerts(report: Report | MonthReport) -> str:
    return "—" if report.alerts_per_day is None else f"{report.alerts_per_day:.1f}"


def _cost(report: Report | MonthReport) -> str:
    return f"{report.cost.per_thousand:,.2f} ({1_000 * report.cost.baseline / report.rows:,.2f})"


def _period(report: Report) -> str:
    return "—" if report.first_day is None else f"{report.first_day} to {report.last_day}"


_RESULTS = (
    ("Days", _period),
    ("Rows", lambda r: f"{r.rows:,}"),
    ("Frauds", lambda r: f"{r.frauds:,}" + ("" if r.fraud_cards is None else f" on {r.fraud_cards:,} cards")),
    ("**Fraud rate** (the average precision of guessing)", lambda r: f"**{_percent(r.fraud_rate)}**"),
    ("**Average precision** (95 % interval)", lambda r: f"**{_precision(r)}**"),
    ("ROC AUC", lambda r: f"{r.roc_auc:.4f}"),
    ("Precision, recall at the review threshold", lambda r: _operating(r.at_review)),
    ("Precision, recall at the decline threshold", lambda r: _operating(r.at_decline)),
    ("Alerts a day (reviewed or declined)", _alerts),
    ("Card precision at 100 a day (attainable ceiling)", lambda r: _card_precision(r.card_precision_at_100)),
    ("Cost per 1,000 transactions (of approving everything)", _cost),
    ("Fraud lost, reviews, false declines", lambda r: f"{r.cost.fraud_lost:,.2f}, {r.cost.reviews:,}, {r.cost.false_declines:,}"),
    ("Expected calibration error", lambda r: f"{r.calibration_error:.5f}"),
    (
        "Brier score (of always saying the fraud rate)",
        lambda r: f"{r.brier_score:.5f} ({r.fraud_rate * (1 - r.fraud_rate):.5f})",
    ),
)


def _month_row(month: MonthReport) -> list[str]:
    return [
        month.month,
        f"{month.rows:,}",
        f"{month.frauds:,}",
        _percent(month.fraud_rate),
        _precision(month),
        "—" if month.roc_auc is None else f"{month.roc_auc:.4f}",
        _operating(month.at_review),
        _alerts(month),
        _card_precision(month.card_precision_at_100),
        _cost(month),
        f"{month.calibration_error:.5f}",
    ]


def _calibration(bins: tuple[CalibrationBin, ...]) -> str:
    rows = [
        [
            f"{b.rows:,}",
            _percent(b.mean_score),
            _percent(b.observed_rate),
            _percent(b.interval.low) + " to " + _percent(b.interval.high),
        ]
        for b in bins
    ]
    return _table(["Rows", "Predicted share of fraud", "Observed", "95 % Wilson interval (rows taken as independent)"], rows)


def _verdict(partition: TrainingPartition) -> str:
    match partition.verdict:
        case "accepted":
            return "accepted"
        case "bootstrap":
            return "accepted unjudged, among the first"
        case "accepted_by":
            return f"accepted by {_cell(partition.accepted_by or 'a person')}: {_cell(partition.reason or 'no reason given')}"


def _threshold(value: float) -> str:
    return f"{value:.6g}" if value <= 1 else "never"


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text from elsewhere, made harmless inside a table and inside a page."""
    flat = printable(" ".join(text.split()))
    for sign, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'")):
        flat = flat.replace(sign, escaped)
    return flat
