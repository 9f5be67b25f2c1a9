"""The whole way of a payment: through the API, the review queue and a verdict in the browser, into the next training."""

import os
import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import polars as pl
import pytest
from playwright.sync_api import expect, sync_playwright

from fraud_assets.learning.rows import Data, read_rows
from fraud_assets.learning.split import Block
from fraud_assets.project import Project
from fraud_core import partitions, schema
from fraud_core.simulator import simulate
from tests.api_server import Servers
from tests.desk import DeskServer
from tests.home import WEEKS, Home

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.integration, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


def test_a_payment_goes_the_whole_way_from_the_api_over_the_desk_into_the_next_training(
    home: Home, servers: Servers, tmp_path: Path
) -> None:
    project = home.project
    settings = project.settings
    simulated = project.source.simulator
    assert simulated is not None
    begin, _ = partitions.window(WEEKS[-3], project.source.cadence, project.source.zone)
    payments = simulate(simulated, begin, begin + timedelta(days=2), project.source.zone)
    api = servers.start(settings)
    decided: dict[str, str] = {}
    with httpx.Client(base_url=api.url, timeout=60) as http:
        for row in payments.drop("label", "kind", strict=False).to_dicts():
            sent = {name: value for name, value in row.items() if value is not None and name in schema.BY_NAME}
            cents = sent.pop("amount_cents")
            sent |= {"amount": f"{cents // 100}.{cents % 100:02d}", "timestamp": row["timestamp"].isoformat()}
            sent |= {"birth_date": row["birth_date"].isoformat()}
            answer = http.post("/v1/score", json=sent)
            assert answer.status_code == 200, answer.text
            decided[row["transaction_id"]] = answer.json()["decision"]
    api.stop()
    assert "review" in decided.values()

    frauds = {row["transaction_id"]: row["label"] for row in payments.to_dicts()}
    variables = home.environment | {"FRAUD_UI_AUTH": "off"}
    desk_of_home = DeskServer(SimpleNamespace(settings=settings), tmp_path, variables, furnished=False)
    with desk_of_home as desk, sync_playwright() as playwright:  # Dagster must not run while its event loop does
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(timezone_id="Europe/Zurich", viewport={"width": 1280, "height": 1000})
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(desk.url)
        page.get_by_role("tab", name="Review queue").click()
        page.get_by_text("Precision so far").wait_for()
        page.get_by_role("button", name="Take the next case").click()
        shown = page.locator("#case")
        expect(shown.locator(".reasons")).to_contain_text("raises the risk")
        identity = shown.locator("code").first.inner_text()
        assert decided[identity] == "review"
        page.screenshot(path=tmp_path / "desk-queue.png", full_page=True)
        outcome = "legitimate" if frauds[identity] else "fraud"  # what only the analyst says
        page.get_by_label("Note").fill("the customer says so")
        page.get_by_role("button", name=f"This is {outcome}").click()
        expect(shown).to_contain_text(f"{identity} is labelled {outcome}")
        record = desk.decisions.find(identity)
        assert record is not None
        page.get_by_role("tab", name="Test a case").click()
        page.get_by_text("Load a payment from the decision log").click()
        page.get_by_label("Transaction id", exact=True).fill(identity)
        page.get_by_role("button", name="Load", exact=True).click()
        expect(page.locator("#result")).to_contain_text("gets the logged score")
        page.get_by_role("button", name="Test this case").click()
        expect(page.locator("#result")).to_contain_text(f"Exactly {record.probability!r}")
        page.screenshot(path=tmp_path / "desk-case.png", full_page=True)
        browser.close()
        assert "Traceback" not in desk.log.read_text()
    if folder := os.environ.get("FRAUD_TEST_PICTURES"):
        for picture in tmp_path.glob("desk-*.png"):
            shutil.copy(picture, folder)

    before = trained_on(project, identity)
    assert before == frauds[identity]
    assert home.run_alone(["labels"]).success
    assert trained_on(project, identity) == (outcome == "fraud") != before


def trained_on(project: Project, identity: str) -> bool:
    """The label that the next training has for a payment."""
    allowed = project.training_set()
    rows = read_rows(Data.of(project), allowed.accepted, Block()).frame
    return bool(rows.filter(pl.col("transaction_id") == identity)["label"].item())
