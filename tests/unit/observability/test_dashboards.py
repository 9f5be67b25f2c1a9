"""Dashboards: the files are what the Python says, Grafana's schema takes them, and links lead to the right panel."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "observability" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
made: dict[str, Any] = runpy.run_path(str(GRAFANA / "dashboards.py"))


def dashboard(uid: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{uid}.json").read_text())
    return found


def test_the_files_are_made_from_the_python_and_none_is_left_over() -> None:
    assert {path.stem: path.read_text() for path in FILES} == {uid: made["encoded"](uid) for uid in made["DASHBOARDS"]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafanas_schema_takes_the_dashboard_and_gives_it_back(path: Path) -> None:
    read = Dashboard.from_json(json.loads(path.read_text()))
    assert JSONEncoder(sort_keys=True, indent=1).encode(read) + "\n" == path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_numbers_of_their_own_and_lie_beside_each_other(path: Path) -> None:
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = {
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    }
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels)
    for panel in panels:
        assert panel["description"]
        assert panel["targets"]


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "observability" / "prometheus" / "rules" / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules("alerts.yml"), ids=lambda rule: rule["alert"])
def test_an_alerts_link_leads_to_a_panel_that_shows_what_it_watches(rule: dict[str, Any]) -> None:
    found = re.fullmatch(r"\{\{ \$externalLabels\.grafana \}\}/d/([\w-]+)\?viewPanel=(\d+)", rule["annotations"]["dashboard"])
    assert found is not None
    (panel,) = [panel for panel in dashboard(found[1])["panels"] if panel["id"] == int(found[2])]
    shown = " ".join(target["expr"] for target in panel["targets"])
    assert metrics_of(rule["expr"]) & metrics_of(shown), f"{rule['alert']} watches {metrics_of(rule['expr'])}; the panel: {shown}"


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression speaks of; `up` with its job; of recorded ratios, whatever their window."""
    ups = set(re.findall(r'up\{job="[\w-]+"\}', expression))
    return ups | {re.sub(r"_rate\w+$", "_rate", name) for name in re.findall(r"\bfraud[_:][\w:]+", expression)}


def test_no_panel_asks_for_a_metric_that_nobody_tells() -> None:
    told = (
        "fraud_api/metrics/registry.py",
        "fraud_api/metrics/traffic.py",
        "fraud_assets/events/exporter.py",
        "fraud_ui/metrics.py",
    )
    code = "".join((ROOT / path).read_text() for path in told)
    recorded = {rule["record"] for rule in rules("recording.yml")}
    for uid in made["DASHBOARDS"]:
        for panel in dashboard(uid)["panels"]:
            for target in panel["targets"]:
                for name in re.findall(r"\bfraud[_:][\w:]+", target["expr"]):
                    base = re.sub(r"_(total|bucket|count|sum)$", "", name)
                    assert name in recorded or f'"{base}"' in code, f"{panel['title']}: {name}"


def test_grafana_is_given_the_data_source_that_the_dashboards_name() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    for path in FILES:
        used = set(re.findall(r'"type": "prometheus",\s+"uid": "([\w-]+)"', path.read_text()))
        assert used == {source["uid"]}
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "dashboards.yml").read_text())["providers"]
    assert provider["type"] == "file"
