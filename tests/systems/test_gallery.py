"""The notebook that explores the data: it runs from top to bottom, and the page in docs/ is what it makes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated import SHORT

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = {"category", "hour", "amount", "category-hour", "age", "place", "month"}


def pictures(page: Path) -> dict[str, str]:
    """Paths of the pictures on a page, and the sentence under each."""
    return dict(re.findall(r"!\[[^\]]+\]\((\S+)\)\n\n(.+)\n", page.read_text()))


def test_the_notebook_makes_every_picture_from_any_source(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(SHORT)
    command = [sys.executable, "-m", "gallery.make", "--source", str(tmp_path / "short.toml"), "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = pictures(tmp_path / "gallery.md")
    assert {Path(path).stem for path in made} == PICTURES
    for path in made:
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG"), path
    text = (tmp_path / "gallery.md").read_text()
    assert "simulated by the product itself" in text
    assert "nan" not in text.split()


def test_every_picture_of_the_page_in_docs_is_there_small_and_explained() -> None:
    shown = pictures(PAGE)
    assert {Path(path).stem for path in shown} == PICTURES
    assert {path.name for path in (PAGE.parent / "images" / "gallery").iterdir()} == {Path(path).name for path in shown}
    for path, said in shown.items():
        assert (PAGE.parent / path).stat().st_size < 150_000, path
        assert said.endswith("."), path
    assert "simulated by others" in PAGE.read_text()


def test_the_page_names_no_person_and_no_card() -> None:
    text = PAGE.read_text() + (ROOT / "gallery" / "explore.py").read_text()
    assert re.findall(r"\b\d{12,19}\b|\b(?:19|20)\d\d-\d\d-\d\d\b", text) == []
