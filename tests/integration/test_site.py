"""The documentation site: built as `make docs` does, strictly, and a page fetches nothing from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.documents import ROOT

pytestmark = pytest.mark.integration

# Attributes by which a browser fetches something as it shows a page; `href` of `a` is followed by a person alone.
FETCHED = {"src", "srcset", "data", "poster"}
EXCEPT = {"canonical", "next", "prev"}  # kinds of <link> that name a page, and fetch nothing


class Fetches(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [value for name, value in attrs if name in FETCHED and value]
        if tag == "link" and given.get("rel") not in EXCEPT and (href := given.get("href")):
            self.found.append(href)


def is_elsewhere(address: str) -> bool:
    return re.match(r"(?!data:)[a-z]+:|//", address) is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_no_page_and_no_style_fetches_anything_from_elsewhere(site: Path) -> None:
    elsewhere = []
    for page in site.rglob("*.html"):
        fetches = Fetches()
        fetches.feed(page.read_text(encoding="utf-8"))
        assert fetches.found
        elsewhere += [(page.name, address) for address in fetches.found if is_elsewhere(address)]
    for style in site.rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", style.read_text(encoding="utf-8"))
        elsewhere += [(style.name, address) for address in addresses if is_elsewhere(address)]
    assert elsewhere == []


def test_search_finds_the_pages_and_the_reference_has_every_public_module(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert all(f'"{page}"' in index for page in ("quick-start.html", "guides/service.html", "security.html"))
    reference = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    files = [path for package in ("fraud_core", "fraud_client") for path in (ROOT / package).rglob("*.py")]
    files = [path for path in files if "migrations" not in path.parts]  # Alembic runs those; nobody imports them
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if path.name != "__init__.py"]
    assert [module for module in modules if f'id="{module}"' not in reference] == []
