"""Model page: the card of a version, champion against challenger, the partitions with their verdicts, and what changed."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from fraud_core import gate
from fraud_core.errors import IntegrityError
from fraud_core.evaluation.calibration import LEAST, MOST
from fraud_core.evaluation.figures import FIGURES
from fraud_core.evaluation.model_card import ModelCard
from fraud_core.evaluation.report import Moved, Report
from fraud_core.gate import Verdict
from fraud_core.models.bundle import read_manifest
from fraud_core.models.manifest import Manifest
from fraud_core.models.registry import ChampionPointer, latest_model_card, read_latest, versions
from fraud_core.storage.artifacts import Artifacts
from fraud_ui.kit import charts
from fraud_ui.kit.charts import Chart, Line
from fraud_ui.kit.wording import counted, escaped, interval, moment, note, percent, signed, table, threshold

_NAME = re.compile("[0-9a-f]{16}")  # of a version

UNSIGNED = (
    "The figures of this version are not signed: release 0.1.0 wrote them, or somebody who can write to the store did. "
    "Trust them only as far as that; the next training writes signed ones."
)


@dataclass(frozen=True)
class Run:
    """A training that gave a version, with links to where it can be looked at (None: not there)."""

    id: str
    dagster_url: str
    mlflow_url: str | None


@dataclass(frozen=True)
class Version:
    """A version in the store. `card` is None where none was written; whether its figures are signed, `has_signed_card` says."""

    manifest: Manifest
    card: ModelCard | None
    runs: tuple[Run, ...]
    has_signed_card: bool = False

    @property
    def name(self) -> str:
        """The version."""
        return self.manifest.version


class Catalogue:
    """What the store holds of models and partitions. Every method reads the store and may raise StoreError or IntegrityError.

    Args:
        artifacts: the store, and the key that its signatures are checked with.
        dagster_link: where the Dagster UI is, for links.
    """

    def __init__(self, artifacts: Artifacts, dagster_link: str) -> None:
        self._artifacts = artifacts
        self._dagster_link = dagster_link

    def latest(self) -> ChampionPointer | None:
        """The pointer to the champion; None where there is none yet."""
        return read_latest(self._artifacts.store, self._artifacts.signing_key)

    def names(self) -> list[str]:
        """All versions: the newest change of champion first, then those that never were."""
        latest = self.latest()
        changes = [change.version for change in reversed(latest.history)] if latest else []
        return list(dict.fromkeys([*changes, *versions(self._artifacts.store, self._artifacts.signing_key)]))

    def version(self, name: str) -> Version:
        """A version.

        Raises:
            IntegrityError: there is none of this name, or it is not what was signed.
        """
        store, key = self._artifacts.store, self._artifacts.signing_key
        if not _NAME.fullmatch(name) or not store.exists(f"models/{name}/manifest.json"):
            raise IntegrityError(f"There is no version {name}; choose one of the list.")
        manifest, stored = read_manifest(store, name, key), latest_model_card(store, name, key)
        if stored is None:
            return Version(manifest, None, self._runs(name))
        return Version(manifest, ModelCard.model_validate(stored.body), self._runs(name), stored.is_signed)

    def verdicts(self) -> dict[str, Verdict | None]:
        """Partition -> its verdict (None: not judged yet), oldest first."""
        store, key = self._artifacts.store, self._artifacts.signing_key
        return {partition: gate.read_verdict(store, key, partition) for partition in self._artifacts.pointers("transformed")}

    def _runs(self, name: str) -> tuple[Run, ...]:
        """What lies beside each card: the Dagster run, and once it was logged there the MLflow run."""
        store, runs = self._artifacts.store, []
        keys = list(store.list(f"models/{name}/runs"))
        for key in (key for key in keys if key.endswith("/run.json")):
            identity = str(json.loads(store.get(key))["dagster_run_id"])
            tracked = key.replace("/run.json", "/tracking.json")
            mlflow = json.loads(store.get(tracked)).get("mlflow_url") if tracked in keys else None
            runs.append(Run(identity, f"{self._dagster_link}/runs/{identity}", _web_link(mlflow)))
        return tuple(runs)


def _web_link(url: object) -> str | None:
    return url if isinstance(url, str) and url.startswith(("http://", "https://")) else None


# --- a version's card -----------------------------------------------------------------------------------------------------------


def card(version: Version, zone: ZoneInfo) -> str:
    """A version's figures with their intervals, its curves, and where it came from."""
    found = version.card
    if found is None:
        return note(f"No card was written for version {version.name}.") + links(version)
    holdout = found.holdout
    rate = percent(holdout.fraud_rate)
    parts = [
        f"<h2>Version <code>{escaped(version.name)}</code></h2>",
        "" if version.has_signed_card else note(UNSIGNED),
        f"<p>A {escaped(found.kind)} for the source <code>{escaped(found.source)}</code>, trained on "
        f"{counted(len(found.partitions), 'partition')}, {moment(found.created, zone)}. On the hold-out its average precision is "
        f"<strong>{interval(holdout.average_precision, holdout.average_precision_interval)}</strong>; guessing gives {rate}.</p>",
        links(version),
        table(
            "How well it does (95 % intervals)",
            ("Figure", "Validation B", "Hold-out"),
            _figures(found.validation, holdout),
            (1, 2),
        ),
        f'<div class="charts">{_precision_recall(found)}{_calibration(found)}</div>',
    ]
    if found.holdout_looks > 1:
        parts.append(note(f"{found.holdout_looks} models were measured on this hold-out; a fresh one will be less kind."))
    return "".join(parts)


