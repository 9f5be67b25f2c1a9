"""The dashboards, in typed Python: `python observability/grafana/dashboards.py` writes them to observability/grafana/dashboards/.

The files are what Grafana provisions; a test keeps the two equal. Panels bear fixed numbers, since the links in alerts name them.
"""

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphThresholdsStyleMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="fraud-prometheus")
BUDGET = 0.001  # of the payments may be answered late or wrongly


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        number: its id, which links name.
        unit: one of Grafana's.
        limit: a line above which it is bad.
        kind: what is drawn: lines over time, or the last value.
    """

    number: int
    title: str
    unit: str
    queries: tuple[Query, ...]
    description: str
    limit: float | None = None
    kind: str = "lines"
    width: int = 12


def rate(metric: str, by: str, where: str = "") -> str:
    """The rate of a counter, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram, by labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', labels, where)})"


SERVICE = (
    Panel(
        1,
        "Scorers and desks",
        "none",
        (Query('up{job="fraud-scorer"}', "{{instance}}"), Query('up{job="fraud-desk"}', "desk {{instance}}")),
        "1: Prometheus reaches it.",
        kind="stat",
    ),
    Panel(
        2,
        "Requests",
        "reqps",
        (Query(rate("http_request_duration_seconds_count", "handler, status"), "{{handler}} {{status}}"),),
        "By route and status, of all workers.",
    ),
    Panel(
        3,
        "Latency of /v1/score",
        "s",
        (
            Query(quantile(0.5, "http_request_duration_seconds", where='handler="/v1/score"'), "median"),
            Query(quantile(0.95, "http_request_duration_seconds", where='handler="/v1/score"'), "95 %"),
            Query("fraud:score_latency_seconds:p99_5m", "99 %, five minutes"),
        ),
        "The objective is 50 ms for 99.9 % of payments.",
        limit=0.05,
    ),
    Panel(
        4,
        "Errors of /v1/score",
        "percentunit",
        (Query("fraud:score_errors:ratio_rate5m", "5xx, of all but wrong input"),),
        "Answers that are our fault.",
        limit=0.01,
    ),
    Panel(
        5,
        "Budget, burn rate",
        "none",
        tuple(Query(f"fraud:score_bad:ratio_rate{window} / {BUDGET}", window) for window in ("5m", "1h", "6h", "1d", "3d")),
        "1: a month's budget lasts a month. 14.4: two days.",
        limit=14.4,
    ),
    Panel(6, "Refusals", "reqps", (Query(rate("fraud_refused_total", "kind"), "{{kind}}"),), "By kind of problem."),
    Panel(7, "Decisions", "reqps", (Query(rate("fraud_decisions_total", "decision"), "{{decision}}"),), "On single payments."),
    Panel(
        8,
        "Decisions that wait for the database",
        "none",
        (
            Query("fraud_decision_log_backlog", "{{instance}}"),
            Query("fraud_recording_failing", "{{instance}} can write nowhere (1)"),
        ),
        "They are on the scorer's disk meanwhile. 1: not even that takes them, and payments are refused.",
        limit=1_000,
    ),
    Panel(
        9,
        "History and decision log, 99 %",
        "s",
        (
            Query(quantile(0.99, "fraud_history_seconds", "operation"), "history, {{operation}}"),
            Query(quantile(0.99, "fraud_decision_log_seconds"), "decision log"),
        ),
        "What a score waits for beside the model.",
    ),
    Panel(
        10,
        "Payments scored without history",
        "reqps",
        (Query("sum(rate(fraud_history_failures_total[$__rate_interval]))", "without history"),),
        "Because the history store did not answer.",
    ),
    Panel(
        11,
        "Errors at the desk",
        "none",
        (
            Query("sum by (handler) (increase(fraud_desk_handler_errors_total[$__rate_interval]))", "{{handler}}"),
            Query("sum(increase(fraud_desk_cases_unshown_total[$__rate_interval]))", "cases that could not be shown"),
        ),
        "Unexpected exceptions of its handlers; the desk's log has each by the id that whoever worked there was told.",
    ),
)

MODEL = (
    Panel(
        1,
        "Model",
        "none",
        (Query("fraud_model_loaded", "{{instance}}: loaded"), Query("fraud_model_info", "{{instance}}: {{version}}")),
        "1: there is a model to score with; and its version.",
        kind="stat",
    ),
    Panel(
        2,
        "Age of the champion",
        "s",
        (Query("time() - fraud_model_promoted_timestamp_seconds", "{{instance}}"),),
        "Since it became champion.",
        limit=45 * 86_400,
        kind="stat",
    ),
    Panel(
        3,
        "Looks at the pointer that failed",
        "none",
        (
            Query("fraud_model_reload_failing", "{{instance}}: failing now"),
            Query("increase(fraud_model_reload_failures_total[$__rate_interval])", "{{instance}}: failed looks"),
        ),
        "The model before goes on scoring.",
    ),
    Panel(
        4,
        "Drift of the traffic",
        "none",
        (Query('fraud:traffic_psi:sum1d{feature!="score"}', "{{feature}}"),),
        "Population stability index of the last day against the champion's reference.",
        limit=0.25,
    ),
    Panel(
        5,
        "Drift of the score",
        "none",
        (Query('fraud:traffic_psi:sum1d{feature="score"}', "score"),),
        "The same for the probabilities.",
        limit=0.25,
    ),
    Panel(
        6,
        "Share that is reviewed or declined",
        "percentunit",
        (
            Query("fraud:flagged:ratio1h", "of the last hour"),
            Query("max(fraud_reference_flagged_share)", "when the champion was validated"),
        ),
        "Three times as many, or a third, is told.",
    ),
    Panel(
        7,
        "Scores",
        "none",
        tuple(Query(quantile(q, "fraud_score"), f"{q:.1%}") for q in (0.5, 0.9, 0.99)),
        "Quantiles of the probabilities of single payments.",
    ),
    Panel(
        8,
        "Shares of $feature by bin",
        "percentunit",
        (
            Query('fraud:traffic_share:ratio1d{feature="$feature"}', "{{bin}} served"),
            Query('fraud:reference_share:max{feature="$feature"}', "{{bin}} expected"),
        ),
        "What moved: the bins that lie apart.",
    ),
    Panel(
        9,
        "Outcomes that were told",
        "none",
        (Query("sum by (outcome, source) (increase(fraud_labels_kept_total[1h]))", "{{outcome}} by {{source}}"),),
        "Labels by chargebacks and analysts, an hour.",
    ),
    Panel(
        10,
        "Live precision of the review queue",
        "percentunit",
        (Query("fraud_review_precision", "of {{window}}"),),
        "Share of frauds among reviewed payments whose outcome is known.",
    ),
)

