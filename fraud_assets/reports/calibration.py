"""The gate's calibration as Markdown: false alarms, power, and a source's own partitions judged in turn."""

from collections.abc import Mapping, Sequence

from fraud_assets.reports.markdown import markdown_table
from fraud_core import gate
from fraud_core.gate import calibration, statistics
from fraud_core.gate.calibration import DAYS, Portfolio, Rate


def report(detector: statistics.Detector = statistics.scipy_detector) -> str:
    """False alarms and power on the simulator, measured anew. Takes about ten minutes of one core."""
    alarms = false_alarm_table(calibration.false_alarms(detector=detector))
    power = power_table({rows: calibration.power(rows, detector=detector) for rows in calibration.POWER_ROWS})
    return f"### False alarms\n\n{alarms}\n\n### Power: share of partitions rejected, with 95 % intervals\n\n{power}"


def false_alarm_table(rates: Sequence[tuple[Portfolio, Rate]]) -> str:
    """Each portfolio, and all together."""
    names = ("seed", "cadence", "zone", "cards", "rows a partition", "rejected of judged")
    rows = [
        (
            f"{one.config.seed}",
            one.cadence.value,
            one.zone.key,
            f"{one.config.cardholders:,}",
            f"{one.config.transactions_per_day * DAYS[one.cadence]:,.0f}",
            f"{rate.hits} of {rate.trials}",
        )
        for one, rate in rates
    ]
    total = sum((rate for _, rate in rates), Rate(0, 0))
    rows.append(("all", "", "", "", "", f"**{total.hits} of {total.trials}: {total}**"))
    return markdown_table([dict(zip(names, row, strict=True)) for row in rows])


def power_table(cells: Mapping[int, Mapping[str, Rate]]) -> str:
    """Shifts down, rows a partition across."""
    names = [shift.name for shift in calibration.shifts()]
    return markdown_table([{"shift": name} | {f"{size:,} rows": rates[name] for size, rates in cells.items()} for name in names])


def walk_table(judgements: Sequence[gate.Judgement]) -> str:
    """Each partition of a source with its verdict, and the distance of each feature (in brackets: beyond noise)."""
    verdicts = [judgement.verdict for judgement in judgements]
    features = dict.fromkeys((feature.name for verdict in verdicts for feature in verdict.features), "")
    rows = []
    for verdict in verdicts:
        said = "rejected" if not verdict.accepted else "accepted" if verdict.kind == "judged" else "bootstrap"
        distances = {feature.name: f"{feature.distance:.3f} ({feature.excess:.3f})" for feature in verdict.features}
        rows.append({"partition": verdict.partition, "rows": f"{verdict.rows:,}", "verdict": said} | features | distances)
    return markdown_table(rows)
