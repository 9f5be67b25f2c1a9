"""Plots of a report and of a feature's shift, as PNG bytes small enough to travel inside Dagster's metadata."""

import base64
import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogitLocator, NullFormatter

from fraud_core.evaluation.calibration import LEAST, MOST, CalibrationBin
from fraud_core.evaluation.report import Moved, Report
from fraud_core.signing.card_numbers import printable
from fraud_core.units.arrays import Array

# Okabe and Ito's palette, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
SHOWN_CATEGORIES = 15
DISTINCT_AS_BARS = 32  # a numeric feature with no more distinct values than this is drawn value by value
FEW_VALUES = 10  # up to so many of them, each gets a tick
HISTOGRAM_BINS = 40


def pr_plot(validation: Report, holdout: Report) -> bytes:
    """Precision over recall on validation B and on the hold-out, with the fraud rate of each and the policy's two points."""
    figure, axes = _axes("Precision and recall", "Recall: share of frauds alerted", "Precision: share of alerts that are fraud")
    for name, report, colour in (("Validation B", validation, GREY), ("Hold-out", holdout, BLUE)):
        label = f"{name}: average precision {report.average_precision:.3f}, fraud rate {report.fraud_rate:.2%}"
        axes.step(*zip(*report.precision_recall_line, strict=True), where="pre", color=colour, label=label)
        axes.axhline(report.fraud_rate, color=colour, linestyle=":", linewidth=1.5, zorder=3)
    for name, point in holdout.served_points.items():
        label, marker = f"{name.capitalize()} threshold on the hold-out", "o" if name == "review" else "s"
        axes.plot(*point, marker, color=RED, markersize=7, label=label)
    axes.plot([], [], ":", color=GREY, label="Guessing: precision is the fraud rate")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(-0.03, 1.03)  # room to see the fraud rate, which lies just above 0
    return _png(figure)


def calibration_plot(validation: Report, holdout: Report) -> bytes:
    """Observed over predicted share of fraud, on log-odds axes, with 95 % Wilson intervals; a share of 0 lies on the edge."""
    figure, axes = _axes("Calibration", "Predicted probability of fraud (mean of a bin)", "Observed share of fraud")
    axes.plot([LEAST, MOST], [LEAST, MOST], "--", color=GREEN, linewidth=1, label="Perfectly calibrated")
    for name, report, colour in (("Validation B (calibrated here)", validation, GREY), ("Hold-out", holdout, BLUE)):
        label = f"{name}: expected calibration error {report.calibration_error:.4f}"
        _calibration_bars(axes, report.calibration, colour, label)
    _log_odds(axes, "x")
    _log_odds(axes, "y")
    return _png(figure)


def cost_plot(report: Report) -> bytes:
    """How the cost moves with either threshold while the other stays, with both thresholds and approving everything marked."""
    figure, axes = _axes("Cost of the policy", "Threshold (probability of fraud)", "Cost per 1,000 transactions (currency units)")
    both: tuple[tuple[Moved, str], ...] = (("review", BLUE), ("decline", ORANGE))
    for moved, colour in both:
        name, threshold = moved.capitalize(), report.served_threshold(moved)
        x, y = np.array(report.cost_line(moved)).T
        axes.plot(np.clip(x, LEAST, MOST), y, color=colour, label=f"{name} threshold moved, the other kept")
        stated = f"at {threshold:.3g}" if threshold <= 1 else "never"
        label = f"{name} threshold: {stated}"
        axes.axvline(np.clip(threshold, LEAST, MOST), color=colour, linestyle="--", linewidth=1, label=label)
    approve_all = report.approving_everything
    axes.axhline(approve_all, color=RED, linestyle=":", label=f"Approving everything: {approve_all:,.0f}")
    axes.axhline(report.cost.per_thousand, color=GREEN, linestyle=":", label=f"This policy: {report.cost.per_thousand:,.0f}")
    _log_odds(axes, "x")
    # A review threshold near 0 reviews everybody: that cost would flatten all that is worth seeing.
    axes.set_ylim(0, 2 * max(approve_all, report.cost.per_thousand, 1e-9))
    return _png(figure)


def feature_shift_plot(name: str, reference: Array, current: Array, unit: str = "") -> bytes:
    """A feature's distribution in the reference and in the current partition.

    Args:
        name: the feature.
        reference, current: values; numbers (NaN: missing), or text (None: missing).
        unit: of the values, for the axis.
    """
    figure, axes = _axes(f"{name}: reference and current", f"{name} ({unit})" if unit else name, "Share of rows")
    samples = (reference, current)
    missing = [_missing(sample) for sample in samples]
    present = [sample[~gone] for sample, gone in zip(samples, missing, strict=True)]
    labels = [
        f"{label}: {len(sample):,} rows, {gone.mean():.1%} missing" if len(sample) else f"{label}: no rows"
        for label, sample, gone in zip(("Reference", "Current"), samples, missing, strict=True)
    ]
    values = np.unique(np.concatenate([part.astype(str) if reference.dtype.kind in "OUS" else part for part in present]))
    if reference.dtype.kind in "OUS":
        _category_bars(axes, [part.astype(str) for part in present], labels)
    elif len(values) <= DISTINCT_AS_BARS:
        _value_bars(axes, values, present, labels)
    else:
        _histograms(axes, values, present, labels)
    return _png(figure)


