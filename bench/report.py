"""The bench's results as a table and a plot in docs/."""

import os
import platform
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizing import sizing, write_sizing

if TYPE_CHECKING:
    from score import Results, Round

GOALS = {
    "score_vs_empty_route": ("at least 0.70 (0.80 wanted)", lambda value: value >= 0.70),
    "p99_vs_empty_route": ("at most 1.5", lambda value: value <= 1.5),
    "sqlite_vs_empty_route": ("at least 0.35 (0.50 wanted)", lambda value: value >= 0.35),
    "redis_vs_empty_route": ("at least 0.30 (0.40 wanted)", lambda value: value >= 0.30),
    "sqlite_own_windows_vs_standard": ("at least 0.75", lambda value: value >= 0.75),
    "sqlite_own_window_us": ("at most 3", lambda value: value <= 3),
    "redis_own_windows_vs_standard": ("at least 0.75", lambda value: value >= 0.75),
    "redis_own_window_us": ("at most 3", lambda value: value <= 3),
    "batch_rows_per_s": ("at least 50,000 (100,000 wanted)", lambda value: value >= 50_000),
    "single_beside_batches_ms": ("at most 50", lambda value: value <= 50),
    "file_peak_mb": ("at most 500", lambda value: value <= 500),
    "ready_s": ("at most 2", lambda value: value <= 2),
    "rss_mb": ("at most 250", lambda value: value <= 250),
}


def machine() -> str:
    """What this ran on."""
    cpus = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    model = cpus[0] if cpus else platform.machine()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "uvicorn", "pydantic", "numpy", "treelite"))
    extras = ", ".join(name for name in ("uvloop", "httptools") if _installed(name)) or "neither uvloop nor httptools"
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; {libraries}; {extras}"
    )


def write_report(results: "Results", summary: dict[str, float], docs: Path) -> None:
    """Write docs/bench.md and its picture, and the sizing table of docs/scaling.md."""
    (docs / "images").mkdir(exist_ok=True)
    _plot(results, docs / "images" / "bench.svg")
    (docs / "bench.md").write_text(_text(results, summary))
    per_second = {kind: statistics.median(one.per_second for one in rounds) for kind, rounds in results.rounds.items()}
    write_sizing(docs / "scaling.md", sizing(per_second, results.rss_mb))


def _text(results: "Results", summary: dict[str, float]) -> str:
    lines = [
        "# How fast the scorer is",
        "",
        "Made by `make bench`. Ratios first: they compare both routes on one machine in the same minutes.",
        "",
        "| figure | measured | goal | met |",
        "|---|---|---|---|",
    ]
    for name, value in summary.items():
        goal, met = GOALS.get(name, ("", None))
        lines.append(f"| `{name}` | {value:,} | {goal} | {'' if met is None else 'yes' if met(value) else '**no**'} |")
    lines += [
        "",
        "![Requests a second in every round, and where the time of a score goes](images/bench.svg)",
        "",
        "## Routes side by side",
        "",
        "One worker on one core, `wrk` on another. *empty*: a FastAPI route with the same request and response models, "
        "middleware, key check and log line that answers a constant. *bare*: our own route, which reads and writes JSON without "
        "FastAPI's general machinery, answering a constant. *scoring*: `/v1/score`, model without history, nothing recorded. "
        "*sqlite*, *redis*: with a model that uses history, read from there; each payment recorded, each decision logged (in "
        "SQLite) before it is answered. Redis shares the load tool's core. *own fields*: the same with the fields of "
        "`sources/simulated_online.toml` and the standard windows; *own windows*: with its twenty windows of five entities, too. "
        "*a merchant of a million payments*: SQLite, where all payments go to one merchant of that many in thirty days.",
        "",
        "| route | requests/s, median (range) | p99 at half load, ms | processor µs a request |",
        "|---|---|---|---|",
    ]
    for kind, rounds in results.rounds.items():
        tail = _range(results.half_load.get(kind, []), lambda load: load.p99_ms, "{:.2f}")
        rate = _range(rounds, lambda load: load.per_second, "{:,.0f}")
        lines.append(f"| {kind} | {rate} | {tail} | {_range(rounds, lambda load: load.processor_us, '{:.0f}')} |")
    rate = results.ratios("scoring", "empty", lambda load: load.per_second, results.rounds)
    lines += [
        "",
        f"Scoring to empty, round by round: {', '.join(f'{one:.2f}' for one in rate)}.",
        "",
        "## Where the time of a score goes",
        "",
        "Payments that arrive in the same turn of the event loop are scored together, which is why a route that scores is hardly "
        f"slower under load than one that does not. With one caller at a time the ratio is {_alone(results):.2f}.",
        "",
        "| stage | processor µs |",
        "|---|---|",
        *(f"| {name} | {value:.1f} |" for name, value in results.stages_us.items()),
        "",
        f"The same row through scikit-learn's `predict_proba` on a DataFrame: {results.dataframe_us:,.0f} µs.",
        "",
        "## Many rows",
        "",
        f"Batches of 1,000: {statistics.median(results.batch_rows_per_s):,.0f} rows/s on one core; the bare model on a ready "
        f"matrix: {results.bare_model_rows_per_s:,.0f} rows/s.",
        "",
        f"Who sends one payment after the other waits {statistics.median(results.beside.alone_ms):.1f} ms for each (median), and "
        f"{statistics.median(results.beside.beside_ms):.1f} ms beside six batches of 10,000 that are sent at once: batches are "
        "scored in a thread of their own, which gives the interpreter back within a millisecond.",
        "",
        f"A Parquet file of {results.file_rows:,} rows: {results.file_rows / results.file_seconds:,.0f} rows/s, "
        f"{results.file_peak_mb:.0f} MB at most for the server and the process that scores the file.",
        "",
        f"Start to ready: {statistics.median(results.ready_s):.2f} s; resident memory after scoring and explaining: "
        f"{results.rss_mb:.0f} MB.",
        "",
        f"Machine: {machine()}.",
        "",
    ]
    return "\n".join(lines)


def _alone(results: "Results") -> float:
    return statistics.median(results.ratios("scoring", "empty", lambda load: load.per_second, results.one_caller))


def _range(rounds: "list[Round]", value: "Callable[[Round], float]", form: str) -> str:
    if not rounds:
        return ""
    values = [value(one) for one in rounds]
    return f"{form.format(statistics.median(values))} ({form.format(min(values))} to {form.format(max(values))})"


def _plot(results: "Results", path: Path) -> None:
    import matplotlib  # noqa: PLC0415 - only where a report is written

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure: Any
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for kind, rounds in results.rounds.items():
        left.plot(range(1, len(rounds) + 1), [load.per_second for load in rounds], marker="o", label=kind)
    left.set(xlabel="round", ylabel="requests a second", ylim=(0, None), title="Routes side by side")
    left.legend()
    stages = {name: value for name, value in results.stages_us.items() if not name.startswith("whole")}
    right.barh(list(stages)[::-1], list(stages.values())[::-1])
    right.set(xlabel="processor µs", title="Where the time of a score goes")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
