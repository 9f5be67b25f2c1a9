"""The graph, as Dagster sees it: whoever changes it, changes this picture."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_assets.definitions import build
from fraud_assets.installation import Installation
from fraud_assets.reports import catalog
from fraud_core.settings import Settings

ROOT = Path(__file__).parents[3]

DEPENDS_ON = {
    "landing": set(),
    "raw": {"landing"},
    "quarantine": {"landing"},
    "transformed": {"raw"},
    "labels": set(),
    "preprocessor": {"transformed", "labels"},
    "model": {"preprocessor"},
    "champion": {"model"},
    "history": {"raw"},
    "served": set(),
}
PARTITIONED = {"raw", "quarantine", "transformed"}
BLOCKING_CHECKS = {"raw: quarantined_share", "transformed: drift", "model: beats_champion"}
WARNING_CHECKS = {"transformed: row_count", "transformed: fraud_rate", "preprocessor: labels_plausible", "history: no_skew"}
JOBS = {
    "land": {"landing"},
    "materialize_partition": {"raw", "quarantine", "transformed"},
    "export_labels": {"labels"},
    "train": {"preprocessor", "model", "champion"},
    "run_partition": {"raw", "quarantine", "transformed", "preprocessor", "model", "champion"},
    "make_raw": {"raw", "quarantine"},
    "make_transformed": {"transformed"},
    "check_partition": set(),
    "judge_partition": set(),
    "repeat_fraud_rates": set(),
    "accept_partition": set(),
    "refuse_partition": set(),
    "confirm_rules": set(),
    "rollback_champion": set(),
    "restore_champion": set(),
    "deliver": set(),
    "load_history": {"history"},
    "daily_serving": {"served"},
}


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    settings = Settings(_env_file=None, home=tmp_path_factory.mktemp("home"), source=ROOT / "sources" / "simulated.toml")
    return build(Installation.load(settings))


def _name(key: dg.AssetCheckKey) -> str:
    return f"{key.asset_key.to_user_string()}: {key.name}"


def graph(definitions: dg.Definitions) -> Any:
    return definitions.resolve_asset_graph()


def test_the_assets_and_what_they_depend_on(definitions: dg.Definitions) -> None:
    nodes = {key.to_user_string(): graph(definitions).get(key) for key in graph(definitions).get_all_asset_keys()}
    assert {name: {parent.to_user_string() for parent in node.parent_keys} for name, node in nodes.items()} == DEPENDS_ON
    assert {name for name, node in nodes.items() if node.is_partitioned} == PARTITIONED


def test_the_checks_block_and_see_the_partition_they_judge(definitions: dg.Definitions) -> None:
    nodes = {_name(key): graph(definitions).get(key) for key in graph(definitions).asset_check_keys}
    assert set(nodes) == BLOCKING_CHECKS | WARNING_CHECKS
    assert {name for name, check in nodes.items() if check.blocking} == BLOCKING_CHECKS
    assert {name for name, check in nodes.items() if check.partitions_def is None} == {
        "model: beats_champion",
        "preprocessor: labels_plausible",
        "history: no_skew",
    }


def test_the_jobs_and_what_they_materialize(definitions: dg.Definitions) -> None:
    jobs = {job.name: job for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")}
    selected = {name: {key.to_user_string() for key in job.asset_layer.executable_asset_keys} for name, job in jobs.items()}
    assert selected == JOBS
    assert {key.name for key in jobs["daily_serving"].asset_layer.asset_graph.asset_check_keys} >= {"no_skew"}
    judged = jobs["judge_partition"].asset_layer.asset_graph.asset_check_keys
    assert {key.name for key in judged} == {"drift"}
    checked = jobs["check_partition"].asset_layer.asset_graph.asset_check_keys
    assert {key.name for key in checked} == {"drift", "row_count", "fraud_rate"}
    assert not jobs["make_transformed"].asset_layer.asset_graph.asset_check_keys
    checks = jobs["materialize_partition"].asset_layer.asset_graph.asset_check_keys
    assert {key.name for key in checks} >= {"quarantined_share", "drift"}
    assert {key.name for key in jobs["train"].asset_layer.asset_graph.asset_check_keys} >= {"beats_champion"}


def test_every_asset_check_and_job_tells_a_reader_what_it_is(definitions: dg.Definitions) -> None:
    resolved = graph(definitions)
    nodes = [resolved.get(key) for key in (*resolved.get_all_asset_keys(), *resolved.asset_check_keys)]
    nodes += [job for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")]
    for node in nodes:
        assert re.search(r"\w+ \w+ \w+", node.description or ""), node


@pytest.mark.parametrize(("name", "lacks"), [("kaggle_sparkov", set()), ("kaggle_west_us", {"history"})])
def test_the_graph_is_the_same_for_every_source_but_for_the_history(name: str, lacks: set[str], tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path, source=ROOT / "sources" / f"{name}.toml")
    keys = graph(build(Installation.load(settings))).get_all_asset_keys()
    assert {key.to_user_string() for key in keys} == set(DEPENDS_ON) - lacks


def test_building_the_graph_touches_no_store(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path / "home", source=ROOT / "sources" / "simulated.toml")
    build(Installation.load(settings))
    assert not (tmp_path / "home").exists()


def test_every_asset_has_an_owner_a_kind_and_a_version_of_its_code(definitions: dg.Definitions) -> None:
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert set(specs) == set(DEPENDS_ON)
    for name, spec in specs.items():
        assert (spec.owners, bool(spec.kinds), bool(spec.code_version)) == (["team:fraud"], True, True), name
    assert {name for name, spec in specs.items() if spec.freshness_policy is not None} == {"champion", "served"}


def test_columns_are_described_and_lead_back_to_those_they_are_made_of(tmp_path: Path) -> None:
    source = Installation.load(Settings(_env_file=None, home=tmp_path, source=ROOT / "sources" / "kaggle_sparkov.toml")).source
    for asset in ("raw", "quarantine", "transformed"):
        columns = catalog.table_schema(catalog.expected_columns(source, asset)).columns
        assert columns
        assert [column.name for column in columns if not column.description] == []
    made_of = {}
    for asset in ("raw", "transformed"):
        lineage = catalog.column_lineage(source, asset, catalog.expected_columns(source, asset))
        assert lineage is not None
        made_of |= {
            f"{asset}.{name}": {f"{one.asset_key.to_user_string()}.{one.column_name}" for one in of}
            for name, of in lineage.deps_by_column.items()
        }
    assert made_of["raw.timestamp"] == {"landing.trans_date_trans_time"}
    assert made_of["transformed.label"] == {"raw.label"}
    assert made_of["transformed.age"] == {"raw.timestamp", "raw.birth_date"}
    assert "raw.label" in made_of["transformed.merchant_fraud_rate_30d"]
    assert set(catalog.expected_columns(source, "transformed")) == {
        name.removeprefix("transformed.") for name in made_of if name.startswith("transformed.")
    }


@pytest.mark.parametrize("action", ["accept", "refuse"])
def test_the_form_of_a_person_s_decision_knows_the_partition_and_asks_for_the_reason(
    definitions: dg.Definitions, action: str
) -> None:
    job = definitions.resolve_job_def(f"{action}_partition")
    assert job.partitions_def is not None
    key = job.partitions_def.get_last_partition_key()
    assert job.get_run_config_for_partition_key(key) == {"ops": {action: {"config": {"reason": "", "who": ""}}}}