def as_markdown_image(png: bytes, alt: str = "plot") -> str:
    """The picture as Markdown that needs no file beside it."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})"


def warning(text: str) -> str:
    """A sentence in red, as Markdown, which has no colours of its own; the words are the picture's alternative text, too."""
    figure = Figure(figsize=(7.2, 0.4), dpi=90)
    figure.patch.set_facecolor("#b3261e")
    figure.text(0.02, 0.5, f"unverified: {text}", color="white", weight="bold", va="center")
    return as_markdown_image(_png(figure), f"unverified: {text}")


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 5.0), dpi=90, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    """The picture, with the legend below it: inside, it would sooner or later cover what is to be seen."""
    if any(axes.get_legend_handles_labels()[0] for axes in figure.axes):
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    # Without the library's version inside, equal reports give equal bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _log_odds(axes: Axes, which: str) -> None:
    getattr(axes, f"set_{which}scale")("logit", nonpositive="clip")
    getattr(axes, f"set_{which}lim")(LEAST, MOST)
    axis = getattr(axes, f"{which}axis")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(LogitLocator(minor=True))


def _calibration_bars(axes: Axes, bins: tuple[CalibrationBin, ...], colour: str, label: str) -> None:
    predicted = np.clip([b.mean_score for b in bins], LEAST, MOST)
    observed = np.clip([b.observed_rate for b in bins], LEAST, MOST)
    low = np.clip([b.interval.low for b in bins], LEAST, MOST)
    high = np.clip([b.interval.high for b in bins], LEAST, MOST)
    reach = np.maximum([observed - low, high - observed], 0)
    axes.errorbar(predicted, observed, yerr=reach, fmt="o-", color=colour, capsize=3, markersize=4, linewidth=1, label=label)


def _missing(sample: Array) -> Array:
    if sample.dtype.kind == "O":
        return np.array([value is None for value in sample], dtype=bool)
    return np.isnan(sample) if sample.dtype.kind == "f" else np.zeros(len(sample), dtype=bool)


def _value_bars(axes: Axes, values: Array, present: list[Array], labels: list[str]) -> None:
    width = 0.4 * (np.diff(values).min() if len(values) > 1 else 1.0)
    for part, label, colour, side in zip(present, labels, (GREY, BLUE), (-0.5, 0.5), strict=True):
        shares = [np.mean(part == value) if len(part) else 0.0 for value in values]
        axes.bar(values + side * width, shares, width, color=colour, label=label)
    if len(values) <= FEW_VALUES:
        axes.set_xticks(values)


def _category_bars(axes: Axes, present: list[Array], labels: list[str]) -> None:
    names, counts = np.unique(np.concatenate(present), return_counts=True)
    shown = names[np.argsort(-counts, kind="stable")][:SHOWN_CATEGORIES]
    places = np.arange(len(shown) + (len(names) > len(shown)))
    for part, label, colour, side in zip(present, labels, (GREY, BLUE), (-0.2, 0.2), strict=True):
        shares = [np.mean(part == name) if len(part) else 0.0 for name in shown]
        if len(names) > len(shown):
            shares.append(1.0 - sum(shares) if len(part) else 0.0)
        axes.barh(places + side, shares, 0.4, color=colour, label=label)
    others = [f"{len(names) - len(shown)} others"] if len(names) > len(shown) else []
    ticks = [*(printable(str(name)) for name in shown), *others]
    axes.set_yticks(places, ticks, fontsize=8, parse_math=False)  # a name may hold a dollar sign
    axes.invert_yaxis()
    x, y = axes.get_xlabel(), axes.get_ylabel()
    axes.set(xlabel=y, ylabel=x)


def _histograms(axes: Axes, values: Array, present: list[Array], labels: list[str]) -> None:
    # One wild value must not squeeze everything else into a single bar: the ends hold what lies beyond them.
    everything = np.concatenate(present)
    low, high = np.quantile(everything, [0.002, 0.998])
    low, high = (low, high) if low < high else (values[0], values[-1])
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    for part, label, colour in zip(present, labels, (GREY, BLUE), strict=True):
        counts, _ = np.histogram(np.clip(part, low, high), edges)
        axes.stairs(counts / max(len(part), 1), edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(counts / max(len(part), 1), edges, color=colour, linewidth=1.4, label=label)
