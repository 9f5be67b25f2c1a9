"""The IO manager: one write for every asset, and metadata that tells nothing personal."""

from typing import Any

import dagster as dg
import polars as pl
import pytest
from joblib import dump

from fraud_assets.reports.markdown import markdown_table, sample_table
from fraud_assets.runtime.io_manager import SAMPLE_ROWS, ArtifactIOManager
from fraud_core.storage.artifacts import Document, Estimator, Table

PERSONAL = {"card": "c0ffee", "birth_date": "1971-02-03", "home_latitude": 47.123456, "home_longitude": 8.654321}


def materialize(
    bench: Any, *assets: dg.AssetsDefinition | dg.AssetSpec, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    resources = {"artifacts": dg.IOManagerDefinition.hardcoded_io_manager(ArtifactIOManager(bench.installation))}
    return dg.materialize(list(assets), resources=resources, partition_key=partition, raise_on_error=False)


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}


def table(rows: int = 8) -> Table:
    columns = {"transaction_id": [f"t{row}" for row in range(rows)], "split_bucket": [712] * rows}
    frame = pl.DataFrame(columns | {name: [value] * rows for name, value in PERSONAL.items()})
    return Table(frame=frame, content="the content", inputs="the inputs", facts={"rows": rows, "first_us": 1_700_000_000_000_000})


def returns(value: Any, name: str = "raw", partitions: dg.PartitionsDefinition[str] | None = None) -> dg.AssetsDefinition:
    @dg.asset(name=name, io_manager_key="artifacts", partitions_def=partitions)
    def asset() -> Any:
        return value

    return asset


def test_a_table_goes_to_its_partition_and_reads_back_the_same(new_bench: Any) -> None:
    bench, months = new_bench(), dg.StaticPartitionsDefinition(["2024-01", "2024-02"])
    for month, rows in (("2024-01", 3), ("2024-02", 4)):
        assert materialize(bench, returns(table(rows), partitions=months), partition=month).success
    assert list(bench.installation.artifacts.pointers("raw")) == ["2024-01", "2024-02"]
    assert bench.installation.artifacts.scan("raw", "2024-01").collect().equals(table(3).frame)


def test_a_sample_of_many_columns_has_a_line_a_column() -> None:
    rows = [{f"c{column}": row * 100 + column for column in range(60)} for row in (1, 2)]
    head, _, first, *_, last = sample_table(rows).splitlines()
    assert (head, first, last) == ("| column | row 1 | row 2 |", "| c0 | 100 | 200 |", "| c59 | 159 | 259 |")
    narrow = [{"a": 1, "b": 2}]
    assert sample_table(narrow) == markdown_table(narrow)
    assert sample_table([]) == "(no rows)"


def test_a_table_shows_where_it_is_what_it_holds_and_a_sample(new_bench: Any) -> None:
    bench = new_bench()
    metadata = shown(materialize(bench, returns(table())))
    pointer = bench.installation.artifacts.pointer("raw")
    assert metadata["uri"] == bench.installation.artifacts.store.uri(pointer.key)
    assert (metadata["sha256"], metadata["bytes"]) == (pointer.sha256, pointer.size)
    assert (metadata["content"], metadata["rows"], metadata["dagster/row_count"]) == ("the content", 8, 8)
    assert [column.name for column in metadata["dagster/column_schema"].columns] == table().frame.columns
    assert all(column.description for column in metadata["dagster/column_schema"].columns)
    ((made_of,),) = [metadata["dagster/column_lineage"].deps_by_column["birth_date"]]
    assert (made_of.asset_key, made_of.column_name) == (dg.AssetKey("landing"), "birth_date")
    assert metadata["sample"].splitlines()[2:] == [f"| t{row} |" for row in range(SAMPLE_ROWS)]


def test_nothing_personal_is_shown(new_bench: Any) -> None:
    text = str(shown(materialize(new_bench(), returns(table()))))
    assert "t0" in text
    for value in (*PERSONAL.values(), "712", "1700000000000000"):
        assert str(value) not in text


def test_what_was_there_before_is_not_touched_by_a_new_materialization(new_bench: Any) -> None:
    bench = new_bench()
    materialize(bench, returns(table(3)))
    old = bench.installation.artifacts.pointer("raw")
    data = bench.installation.artifacts.store.get(old.key)
    materialize(bench, returns(table(4)))
    assert bench.installation.artifacts.pointer("raw").key != old.key
    assert bench.installation.artifacts.store.get(old.key) == data


def takes(received: list[Any], name: str, key: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, ins={"value": dg.AssetIn(key, input_manager_key="artifacts")})
    def asset(value: Any) -> None:
        received.append(value)

    return asset


def test_documents_and_fitted_objects_come_back_as_they_were(new_bench: Any) -> None:
    bench, received = new_bench(), []
    document = Document(body={"files": {"a.csv": 3}}, content="c")
    upstream = [returns(document, "landing"), returns(Estimator(fitted=[1, 2, 3], inputs="i"), "preprocessor")]
    consumers = [takes(received, "first", "landing"), takes(received, "second", "preprocessor")]
    assert materialize(bench, *upstream, *consumers).success
    assert sorted(received, key=str) == sorted([document.body, [1, 2, 3]], key=str)


class UnpickledError(Exception):
    """Raised where bytes that nobody signed are executed."""


def _unpickle() -> None:
    raise UnpickledError


class Trap:
    """An object whose unpickling runs code."""

    def __reduce__(self) -> Any:
        return _unpickle, ()


@pytest.mark.parametrize("forge_pointer", [False, True])
def test_a_fitted_object_that_was_not_written_here_is_never_unpickled(new_bench: Any, tmp_path: Any, forge_pointer: bool) -> None:
    bench, received = new_bench(), []
    artifacts = bench.installation.artifacts
    pointer = artifacts.write("preprocessor", None, Estimator(fitted=[1], inputs="i"))
    dump(Trap(), tmp_path / "trap")
    artifacts.store.put(pointer.key, (tmp_path / "trap").read_bytes())
    if forge_pointer:
        text = artifacts.store.get("assets/preprocessor/latest.json")
        artifacts.store.put("assets/preprocessor/latest.json", text.replace(pointer.sha256.encode(), b"0" * 64))
    result = materialize(bench, takes(received, "consumer", "preprocessor"), dg.AssetSpec("preprocessor"))
    assert received == []
    errors = str([event.step_failure_data.error for event in result.filter_events(lambda event: event.is_step_failure)])
    assert "IntegrityError" in errors
    assert "UnpickledError" not in errors


def test_a_table_of_rows_becomes_markdown() -> None:
    assert markdown_table([{"a": 1, "b": "x|y"}]) == "| a | b |\n|---|---|\n| 1 | x\\|y |"
    assert markdown_table([]) == "(no rows)"


def test_a_value_of_the_data_neither_breaks_a_table_nor_is_markup_in_it() -> None:
    assert markdown_table([{"a": "two\nlines <b>"}]) == "| a |\n|---|\n| two lines &lt;b&gt; |"
