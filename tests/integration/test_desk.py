"""The desk in a real browser, as an analyst uses it: each tab, by mouse and keyboard, without a network, and readable by all."""

import csv
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from fraud_core.features.encoder import Encoder
from fraud_core.fields.declared import Declared
from tests.conftest import new_installation
from tests.desk import DeskServer
from tests.servers.postgres_server import POSTGRES, PostgresServer

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.integration, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser, desk: DeskServer) -> Iterator[Visit]:
    """Somebody's signed-in page, in Zurich. A request that leaves this machine fails the test."""
    contexts = []
    elsewhere: list[str] = []

    def open_page(name: str, role: str = "analyst", **options: Any) -> Page:
        _, password = desk.users.create(name, role)
        context = browser.new_context(timezone_id="Europe/Zurich", viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on(
            "request",
            lambda request: None if request.url.startswith((desk.url, "data:", "blob:")) else elsewhere.append(request.url),
        )
        page.goto(desk.url)
        expect(page).to_have_title("Sign in: fraud desk")
        assert_accessible(page)
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(password)
        page.keyboard.press("Enter")
        page.get_by_text(f"{name} ({role})").wait_for(timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert elsewhere == []


@pytest.fixture(scope="module")
def new_desk(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, learned: tuple[bytes, Encoder]
) -> Iterator[tuple[DeskServer, Page, PostgresServer | None]]:
    """A desk as on its first day, where nobody signs in; its page, and the PostgreSQL behind it, where there is one."""
    with ExitStack() as opened:
        postgres = opened.enter_context(new_postgres()) if POSTGRES is not None else None
        variables = {"FRAUD_UI_AUTH": "off", "FRAUD_DATABASE": "" if postgres is None else postgres.url}
        folder = tmp_path_factory.mktemp("new-desk")
        installation = new_installation(folder, learned, database=variables["FRAUD_DATABASE"])
        desk = opened.enter_context(DeskServer(installation, folder, variables, furnished=False))
        context = browser.new_context(timezone_id="Europe/Zurich", viewport={"width": 1280, "height": 900})
        opened.callback(context.close)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(desk.url)
        page.get_by_role("tab", name="Test a case").wait_for()
        yield desk, page, postgres


@contextmanager
def new_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of its own."""
    # Another session of pytest closes pytest's own folder to the user under whom PostgreSQL runs.
    with tempfile.TemporaryDirectory(prefix="fraud-postgres-") as folder:
        server = PostgresServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


def plain_purchase(page: Page) -> Locator:
    """Fill in that example, all of it; returns the field of its amount."""
    page.get_by_role("button", name="A plain purchase").click()
    amount = page.get_by_label("Amount", exact=True)
    expect(amount).to_have_value("46.35")
    return amount


def assert_accessible(page: Page) -> None:
    """See that axe-core finds nothing serious or worse, once what fades in is there: until then its words are paler."""
    deadline = time.monotonic() + 10
    while found := violations(page):
        assert time.monotonic() < deadline, found


def violations(page: Page) -> list[str]:
    """What axe-core finds that is serious or worse."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in {"serious", "critical"}]


def test_a_case_is_tested_and_asked_what_if(visit: Visit) -> None:
    page = visit("tester")
    when = page.get_by_label("When (Europe/Zurich)")
    expect(when).to_have_attribute("type", "datetime-local")
    page.get_by_role("button", name="An account takeover at night").click()
    expect(page.get_by_label("Amount", exact=True)).to_have_value("1149")
    page.get_by_role("button", name="Test this case").click()
    result = page.locator("#result")
    expect(result.locator(".decision")).to_be_visible()
    expect(result).to_contain_text("The amount of 1,149.00 raises the risk.")
    expect(result).to_contain_text("Exactly 0.")
    before = page.locator("#curves").inner_text()
    slider = page.get_by_role("slider", name="Amount")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#curves")).not_to_have_text(before)
    expect(page.locator("#curves")).to_contain_text("1,148.97 at 02:00")


def test_an_empty_number_stays_empty(visit: Visit) -> None:
    page = visit("nothing-typed")
    result, numbers = page.locator("#result"), page.locator("input[type=number]")
    expect(numbers.first).to_be_visible()
    assert [field.input_value() for field in numbers.all()] == [""] * 6
    page.get_by_label("When (Europe/Zurich)").fill("2026-11-20T10:00:00")
    amount, home = page.get_by_label("Amount", exact=True), page.get_by_label("Home: latitude")
    amount.fill("50")
    page.get_by_role("button", name="Test this case").click()
    expect(result).to_contain_text("The unknown population of the city")
    expect(result).to_contain_text("The unknown distance from home to the merchant")
    plain_purchase(page)
    expect(home).to_have_value("40.7306")
    amount.fill("50")
    for label in ("Inhabitants of the home town", "Home: latitude", "Home: longitude"):
        page.get_by_label(label).fill("")
    page.get_by_role("button", name="Test this case").click()
    expect(result).to_contain_text("The unknown population of the city")
    expect(result).to_contain_text("The unknown distance from home to the merchant")
    expect(result).to_contain_text("grocery_pos")
    expect(result).not_to_contain_text("0 m from home")
    curves = page.locator("#curves")
    expect(curves).to_contain_text("50.00 at 17:00")
    slider = page.get_by_label("number input for Amount (currency units)")
    slider.fill("60")
    expect(curves).to_contain_text("60.00 at 17:00")
    slider.fill("")
    expect(curves).to_contain_text("50.00 at 17:00")
    home.fill("0")
    page.get_by_role("tab", name="Score a file").click()
    page.get_by_role("tab", name="Test a case").click()
    assert [field.input_value() for field in numbers.all()][:4] == ["50", "", "0", ""]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_readable_in_light_and_in_dark(visit: Visit, scheme: str) -> None:
    page = visit(f"reads-in-{scheme}", color_scheme=scheme)
    plain_purchase(page)
    page.get_by_role("button", name="Test this case").click()
    page.locator("#result .decision").wait_for()
    fields = [contrast(page.locator(f"#{name} input")) for name in ("when", "birth_date")]
    assert min(fields) >= 4.5
    ready = {"Score a file": "File to score", "Review queue": "Precision so far", "Model and data": "Changes of champion"}
    for tab, words in [("Test a case", "Why: what raises"), *ready.items()]:
        page.get_by_role("tab", name=tab).click()
        page.get_by_text(words).first.wait_for()
        if tab == "Review queue":
            page.get_by_role("button", name="Take the next case").click()
            page.locator("#case .decision").wait_for()
        assert contrast(page.get_by_role("tab", name=tab)) >= 4.5
        assert_accessible(page)
    # What went wrong is told in a pop-up, until it is closed.
    page.get_by_role("tab", name="Score a file").click()
    page.get_by_role("button", name="Score this file").click()
    page.get_by_role("status").filter(has_text="Choose a file first.").wait_for()
    assert_accessible(page)
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_text("Choose a file first.")).to_be_hidden()
    page.get_by_role("tab", name="Review queue").click()
    page.get_by_role("button", name="Put it back").click()
    expect(page.locator("#case")).to_contain_text("Put back")

    # What the style sheet says is what the browser does: hairlines below rows, and numbers to the right.
    assert style(page.locator("#waiting td").first, "borderTopWidth", "borderLeftWidth", "borderBottomWidth") == [
        "0px",
        "0px",
        "1px",
    ]
    assert style(page.locator("#waiting td.number").first, "textAlign", "fontVariantNumeric") == ["right", "tabular-nums"]
    line, text = style(page.locator("#waiting td").first, "borderBottomColor", "color")
    assert line != text
    assert style(page.locator("#figures .tiles div").first, "borderTopWidth", "borderTopStyle") == ["1px", "solid"]
    assert style(page.locator("#header .who"), "marginLeft") != ["0px"]


def style(place: Locator, *names: str) -> list[str]:
    """Computed style."""
    found: list[str] = place.evaluate("(element, names) => names.map(name => getComputedStyle(element)[name])", list(names))
    return found


def contrast(place: Locator) -> float:
    """WCAG's contrast of a text with the nearest background that is not transparent."""
    found: float = place.evaluate("""element => {
        const parts = text => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
        let below = element;
        while (below.parentElement && parts(getComputedStyle(below).backgroundColor)[3] === 0) below = below.parentElement;
        const [a, b] = [getComputedStyle(element).color, getComputedStyle(below).backgroundColor].map(c => light(parts(c)));
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }""")
    return found


def test_what_was_typed_stays_when_it_is_wrong(visit: Visit) -> None:
    page = visit("typo-in-browser")
    amount = plain_purchase(page)
    page.get_by_label("Home: latitude").fill("140")
    page.get_by_label("Merchant", exact=True).fill("4111 1111 1111 1111")
    page.get_by_role("button", name="Test this case").click()
    told = page.locator("#result").get_by_role("alert")
    expect(told).to_contain_text("Home: latitude must be at most 90.")
    expect(told).to_contain_text("Merchant holds what looks like a card number")
    expect(page.get_by_label("Home: latitude")).to_have_value("140")
    expect(amount).to_have_value("46.35")
    assert_accessible(page)


def test_a_file_is_scored_and_taken_away(
    visit: Visit, tmp_path: Path, made_transactions: Callable[[int], list[dict[str, Any]]]
) -> None:
    rows = [*made_transactions(2_000), {"transaction_id": "=cmd()", "timestamp": "yesterday", "amount": "1"}]
    with (tmp_path / "sent.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    page = visit("scorer")
    page.get_by_role("tab", name="Score a file").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "sent.csv")
    expect(page.locator(".file-preview")).to_contain_text("sent")
    page.get_by_role("button", name="Score this file").click()
    page.get_by_text("Done in").wait_for()
    expect(page.locator("#progress")).to_be_focused()
    summary = page.locator("#summary")
    expect(summary).to_contain_text("2,001 rows: 2,000 scored, 1 refused.")
    expect(summary).to_contain_text("must be a time in ISO 8601")
    with page.expect_download() as download:
        page.get_by_text("Download all rows as CSV").click()
    taken = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(taken) == 2_001
    scores = [float(row["probability"]) for row in taken if row["probability"]]
    assert scores == sorted(scores, reverse=True)
    assert taken[-1]["line"] == "2002"
    assert_accessible(page)


def test_a_file_that_is_being_scored_is_cancelled_and_leaves_nothing(
    visit: Visit, desk: DeskServer, tmp_path: Path, made_transactions: Callable[[int], list[dict[str, Any]]]
) -> None:
    rows = [row | {"transaction_id": f"r{at}"} for at, row in enumerate(made_transactions(2_000) * 20)]
    with (tmp_path / "long.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows[:2_000] for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    page = visit("canceller")
    page.get_by_role("tab", name="Score a file").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "long.csv")
    expect(page.locator(".file-preview")).to_contain_text("long")
    score, cancel = page.get_by_role("button", name="Score this file"), page.get_by_role("button", name="Cancel", exact=True)
    expect(cancel).to_be_disabled()
    score.click()
    expect(cancel).to_be_enabled()
    expect(score).to_be_disabled()
    cancel.click()
    page.get_by_text("Cancelled. Nothing of this file is kept.").wait_for()
    expect(score).to_be_enabled()
    expect(cancel).to_be_disabled()
    expect(page.locator("#summary")).to_be_empty()
    expect(page.get_by_text("Download all rows as CSV")).to_be_hidden()
    assert list((desk.settings.home / "run" / "desk").rglob("long.csv")) == []
    assert_accessible(page)


def test_on_the_first_day_it_says_what_is_missing_and_takes_the_first_champion_by_itself(
    new_desk: tuple[DeskServer, Page, PostgresServer | None],
) -> None:
    desk, page, _ = new_desk
    expect(page.locator("div.head").first).to_contain_text(
        "No model yet. Nothing can be scored before the pipeline has made a champion."
    )
    assert_accessible(page)
    amount = plain_purchase(page)
    page.get_by_role("button", name="Test this case").click()
    page.get_by_text("There is no model yet, so nothing can be scored. Run the pipeline").wait_for()
    expect(amount).to_have_value("46.35")
    for tab in ("Review queue", "Model and data"):
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tabpanel").filter(visible=True)).not_to_contain_text("Error")

    till = Declared.model_validate({"fields": {"till": {"kind": "id", "meaning": "The cash register {value}"}}})
    expect(page.locator("#own")).to_be_hidden()
    version = desk.installation.promote(1, declared=till)
    page.get_by_role("tab", name="Test a case").click()
    expect(page.locator("div.head").first).to_contain_text(version, timeout=60_000)
    expect(page.locator("#own")).to_contain_text("Cash register (till)")  # its own fields come with it
    expect(amount).to_have_value("46.35")
    page.get_by_role("button", name="Test this case").click()
    expect(page.locator("#result .decision")).to_be_visible()
    assert "Traceback" not in desk.log.read_text()


@pytest.mark.skipif(POSTGRES is None, reason="needs Debian's package postgresql")
def test_a_database_that_is_gone_is_told_in_a_sentence_and_scoring_goes_on(
    new_desk: tuple[DeskServer, Page, PostgresServer | None],
) -> None:
    desk, page, postgres = new_desk
    assert postgres is not None
    version = desk.installation.promote(2)
    expect(page.locator("div.head").first).to_contain_text(version, timeout=60_000)
    desk.fill_queue()
    queue, take = page.get_by_role("tab", name="Review queue"), page.get_by_role("button", name="Take the next case")
    queue.click()
    page.get_by_text("Precision so far").wait_for()
    postgres.stop()
    take.click()
    page.get_by_text("see that it runs and that FRAUD_DATABASE is right").first.wait_for()

    page.get_by_role("tab", name="Test a case").click()
    plain_purchase(page)
    page.get_by_role("button", name="Test this case").click()
    expect(page.locator("#result .decision")).to_be_visible()

    postgres.start()
    queue.click()
    take.click()
    expect(page.locator("#case .decision")).to_contain_text("Kirlin & Sons")
    assert "Traceback" not in desk.log.read_text()


def test_a_case_is_taken_labelled_and_overruled(visit: Visit, desk: DeskServer) -> None:
    page = visit("reviewer", "lead")
    page.get_by_role("tab", name="Review queue").click()
    page.get_by_text("Precision so far").wait_for()
    page.get_by_role("button", name="Take the next case").click()
    case = page.locator("#case")
    expect(case.locator(".decision")).to_contain_text("Kirlin & Sons")
    expect(case).to_contain_text("The card's last")
    expect(case).to_be_focused()
    identity = case.locator("code").first.inner_text()

    # A page that is loaded anew shows the case that is held.
    page.reload()
    page.get_by_role("tab", name="Review queue").click()
    expect(case.locator("code").first).to_have_text(identity)
    fraud = page.get_by_role("button", name="This is fraud")
    expect(fraud).to_be_enabled()

    page.get_by_label("Note").fill("card 4111-1111-1111-1111, three within a minute")
    fraud.click()
    page.get_by_text("What you wrote holds what looks like a card number").wait_for()
    expect(page.get_by_label("Note")).to_have_value("card 4111-1111-1111-1111, three within a minute")
    page.locator(".toast-close").click()
    assert desk.labels.of([identity])[identity] == []
    page.get_by_label("Note").fill("three within a minute")
    assert_accessible(page)

    # By keyboard: the label is given, the next case is there, and the focus is on it.
    fraud.focus()
    page.keyboard.press("Enter")
    expect(case).to_contain_text(f"{identity} is labelled fraud")
    expect(case.locator(".decision")).to_contain_text("Kirlin & Sons")
    assert case.locator("code").first.inner_text() != identity
    expect(case).to_be_focused()
    expect(page.get_by_label("Note")).to_have_value("")
    page.get_by_role("button", name="Put it back").click()
    expect(case).to_contain_text("Put back")
    expect(case).to_be_focused()
    page.get_by_text("Overrule a label (leads)").click()
    page.get_by_label("Transaction id to overrule").fill(identity)
    page.get_by_label("legitimate").check()
    page.get_by_label("Why", exact=True).fill("the customer called back")
    page.get_by_role("button", name="Overrule", exact=True).click()
    expect(page.get_by_label("Transaction id to overrule")).to_have_value("")
    assert [(label.outcome, label.author) for label in desk.labels.of([identity])[identity]] == [
        ("fraud", "reviewer"),
        ("legitimate", "reviewer"),
    ]


def test_model_and_data_are_looked_into(visit: Visit, desk: DeskServer) -> None:
    page = visit("reader")
    page.get_by_role("tab", name="Model and data").click()
    page.get_by_text("Changes of champion").wait_for()
    card = page.locator("#card")
    expect(card).to_contain_text("Average precision")
    expect(card.get_by_role("link", name="its MLflow run")).to_have_attribute(
        "href", "http://127.0.0.1:5000/#/experiments/1/runs/7"
    )
    expect(page.locator("#compared")).to_contain_text("+0.0123")
    expect(page.locator("#drift")).to_contain_text("log_amount")
    expect(page.locator("#cost")).to_contain_text("the line stands at 5 %")
    page.get_by_role("spinbutton", name="Movable line").fill("20")
    page.keyboard.press("Tab")
    expect(page.locator("#cost")).to_contain_text("the line stands at 20 %")
    assert_accessible(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_title("Sign in: fraud desk")
    page.goto(desk.url)
    expect(page).to_have_title("Sign in: fraud desk")
