"""What `fraud source init` and `check` promise: a guess with its evidence that loads, doubts left out, and no value shown."""

from pathlib import Path

import polars as pl
import pytest

from fraud_core.errors import SourceError
from fraud_core.fields.schema import STANDARD
from fraud_core.intake.drafts.guess import draft
from fraud_core.intake.drafts.sample import take_sample, to_text
from fraud_core.intake.landing import land
from fraud_core.sources.source import load_source
from fraud_core.storage.directory import DirectoryStore
from tests.commands import fraud
from tests.simulated import SHORT
from tests.unit.fraud_core.intake.shop import CARD_KEY

PERSONAL = "ada{}@mail.example"


def frame(rows: int = 400) -> pl.DataFrame:
    """Payments as a bank might export them."""
    return pl.DataFrame(
        {
            "Trans Num": [f"t{n}" for n in range(rows)],
            "Booked": [f"{1 + n % 28:02d}.{1 + n % 6:02d}.2024 {n % 24:02d}:{n % 60:02d}:00" for n in range(rows)],
            "Amount": [f"{n % 90}.{n % 100:02d}" for n in range(rows)],
            "Is Fraud": ["yes" if n % 50 == 0 else "no" for n in range(rows)],
            "Card token": [f"C{n % 40:04d}" for n in range(rows)],
            "Merchant": [f"Shop {n % 25}" for n in range(rows)],
            "E-Mail": [PERSONAL.format(n % 70) for n in range(rows)],
            "Channel": [("web", "pos", "app")[n % 3] for n in range(rows)],
            "CVV ok": ["YN"[n % 2] for n in range(rows)],
            "Device": [f"d-{n * 7919 % 390}" for n in range(rows)],
            "opened": [f"20{10 + n % 12}-{1 + n % 12:02d}-15" for n in range(rows)],
            "V1": [str(n / 7) for n in range(rows)],
            "V2": [str(-n / 3) for n in range(rows)],
            "V3": ["" if n % 9 else str(n) for n in range(rows)],
            "odd day": [f"0{1 + n % 9}/0{1 + n % 7}/2024" for n in range(rows)],
            "nothing": [""] * rows,
            "same": ["x"] * rows,
            "outcome label": [f"state {n % 5}" for n in range(rows)],
        }
    )


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "Bank Export.csv"
    frame().write_csv(path, separator=";")
    return path


def test_a_column_that_bears_the_name_of_a_standard_field_is_that_one_and_no_other(tmp_path: Path) -> None:
    path, toml = tmp_path / "simulated.csv", tmp_path / "simulated.toml"
    toml.write_text(SHORT, encoding="utf-8")
    assert fraud("simulate", "--out", str(path), "--until", "2024-01-01", "--source-config", str(toml)).status == 0
    posted = pl.read_csv(path, infer_schema=False).with_columns(posted_date=pl.lit("2024-05-17"), shop_name=pl.lit("x"))
    posted.write_csv(path)
    guessed = tmp_path / "guessed.toml"
    guessed.write_text(draft(path), encoding="utf-8")
    source = load_source(guessed)
    assert source.columns.timestamp.column == "timestamp"
    assert source.columns.birth_date is not None
    assert source.columns.birth_date.column == "birth_date"
    assert set(source.columns.canonical) == set(STANDARD)
    assert take_sample(source).kept == len(posted)


def test_a_guess_loads_lands_every_row_and_has_its_evidence_beside_it(export: Path) -> None:
    text = draft(export)
    path = export.with_name("draft.toml")
    path.write_text(text, encoding="utf-8")
    source = load_source(path)
    assert source.name == "bank_export"
    assert (source.delimiter, source.cadence, source.first) == (";", "monthly", "2024-01")
    assert source.columns.canonical == ("transaction_id", "timestamp", "amount_cents", "label", "card", "merchant")
    assert {name: field.kind for name, field in source.fields.items()} == {
        "E_Mail": "id", "Channel": "category", "CVV_ok": "flag", "Device": "id", "opened": "time",
        "V1": "number", "V2": "number", "V3": "number",
    }  # fmt: skip
    assert source.declared.personal == {"E_Mail"}
    assert '[fields."V{1..3}"]   # 3 columns of numbers' in text
    assert "# 'yes' in 2.00% of the rows" in text
    landing = land(source, DirectoryStore(export.parent / "store"), CARD_KEY, None)
    assert (landing.kept, landing.quarantined) == (400, 0)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("odd day", "it may be read by %d/%m/%Y and by %m/%d/%Y"),
        ("nothing", "it is empty in all rows"),
        ("same", "it is the same in all rows"),
        ("outcome label", "by its name it may tell the outcome"),
    ],
)
def test_what_is_unsure_is_left_out_with_its_reason(export: Path, column: str, reason: str) -> None:
    assert f'# [fields.x] column = "{column}" is left out: {reason}' in draft(export).splitlines()


