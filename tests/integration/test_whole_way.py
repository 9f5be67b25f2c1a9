"""The whole way of a payment: through the API, the review queue and a verdict in the browser, into a finished training.

The pictures of the desk in the documentation are made on this way: with FRAUD_TEST_PICTURES=docs/images they are put there.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from fraud_assets.installation import Installation
from fraud_assets.training.rows import read_rows
from fraud_assets.training.split import Block
from fraud_core.fields import schema
from fraud_core.models.bundle import read_manifest
from fraud_core.models.registry import read_latest
from fraud_core.settings import Settings
from fraud_core.simulator.simulate import simulate
from fraud_core.sources import partitions
from fraud_core.training_data.labels import read_labels
from tests.api_server import Servers
from tests.desk import DeskServer
from tests.home import WEEKS, Home

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.usefixtures("few_trees_alone"),
]
SENT = WEEKS[1]  # its rows train the model; what is said of later ones moves validation and hold-out alone


def test_a_payment_goes_the_whole_way_from_the_api_over_the_desk_into_the_next_training(
    home: Home, servers: Servers, tmp_path: Path
) -> None:
    installation = home.installation
    payments = simulated(installation)
    decided = scored(servers, installation.settings, payments)
    assert "review" in decided.values()
    frauds = {row["transaction_id"]: row["label"] for row in payments}
    pl.DataFrame([as_sent(row) for row in payments]).write_csv(tmp_path / "payments.csv")

    variables = home.environment | {"FRAUD_UI_AUTH": "off"}
    desk_of_home = DeskServer(SimpleNamespace(settings=installation.settings), tmp_path, variables, furnished=False)
    # Jobs run in a thread of their own, away from the browser's event loop.
    with desk_of_home as desk, ThreadPoolExecutor(1) as thread, opened(desk) as page:
        page.get_by_role("tab", name="Review queue").click()
        page.get_by_text("Precision so far").wait_for()
        page.get_by_role("button", name="Take the next case").click()
        shown = page.locator("#case")
        expect(shown.locator(".reasons")).to_contain_text("raises the risk")
        identity = shown.locator("code").first.inner_text()
        assert decided[identity] == "review"
        outcome = "legitimate" if frauds[identity] else "fraud"  # what only the analyst says
        page.get_by_label("Note").fill("the customer says so")
        page.get_by_role("button", name=f"This is {outcome}").click()
        expect(shown).to_contain_text(f"{identity} is labelled {outcome}")
        take_picture(page, "desk-queue")

        record = desk.decisions.find(identity)
        assert record is not None
        page.get_by_role("tab", name="Test a case").click()
        page.get_by_text("Load a payment from the decision log").click()
        page.get_by_label("Transaction id", exact=True).fill(identity)
        page.get_by_role("button", name="Load", exact=True).click()
        expect(page.locator("#result")).to_contain_text("gets the logged score")
        page.get_by_role("button", name="Test this case").click()
        expect(page.locator("#result")).to_contain_text(f"Exactly {record.probability!r}")
        take_picture(page, "desk-case")

        page.get_by_role("tab", name="Score a file").click()
        page.locator("input[type=file]").set_input_files(tmp_path / "payments.csv")
        expect(page.locator(".file-preview")).to_contain_text("payments")
        page.get_by_role("button", name="Score this file").click()
        page.get_by_text("Done in").wait_for()
        take_picture(page, "desk-file")

        before = trained_on(installation, identity)
        assert before == frauds[identity]
        assert thread.submit(home.run, "export_labels").result().success
        (label,) = read_labels(installation.artifacts).filter(transaction_id=identity).to_dicts()
        assert (label["source"], label["outcome"], label["role"]) == ("analyst", outcome, "lead")
        assert trained_on(installation, identity) == (outcome == "fraud") != before

        champion = read_latest(installation.artifacts.store, installation.artifacts.signing_key)
        assert champion is not None
        assert thread.submit(home.run, "train").result().success
        version = json.loads(home.latest())["version"]
        assert version != champion.version
        lineage = read_manifest(installation.artifacts.store, version, installation.artifacts.signing_key).lineage
        assert lineage.labels == installation.training_data().fingerprint() != ""
        expect(page.locator("#header")).to_contain_text(version)  # the desk follows
        page.get_by_role("tab", name="Model and data").click()
        page.get_by_text("Changes of champion").wait_for()
        expect(page.locator("#compared")).to_contain_text(champion.version)
        take_picture(page, "desk-model")
        assert "Traceback" not in desk.log.read_text()


def simulated(installation: Installation) -> list[dict[str, Any]]:
    """Two days of payments, as the source of the installation has them."""
    assert installation.source.simulator is not None
    begin, _ = partitions.window(SENT, installation.source.cadence, installation.source.zone)
    return simulate(installation.source.simulator, begin, begin + timedelta(days=2), installation.source.zone).to_dicts()


def as_sent(row: dict[str, Any]) -> dict[str, Any]:
    """A payment of the source as a caller has it."""
    cents, own = row["amount_cents"], {"amount_cents", "label"}
    known = {name: value for name, value in row.items() if value is not None and name in schema.BY_NAME and name not in own}
    said = {name: row[name].isoformat() for name in ("timestamp", "birth_date")}
    return known | said | {"amount": f"{cents // 100}.{cents % 100:02d}"}


def scored(servers: Servers, settings: Settings, payments: list[dict[str, Any]]) -> dict[str, str]:
    """The decisions of the API about payments, by their ids."""
    api = servers.start(settings)
    decided: dict[str, str] = {}
    with httpx.Client(base_url=api.url, timeout=60) as http:
        for row in payments:
            answer = http.post("/v1/score", json=as_sent(row))
            assert answer.status_code == 200, answer.text
            decided[row["transaction_id"]] = answer.json()["decision"]
    api.stop()
    return decided


@contextmanager
def opened(desk: DeskServer) -> Iterator[Page]:
    """The desk in a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(timezone_id="Europe/Zurich", viewport={"width": 1180, "height": 1000})
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(desk.url)
        yield page
        browser.close()


def take_picture(page: Page, name: str) -> None:
    """Put a picture of the page, or of its head where it is long, to where pictures are asked for."""
    if folder := os.environ.get("FRAUD_TEST_PICTURES"):
        whole = Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")
        shown = whole.crop((0, 0, whole.width, min(whole.height, 1_900)))
        shown.quantize(256, Image.Quantize.MAXCOVERAGE).save(Path(folder) / f"{name}.png", optimize=True)


def trained_on(installation: Installation, identity: str) -> bool:
    """The label that the next training has for a payment."""
    rows = read_rows(installation.training_data(), installation.training_set().accepted, Block()).frame
    return bool(rows.filter(pl.col("transaction_id") == identity)["label"].item())
