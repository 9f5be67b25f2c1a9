"""Rules, routes and runbooks: valid by the tools' own word, and none of them without a test and a page."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_assets.events import alerts
from fraud_assets.events.alertbook import runbook_url

ROOT = Path(__file__).parents[3]
PIPELINE = ROOT / "docs" / "runbooks" / "pipeline.md"
PROMETHEUS = ROOT / "observability" / "prometheus"
ALERTMANAGER = ROOT / "observability" / "alertmanager" / "alertmanager.yml"
PROMTOOL, AMTOOL = shutil.which("promtool"), shutil.which("amtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs Debian's package prometheus")
needs_amtool = pytest.mark.skipif(AMTOOL is None, reason="needs Debian's package prometheus-alertmanager")


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules" / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = rules("alerts.yml")
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def run(*command: str | Path | None) -> str:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.strip()


@needs_promtool
def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    run(PROMTOOL, "check", "config", PROMETHEUS / "prometheus.yml")
    run(PROMTOOL, "check", "rules", *(PROMETHEUS / "rules").glob("*.yml"))


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    run(PROMTOOL, "test", "rules", path)


def test_no_rule_is_without_a_test() -> None:
    tested = "".join(path.read_text() for path in TESTS)
    assert [rule["alert"] for rule in ALERTS if rule["alert"] not in tested] == []
    recorded = {rule["record"] for rule in rules("recording.yml")}
    windows = "fraud:score_bad:ratio_rate(30m|1h|2h|6h|1d|3d)"
    assert windows in tested
    assert sorted(name for name in recorded if name not in tested and not re.fullmatch(windows, name)) == []


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard"}
    published, page_of_ours = f"runbooks/{rule['alert']}.html", f"docs/runbooks/{rule['alert']}.md"
    assert rule["annotations"]["runbook_url"] == (
        f"{{{{ with $externalLabels.docs }}}}{{{{ . }}}}/{published}{{{{ else }}}}{page_of_ours}{{{{ end }}}}#what-to-do"
    )
    page = (ROOT / page_of_ours).read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    assert "## What to do" in page
    assert ("Somebody is called" in page) == (rule["labels"]["severity"] == "critical")


def test_no_runbook_is_without_its_alert_and_no_link_leads_nowhere() -> None:
    pages = [page for page in (ROOT / "docs" / "runbooks").glob("*.md") if page != PIPELINE]
    assert sorted(page.stem for page in pages) == sorted(rule["alert"] for rule in ALERTS)
    for page in pages:
        for target in re.findall(r"\]\((\w+\.md)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_every_alert_of_the_pipeline_leads_to_a_section_of_its_own() -> None:
    """The names are read off the code; the anchors are made as the site and GitHub make them of a heading."""
    names = [value for name, value in vars(alerts).items() if name.isupper() and str(value).startswith("Fraud")]
    assert "FraudCheckFailed" in names
    headings = re.findall(r"^## (\w+)$", PIPELINE.read_text(), re.M)
    assert sorted(headings) == sorted(names)
    for name in names:
        assert runbook_url("", name) == f"{PIPELINE.relative_to(ROOT)}#{name.lower()}"
        assert runbook_url("https://docs.test/", name) == f"https://docs.test/runbooks/pipeline.html#{name.lower()}"


@needs_amtool
def test_alertmanager_takes_its_configuration() -> None:
    run(AMTOOL, "check-config", ALERTMANAGER)


ROUTES = [
    ("pager", {"environment": "production", "severity": "critical", "alertname": "FraudScorerDown"}),
    ("chat", {"environment": "production", "severity": "warning", "alertname": "FraudTrafficDrift"}),
    ("chat", {"severity": "error", "alertname": "FraudCheckFailed", "asset": "transformed", "check": "drift"}),
    ("chat", {"severity": "warning", "alertname": "FraudCheckFailed", "asset": "transformed", "check": "fraud_rate"}),
    ("mail", {"severity": "info", "alertname": "FraudPartitionAccepted", "asset": "transformed"}),
    ("staging", {"environment": "staging", "severity": "critical", "alertname": "FraudScorerDown"}),
    ("staging", {"environment": "staging", "severity": "warning", "alertname": "FraudModelStale"}),
    ("local", {"environment": "development", "severity": "critical", "alertname": "FraudNoModel"}),
    ("chat", {"alertname": "SomethingElse"}),
]


@needs_amtool
@pytest.mark.parametrize(("receiver", "labels"), ROUTES)
def test_an_alert_goes_to_the_receiver_of_its_environment_and_severity(receiver: str, labels: dict[str, str]) -> None:
    given = [f"{name}={value}" for name, value in labels.items()]
    assert run(AMTOOL, "config", "routes", "test", f"--config.file={ALERTMANAGER}", *given) == receiver


def test_what_is_silenced_by_a_cause_is_an_alert_and_never_the_cause_itself() -> None:
    known = {rule["alert"]: rule["labels"] | {"alertname": rule["alert"]} for rule in ALERTS}
    for rule in yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]:
        (source,) = matching(rule["source_matchers"], known)
        targets = matching(rule["target_matchers"], known)
        assert targets
        assert source not in targets
        assert rule["equal"] == ["environment"]


def matching(matchers: list[str], known: dict[str, dict[str, str]]) -> list[str]:
    """The alerts that Alertmanager's matchers name."""

    def holds(matcher: str, labels: dict[str, str]) -> bool:
        found = re.fullmatch(r'(\w+) (=|!=|=~|!~) "(.*)"', matcher)
        assert found is not None, matcher
        name, operator, value = found.groups()
        pattern = value if "~" in operator else re.escape(value)
        return (re.fullmatch(pattern, labels.get(name, "")) is not None) == (not operator.startswith("!"))

    return [name for name, labels in known.items() if all(holds(matcher, labels) for matcher in matchers)]
