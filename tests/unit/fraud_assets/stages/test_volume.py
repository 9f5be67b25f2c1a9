"""The checks `row_count` and `fraud_rate`: what they compare a partition with."""

from typing import Any

import dagster as dg
import polars as pl
import pytest

from fraud_assets.runtime.partitioning import partitions_def
from fraud_assets.stages import transformed, volume
from fraud_assets.stages.volume import fraud_rates_of, row_count_of
from fraud_core.gate import verdict_key
from fraud_core.sources.source import Quality
from tests.stores import remove

LAST = "2024-06"


def test_neither_check_blocks(bench: Any) -> None:
    for check in volume.build(bench.installation):
        (spec,) = check.check_specs
        assert not spec.blocking


def test_the_checks_show_their_figures_and_fail_as_warnings(bench: Any) -> None:
    """1,200 rows in a month of 30 days, where the TOML asks for a hundred a day."""
    source = bench.installation.source.model_copy(update={"quality": Quality(rows_per_day=(100.0, 200.0))})
    installation = bench.with_source(source).installation
    assets = [part for part in transformed.build(installation) if isinstance(part, dg.AssetsDefinition)]
    by_partition = dg.PartitionedConfig(partitions_def(source), run_config_for_partition_key_fn=lambda _: {})
    checks = dg.AssetSelection.checks(*(check.check_key for check in volume.build(installation)))
    job = dg.define_asset_job("judge", checks, config=by_partition)
    definitions = dg.Definitions(
        assets, asset_checks=volume.build(installation), jobs=[job], resources={"artifacts": dg.InMemoryIOManager()}
    )
    with dg.DagsterInstance.ephemeral(tempdir=str(installation.settings.home)) as instance:
        instance.add_dynamic_partitions("bench_partitions", [LAST])
        result = definitions.resolve_job_def("judge").execute_in_process(
            instance=instance,
            partition_key=LAST,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    assert result.success
    evaluations = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    rows, rate = evaluations["row_count"], evaluations["fraud_rate"]
    assert (rows.passed, rows.severity, rows.partition) == (False, dg.AssetCheckSeverity.WARN, LAST)
    assert (rows.metadata["rows_per_day"].value, rows.metadata["usual_low"].value) == (40.0, 100.0)
    assert rate.passed
    assert 0 < rate.metadata["mature_rows"].value < 1_200  # type: ignore[operator]


def test_what_is_usual_comes_from_accepted_partitions_alone(bench: Any) -> None:
    few = {key: frame.head(240) for key, frame in bench.rows().items() if key < LAST}
    bench.fill(few)  # every earlier month has a fifth of the last one's rows ...
    assert not row_count_of(bench.installation, LAST).usual
    bench.fill(few, rejected=tuple(few))  # ... but rejected ones say nothing
    assert "too few partitions came before" in row_count_of(bench.installation, LAST).message


@pytest.mark.parametrize("damage", ["missing", "edited", "of other content"])
def test_a_partition_without_a_verdict_to_trust_is_not_compared_with(bench: Any, damage: str) -> None:
    present = bench.installation.transformed()
    assert volume.accepted_before(bench.installation, LAST, present)[:2] == ["2024-05", "2024-04"]
    store, key = bench.installation.artifacts.store, verdict_key("2024-05")
    match damage:
        case "missing":
            remove(store, key)
        case "edited":
            store.put(key, store.get(key).replace(b'"judged"', b'"bootstrap"'))
        case _:
            present |= {"2024-05": present["2024-05"].model_copy(update={"content": "other"})}
    assert volume.accepted_before(bench.installation, LAST, present)[:2] == ["2024-04", "2024-03"]


def test_only_rows_whose_labels_are_mature_are_counted(bench: Any) -> None:
    rates = fraud_rates_of(bench.installation, ["2024-05", LAST])
    until = volume.mature_instant(bench.installation, bench.installation.transformed())
    frame = bench.installation.artifacts.scan("transformed", LAST).filter(pl.col("timestamp") < until).collect()
    assert rates["2024-05"][1].rows == 1_200
    assert (rates[LAST][1].rows, rates[LAST][1].frauds) == (frame.height, frame["label"].sum())
    assert frame.height < 1_200


def test_a_multiple_of_the_usual_frauds_is_a_finding(new_bench: Any) -> None:
    bench = new_bench(label_delay_days=0)
    for month in range(1, 13):
        bench.put(f"2023-{month:02d}", bench_rows(bench, f"2023-{month:02d}", 0.05))
    for share, usual in ((0.05, True), (0.3, False)):
        bench.put("2024-01", bench_rows(bench, "2024-01", share))
        assert fraud_rates_of(bench.installation, ["2024-01"])["2024-01"][0].usual is usual


def bench_rows(bench: Any, key: str, share: float) -> pl.DataFrame:
    """Rows of which this share is fraud."""
    rows = bench.rows(fraud_share=share)[LAST]
    start = pl.lit(f"{key}-02").str.to_datetime(time_unit="us", time_zone="UTC")
    return rows.with_columns((start + pl.duration(minutes=pl.int_range(pl.len()))).alias("timestamp"))


def test_where_no_partition_has_a_row_no_label_is_mature(new_bench: Any) -> None:
    bench = new_bench()
    empty = bench.rows()[LAST].clear()
    for month in ("2023-01", "2023-02"):
        bench.put(month, empty)
    assert fraud_rates_of(bench.installation, ["2023-02"])["2023-02"][1].rows == 0