def links(version: Version) -> str:
    """Links to the trainings that gave a version."""
    items = []
    for run in version.runs:
        places = [(f"Dagster run {run.id[:8]}", run.dagster_url), ("its MLflow run", run.mlflow_url)]
        found = [f'<a href="{escaped(url)}" target="_blank" rel="noopener">{escaped(name)}</a>' for name, url in places if url]
        items.append(f"<li>{', '.join(found)}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _figures(*reports: Report) -> list[tuple[str, ...]]:
    return [(escaped(figure.name), *(escaped(figure.text(report)) for report in reports)) for figure in FIGURES]


def _precision_recall(found: ModelCard) -> str:
    share = "Recall: share of the frauds that are alerted"
    lines = []
    for name, report, style in (("validation B", found.validation, "second"), ("hold-out", found.holdout, "first")):
        label = f"{name}: average precision {report.average_precision:.3f}"
        lines.append(Line(label, report.precision_recall_line, style))
    return Chart(
        title="Precision and recall",
        summary=f"Average precision {found.holdout.average_precision:.3f} on the hold-out. Dots: the two thresholds.",
        x=charts.linear(share, 0, 1, percent),
        y=charts.linear("Precision: share of alerts that are fraud", 0, 1, percent),
        lines=lines,
        across=[(found.holdout.fraud_rate, "guessing: the fraud rate", "quiet")],
        here=[(point, f"{name} threshold") for name, point in found.holdout.served_points.items()],
    ).svg()


def _calibration(found: ModelCard) -> str:
    lines = [Line("perfectly calibrated", [(LEAST, LEAST), (MOST, MOST)], "third")]
    for name, report, style in (("validation B", found.validation, "second"), ("hold-out", found.holdout, "first")):
        bins = report.calibration
        bars = [(b.mean_score, b.interval.low, b.interval.high) for b in bins]
        lines.append(Line(name, [(b.mean_score, b.observed_rate) for b in bins], style, dots=True, bars=bars))
    return Chart(
        title="Calibration",
        summary=f"Expected calibration error {found.holdout.calibration_error:.4f} on the hold-out.",
        x=charts.probability_axis("Predicted probability of fraud"),
        y=charts.probability_axis("Observed share of fraud"),
        lines=lines,
    ).svg()


def cost_chart(found: ModelCard | None, moved: Moved, probability: float) -> str:
    """What the policy would cost if one threshold lay elsewhere.

    Args:
        found: the version's card.
        moved: `review` or `decline`.
        probability: where the movable line stands.
    """
    if found is None:
        return note("No card was written for this version, so nothing is known of its cost.")
    report = found.holdout
    points, served, everything = report.cost_line(moved), report.served_threshold(moved), report.approving_everything
    costs = [cost for _, cost in points if cost <= 2 * everything]
    ceiling = 1.1 * max([everything, report.cost.per_thousand, *costs, 1e-9])
    here = _between(points, probability)
    if here is None:
        told = " No figure there: review would lie above decline, or beyond every score of the hold-out."
    else:
        told = f" There 1,000 payments would cost {here:,.2f}, as against {report.cost.per_thousand:,.2f} now."
    marks = [(probability, "the movable line", "moved"), (served, "the served threshold", "review")]
    chart = Chart(
        title=f"Cost by the {moved} threshold",
        summary=f"The line stands at {percent(probability)}.{told}",
        x=charts.probability_axis(f"{moved} threshold (probability of fraud)"),
        y=charts.linear("cost per 1,000 payments (currency units)", 0, ceiling),
        lines=[Line(f"{moved} threshold moved, the other kept", points)],
        across=[(everything, "approving everything", "decline"), (report.cost.per_thousand, "as served", "approve")],
        upright=[mark for mark in marks if mark[0] <= 1],
        here=[] if here is None else [((probability, here), f"{here:,.2f}")],
        width=720,
    )
    stands = f"The {moved} threshold is {threshold(served)}; the line stands at <strong>{percent(probability)}</strong>."
    return f"<p>{stands}{told}</p>{chart.svg()}"


def _between(points: Sequence[tuple[float, float]], at: float) -> float | None:
    """The cost at a threshold: that of the next observed score at or above it, where the same payments are alerted."""
    above = [cost for threshold_, cost in sorted(points) if threshold_ >= at]
    return above[0] if above else None


# --- champion against challenger ------------------------------------------------------------------------------------------------


def comparison(one: Version, other: Version) -> str:
    """Two versions side by side, and what the promotion's own test on the same rows said."""
    if one.card is None or other.card is None:
        return note("One of the two has no card, so they cannot be compared.")
    unsigned = [version.name for version in (one, other) if not version.has_signed_card]
    parts = [
        note(f"{' and '.join(unsigned)}: {UNSIGNED}") if unsigned else "",
        table(
            "Each on its own hold-out",
            ("Figure", one.name, other.name),
            _figures(one.card.holdout, other.card.holdout),
            (1, 2),
        ),
    ]
    for newer, older in ((one, other), (other, one)):
        assert newer.card is not None
        promotion = newer.card.promotion
        if promotion.champion == older.name and promotion.difference is not None and promotion.interval is not None:
            low, high = promotion.interval.low, promotion.interval.high
            parts.append(
                f"<p>On the same rows <code>{escaped(newer.name)}</code> had an average precision "
                f"<strong>{signed(promotion.difference, 4)}</strong> ({signed(low, 4)} to {signed(high, 4)}) against "
                f"<code>{escaped(older.name)}</code>.</p>"
            )
        elif newer is one or promotion.champion == older.name:
            parts.append(f"<p>{escaped(' '.join(promotion.reasons))}</p>")
    return "".join(parts) + f"<h3>What changed from {escaped(other.name)} to {escaped(one.name)}</h3>{differences(other, one)}"


def differences(old: Version, new: Version) -> str:
    """What is other in the new version than in the old one."""
    before, after = old.manifest, new.manifest
    told = []
    if before.learned.kind != after.learned.kind:
        told.append(f"The model is {after.learned.kind} instead of {before.learned.kind}.")
    told += _moved("Features", before.learned.features, after.learned.features)
    told += _moved("Partitions", *([p[0] for p in m.lineage.partitions] for m in (before, after)))
    redone = {p[0]: p[1] for p in before.lineage.partitions}
    changed = [key for key, content, _ in after.lineage.partitions if redone.get(key, content) != content]
    if changed:
        told.append(f"Partitions with other content: {', '.join(changed)}.")
    for name in ("review", "decline"):
        one, other = getattr(before.learned.thresholds, name), getattr(after.learned.thresholds, name)
        if one != other:
            told.append(f"The {name} threshold went from {threshold(one)} to {threshold(other)}.")
    libraries = [
        f"{name} {before.lineage.libraries.get(name, 'none')} to {value}"
        for name, value in after.lineage.libraries.items()
        if before.lineage.libraries.get(name) != value
    ]
    if libraries:
        told.append(f"Libraries: {', '.join(libraries)}.")
    return f"<ul>{''.join(f'<li>{escaped(line)}</li>' for line in told)}</ul>" if told else note("Nothing but the training run.")


def _moved(what: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    came, went = [n for n in after if n not in before], [n for n in before if n not in after]
    return [f"{what} {word}: {', '.join(names)}." for names, word in ((came, "added"), (went, "left out")) if names]


def history(latest: ChampionPointer | None, zone: ZoneInfo) -> str:
    """Every change of champion, newest first."""
    if latest is None:
        return note("There is no champion yet.")
    rows = []
    for change in reversed(latest.history):
        withdrawn = latest.withdrawn.get(change.version)
        state = "champion" if change.version == latest.version else f"withdrawn: {withdrawn.reason}" if withdrawn else ""
        rows.append(
            (
                f"{change.sequence}",
                f"<code>{escaped(change.version)}</code>",
                moment(change.at, zone),
                escaped(change.how),
                escaped(change.who),
                escaped(change.reason),
                escaped(state),
            )
        )
    header = ("No.", "Version", f"When ({zone.key})", "How", "Who", "Why", "Now")
    return table("Changes of champion, newest first", header, rows, (0,))


# --- the partitions -------------------------------------------------------------------------------------------------------------


def partitions(verdicts: dict[str, Verdict | None], zone: ZoneInfo) -> str:
    """Every partition and what the drift gate said of it, newest first."""
    if not verdicts:
        return note("No partition was materialized yet.")
    rows = []
    for key, verdict in reversed(verdicts.items()):
        if verdict is None:
            rows.append((escaped(key), "not judged yet", "", "", "", ""))
            continue
        worst = verdict.worst[0] if verdict.worst else None
        rows.append(
            (
                escaped(key),
                f'<span class="chip {"approve" if verdict.is_accepted else "decline"}">{_verdict(verdict)}</span>',
                f"{verdict.rows:,}",
                "" if worst is None else escaped(worst.name),
                "" if worst is None else f"{worst.severity:.2f}",
                moment(verdict.created_at, zone),
            )
        )
    header = ("Partition", "Verdict", "Rows", "Moved most", "of its bound", f"Judged ({zone.key})")
    return table("Partitions and verdicts, newest first", header, rows, (2, 4))


def _verdict(verdict: Verdict) -> str:
    if verdict.refused_by is not None:
        return f"refused by {escaped(verdict.refused_by.who)}"
    if verdict.overruled_by is not None:
        return f"accepted by {escaped(verdict.overruled_by.who)}"
    if verdict.accepted:
        return "accepted unjudged" if verdict.kind == "bootstrap" else "accepted"
    return "rejected"


def drift_table(verdict: Verdict | None) -> str:
    """The drift of each feature of a partition, furthest beyond its bound first, and every finding."""
    if verdict is None:
        return note("Choose a partition that was judged.")
    parts = []
    if not verdict.is_accepted:
        parts.append(f"<p>{escaped(gate.explain(verdict))}</p>")
    for decision in verdict.decisions:
        parts.append(f"<p>{escaped(decision.who)} said {escaped(decision.action)}: {escaped(decision.reason)}</p>")
    if verdict.findings:
        items = (f"<li>{escaped(f.message)}{'' if f.blocking else ' (does not block)'}</li>" for f in verdict.findings)
        parts.append(f"<ul>{''.join(items)}</ul>")
    rows = [
        (
            escaped(f.name),
            escaped(f.measure),
            f"{f.distance:.4f}",
            f"{f.noise:.4f}",
            f"{f.excess:.4f}",
            f"{f.bound:.4f}",
            f"{f.p_corrected:.2g}",
            "drifted" if f.drifted else "",
            f.role,
        )
        for f in verdict.worst
    ]
    header = ("Feature", "Measure", "Distance", "Noise", "Excess", "Bound", "p (corrected)", "State", "Role")
    if not rows:
        return "".join(parts) + note("No feature was compared: nothing was accepted before it.")
    return "".join(parts) + table(f"Drift of partition {verdict.partition}", header, rows, (2, 3, 4, 5, 6))
