"""Pictures of dashboards without a Grafana server: each panel's queries, asked of a real Prometheus and drawn by Matplotlib."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.observed_system import RATE_INTERVAL, shortened
from tests.servers.prometheus_server import PrometheusServer

COLUMNS, MOST_LINES = 2, 12
FEATURE = "log_amount"  # the one that is chosen
UNITS = {"s": "seconds", "reqps": "a second", "percentunit": "share", "none": ""}


def expression_of(target: dict[str, Any]) -> str:
    """What Grafana would ask: its variables filled in, and durations as short as the rules' are here."""
    asked = target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$feature", FEATURE)
    return shortened(asked)


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each panel's title with each of its expressions."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], expression_of(target)


def draw(dashboard: dict[str, Any], prometheus: PrometheusServer, start: float, end: float, path: Path) -> None:
    """Draw the dashboard over a stretch of time (seconds since 1970)."""
    panels = dashboard["panels"]
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(14, 2.6 * rows + 0.6), layout="constrained", facecolor="#f4f5f5")
    FigureCanvasAgg(figure)
    figure.suptitle(dashboard["title"], fontsize=15, fontweight="bold")
    places = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes, panel in zip(places, panels, strict=False):
        _draw_panel(axes, panel, prometheus, start, end)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=80)


def _draw_panel(axes: Axes, panel: dict[str, Any], prometheus: PrometheusServer, start: float, end: float) -> None:
    drawn = 0
    for target in panel["targets"]:
        for series in prometheus.query_range(expression_of(target), start, end, 0.5):
            drawn += 1
            if drawn <= MOST_LINES:
                points = [(float(at) - start, float(value)) for at, value in series["values"]]
                axes.plot(*zip(*points, strict=True), label=_legend(target["legendFormat"], series["metric"]), linewidth=1.2)
    steps = panel.get("fieldConfig", {}).get("defaults", {}).get("thresholds", {}).get("steps", [])
    for step in steps:
        if step["value"] is not None:
            axes.axhline(step["value"], color="#d44a3a", linestyle="--", linewidth=1)
    axes.set_title(panel["title"].replace("$feature", FEATURE), loc="left", fontsize=10, fontweight="bold")
    axes.set_xlim(0, end - start)
    axes.set_ylabel(UNITS[panel["fieldConfig"]["defaults"]["unit"]], fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_facecolor("white")
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _legend(pattern: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern)