def test_a_clock_that_counts_and_two_columns_that_may_be_the_card_are_questions(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    pl.DataFrame({"step": range(99), "amount": range(99), "card_a": [1, 2, 3] * 33, "card_b": [1, 2, 3] * 33}).write_csv(path)
    text = draft(path)
    assert "# timestamp: 'step' counts from 0 to 98; no row tells since when, nor in which unit." in text
    assert "# card: unsure which of 'card_a', 'card_b' it is" in text
    assert "[fields.step]" not in text


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_personal_value_is_shown_by_either(export: Path, kind: str) -> None:
    path = export if kind == "csv" else export.with_suffix(".parquet")
    if kind == "parquet":
        frame().write_parquet(path)
    toml = export.with_name("draft.toml")
    toml.write_text(draft(path), encoding="utf-8")
    source = load_source(toml)
    table = to_text(take_sample(source), source)
    for text in (toml.read_text(encoding="utf-8"), table):
        assert "@mail" not in text
        assert "C0001" not in text


def test_a_sample_shows_per_field_what_was_parsed_missing_and_refused_with_the_first_reason(export: Path) -> None:
    toml = export.with_name("draft.toml")
    toml.write_text(draft(export).replace('kind = "category"', 'kind = "category"\nvalues = ["web", "pos"]'), encoding="utf-8")
    toml.write_text(toml.read_text() + '[fields.domain]\nfrom = { part = "domain", of = "E_Mail" }\n')
    source = load_source(toml)
    sample = take_sample(source)
    found = {one.name: one for one in sample.fields}
    assert (sample.rows, sample.kept) == (400, 267)
    assert (found["Channel"].parsed, found["Channel"].refused) == (267, 133)
    assert found["Channel"].reason == "is none of the declared values (web, pos)"
    assert (found["V3"].missing, found["V3"].parsed) == (355, 45)
    assert (found["card"].distinct, found["card"].examples) == (40, ())
    assert (found["domain"].parsed, found["domain"].distinct, found["domain"].examples) == (267, 1, ("xxxx.xxxxxxx",))
    assert "is none of the declared values" in to_text(sample, source)


def test_the_commands_write_once_and_show_a_table(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_HOME", str(tmp_path / "home"))
    toml = tmp_path / "first.toml"
    assert fraud("source", "init", str(export), "--out", str(toml)).status == 0
    assert "is there already" in fraud("source", "init", str(export), "--out", str(toml)).refusal
    shown = fraud("source", "check", str(toml))
    assert shown.status == 0
    assert shown.out.startswith("400 rows of ")
    steps = toml.read_text().replace('formats = ["%d.%m.%Y %H:%M:%S"]', 'formats = ["%Y"]')
    toml.write_text(steps)
    assert "line " in fraud("source", "check", str(toml)).refusal


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no header"),
        ("a\n1\n", "no header"),
        ("a,b\n", "has no rows"),
        ("a,a\n1,2\n", "no header"),
        ("2024-01-02,4111111111111111,x\n", "holds numbers"),
    ],
)
def test_a_file_to_guess_nothing_from_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SourceError, match=says):
        draft(tmp_path / "a.csv")


def test_of_a_few_values_none_is_shown_that_looks_like_a_number_a_day_a_place_or_an_address(tmp_path: Path) -> None:
    """One odd value makes names of what is personal."""
    values = {"birth_date": "1951-03-19", "home_latitude": "33.127351", "income": "735173", "contact": "jane@shop.example"}
    rows = [",".join([f"2024-01-{day:02d}", f"{day}.50", "web", *values.values()]) for day in range(1, 21)]
    rows.append(",".join(["2024-01-21", "3.50", "app", *(["odd"] * len(values))]))
    (tmp_path / "few.csv").write_text("\n".join([",".join(["when", "paid", "channel", *values]), *rows]))
    told = draft(tmp_path / "few.csv")
    assert "2 names, such as web, app" in told
    assert [value for value in values.values() if value in told] == []
    assert "2 names, shaped 9999-99-99" in told
