"""README and docs by themselves: blocks that can be read, links that lead somewhere, commands and tests that exist."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest
from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_command

from fraud_cli.main import application
from fraud_core.fields.declaration import From, Kind, Measure, WindowDeclaration
from fraud_core.sources.columns import AmountColumn, CardColumn, LabelColumn, TimeColumn
from fraud_core.sources.fields import SourceField
from fraud_core.sources.source import Source, load_source
from tests.documents import PAGES, ROOT, Block, blocks, spans
from tests.systems.test_documents import ALL, LINTED, NOT_RUN, READ, RUN_WITH, SERVERS, WALKS, is_run, plain

SHELLCHECK = shutil.which("shellcheck")
LANGUAGES = {"bash", "python", "toml", "json", "text"}
# A page's commands use variables that an earlier block has set, and pass on what they do not use themselves.
NOT_WRONG = "--exclude=SC2034,SC2154"


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def test_every_block_names_its_language_and_what_it_needs_is_known() -> None:
    assert [block.where for block in ALL if block.language not in LANGUAGES] == []
    assert [block.where for block in ALL if block.needs not in {None, *LINTED, *RUN_WITH}] == []


def test_every_block_of_commands_is_run_or_linted() -> None:
    run = {block.where for walk in READ for page in walk for block in blocks(ROOT / page) if is_run(block)}
    linted = {block.where for block in ALL if block.needs in LINTED}
    assert {block.where for block in ALL if block.language in {"bash", "python"}} == run | linted
    assert run.isdisjoint(linted)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "bash"], ids=lambda block: block.where)
def test_commands_are_whole_and_shellcheck_has_nothing_to_say(block: Block, tmp_path: Path) -> None:
    script = tmp_path / "block.sh"
    script.write_text(block.text, encoding="utf-8")
    subprocess.run(["bash", "-n", script], check=True)
    if SHELLCHECK is None:
        pytest.skip("needs Debian's package shellcheck")
    linted = subprocess.run([SHELLCHECK, "--shell=bash", NOT_WRONG, script], capture_output=True, text=True, check=False)
    assert linted.stdout == ""


@pytest.mark.parametrize("block", [block for block in ALL if block.language in {"json", "toml"}], ids=lambda block: block.where)
def test_what_is_shown_as_json_or_toml_is_some_and_a_source_loads(block: Block, tmp_path: Path) -> None:
    if block.language == "json":
        json.loads(block.text)
    elif "name" in tomllib.loads(block.text):
        source = tmp_path / "source.toml"
        source.write_text(block.text, encoding="utf-8")
        assert load_source(source).columns.declared("amount")


def test_what_the_page_of_sources_shows_in_parts_is_one_source_together() -> None:
    whole: dict[str, Any] = {}
    for block in ALL:
        if (block.page, block.language) == ("docs/sources.md", "toml"):
            for key, given in tomllib.loads(block.text).items():
                if isinstance(given, dict) and isinstance(whole.get(key), dict):
                    whole[key] |= given
                else:
                    whole[key] = whole.get(key, []) + given if isinstance(given, list) else given
    source = Source.model_validate(whole)
    assert len(source.declared.windows) == len(whole["windows"]) > 2
    assert {field.kind for field in source.fields.values()} == set(get_args(Kind))
    rules = {field.derivation.rule for field in source.fields.values() if field.derivation is not None}
    assert rules == set(From.model_fields) - {"of"}


def test_the_page_of_sources_names_every_key_and_every_measure() -> None:
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    models = (SourceField, WindowDeclaration, From, AmountColumn, TimeColumn, LabelColumn, CardColumn, *_within(Source))
    keys = {field.alias or name for model in models for name, field in model.model_fields.items()} - {"clock"}
    assert {key for key in keys | set(get_args(Measure)) if re.search(rf"\b{key}\b", page) is None} == set()


def _within(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A source's TOML and the tables in it, but that of the simulator, which has a page of its own."""
    yield model
    for name, field in model.model_fields.items():
        for one in (field.annotation, *get_args(field.annotation)):
            if name != "simulator" and isinstance(one, type) and issubclass(one, BaseModel):
                yield from _within(one)


def test_what_is_not_run_stands_in_a_document_and_exists() -> None:
    told = {plain(line) for block in ALL if block.language == "bash" for line in block.commands}
    assert NOT_RUN.keys() - told == set()
    assert {command.split()[1] for command in NOT_RUN if command.startswith("make ")} - targets() == set()
    assert [walk for walk in WALKS if not all((ROOT / page).is_file() for page in walk)] == []
    assert [name for name in SERVERS if not any(re.match(rf"{name}(\s|$)", line) for line in told)] == []


def test_a_call_in_the_text_is_one_that_the_command_or_make_knows() -> None:
    group = get_command(application())
    assert isinstance(group, TyperGroup)
    known = group.commands
    wrong = []
    for path in PAGES:
        for words in spans(path):
            if words[0] == "make":
                unknown = {word for word in words[1:] if "=" not in word} - targets()
            else:
                command = known.get(words[1])
                options = {word for word in words[2:] if word.startswith("--")}
                unknown = {words[1]} if command is None else options - {name for one in command.params for name in one.opts}
                unknown -= {"--help"}
            if unknown:
                wrong.append((path.name, words))
    assert wrong == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(path: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    wrong = []
    for link in links:
        name, _, heading = unquote(link).partition("#")
        target = (path.parent / name) if name else path
        if not target.is_file() or (heading and heading not in headings(target)):
            wrong.append(link)
    assert wrong == []


def headings(path: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub make them."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in found}


@pytest.mark.parametrize("page", ["security.md", "gate.md"])
def test_the_tests_that_a_table_of_threats_or_ways_names_exist(page: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(named) > 15
    files = {file: (ROOT / file).read_text(encoding="utf-8") for file, _ in named}
    assert [(file, test) for file, test in named if test and f"def {test}(" not in files[file]] == []


def test_the_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