PIPELINE = (
    Panel(
        1,
        "Since the last success",
        "s",
        (Query("time() - max by (asset) (fraud_asset_last_success_timestamp_seconds)", "{{asset}}"),),
        "Of each asset, in any partition.",
    ),
    Panel(
        2,
        "Duration of the last success",
        "s",
        (Query("max by (asset) (fraud_asset_duration_seconds)", "{{asset}}"),),
        "The longest of the partitions that are told.",
    ),
    Panel(
        3,
        "Refused rows",
        "percentunit",
        (
            Query("fraud_partition_quarantined_share", "{{partition}}"),
            Query("fraud_quarantined_share_tolerated", "tolerated"),
        ),
        "Share of each partition that went to quarantine.",
    ),
    Panel(
        4,
        "Partitions whose newest check failed",
        "none",
        (Query("fraud_checks_failing", "{{check}} of {{asset}} ({{severity}})"),),
        "The alert sensor told each when it failed.",
    ),
    Panel(
        5,
        "Partitions by the gate's verdict",
        "none",
        (
            Query("fraud_partitions", "{{state}}"),
            Query("count(time() - fraud_partition_waiting_since_timestamp_seconds > 86400) or vector(0)", "waiting over a day"),
        ),
        "Waiting: rejected, and no person has decided.",
    ),
    Panel(
        6,
        "Rows",
        "none",
        (Query('fraud_asset_rows{asset="raw"}', "{{partition}}"),),
        "Of each partition of raw.",
    ),
    Panel(
        7,
        "Outboxes",
        "none",
        (Query("sum by (queue) (fraud_outbox_backlog) or vector(0)", "{{queue}}"),),
        "What waits on disk for the DVC remote and MLflow.",
    ),
    Panel(
        8,
        "Alerts",
        "none",
        (
            Query("fraud_alerts_open", "open"),
            Query("fraud_alerts_undelivered", "not delivered"),
            Query("time() - fraud_alert_round_timestamp_seconds", "seconds since the last round"),
        ),
        "Of the sensor that tells of failed checks and runs.",
    ),
    Panel(
        9,
        "Checks",
        "none",
        (Query("sum by (severity, result) (fraud_check_results_total)", "{{result}} ({{severity}})"),),
        "Evaluations so far.",
    ),
    Panel(
        10,
        "Exporter, and data that is due",
        "none",
        (
            Query('up{job="fraud-pipeline"}', "exporter answers"),
            Query("(time() - fraud_next_partition_due_timestamp_seconds) / 86400", "days that the next partition is late"),
        ),
        "Below 0: it is not due yet. Nothing: the source has no more.",
        limit=2,
    ),
)

DASHBOARDS = {
    "fraud-service": ("Fraud: service", SERVICE),
    "fraud-model": ("Fraud: model and data", MODEL),
    "fraud-pipeline": ("Fraud: pipeline", PIPELINE),
}


def build(uid: str) -> Dashboard:
    """The dashboard of this uid."""
    title, panels = DASHBOARDS[uid]
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["fraud"])
        .timezone("browser")
        .refresh("30s")
        .time("now-6h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    if uid == "fraud-model":
        feature = dashboard.QueryVariable("feature").query("label_values(fraud_reference_share, feature)")
        built = built.with_variable(feature.datasource(SOURCE).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED))
    for panel in panels:
        built = built.with_panel(_panel(panel))
    return built.build()


def encoded(uid: str) -> str:
    """The dashboard's file."""
    return JSONEncoder(sort_keys=True, indent=1).encode(build(uid)) + "\n"


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel:
    drawn = stat.Panel() if panel.kind == "stat" else timeseries.Panel().show_points(VisibilityMode.NEVER).line_width(1)
    drawn = drawn.id(panel.number).title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    drawn = drawn.span(panel.width).height(8)
    for place, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).datasource(SOURCE)
        drawn = drawn.with_target(target.ref_id("ABCDEFGH"[place]))
    if panel.limit is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=panel.limit, color="red")]
        drawn = drawn.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        if isinstance(drawn, timeseries.Panel):
            drawn = drawn.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE))
    return drawn


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for uid in DASHBOARDS:
        (FOLDER / f"{uid}.json").write_text(encoded(uid))


if __name__ == "__main__":
    main()
