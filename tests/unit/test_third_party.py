"""The page of what others wrote names every dependency, with the licence that the installed package itself tells."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.test_project import PROJECT, ROOT, declared

PAGE = (ROOT / "docs" / "third-party.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([\w-]+) \| (.+?) \|", PAGE, re.M))


@pytest.fixture(scope="module")
def third_party() -> ModuleType:
    """The script that makes the page."""
    spec = importlib.util.spec_from_file_location("third_party", Path(ROOT / "requirements" / "third_party.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", declared(*PROJECT["optional-dependencies"]))
def test_a_dependency_stands_on_the_page_with_the_licence_it_tells(package: str, third_party: ModuleType) -> None:
    assert ROWS.get(package) == third_party.licence(package), "run `.venv/bin/python requirements/third_party.py`"
    assert "see its own" not in ROWS[package]


def test_what_asks_for_more_than_a_notice_is_explained(third_party: ModuleType) -> None:
    named = {package for package in declared(*PROJECT["optional-dependencies"]) if third_party.asks_for_more(ROWS[package])}
    assert {"alibi-detect", "psycopg"} <= named
    explained = set(re.findall(r"^\| ([\w-]+) \| .+? \| \S.* \|$", PAGE, re.M)) | set(third_party.READ)
    assert named - explained == set()


def test_what_those_bring_along_is_looked_through(third_party: ModuleType) -> None:
    found = third_party.reached(["psycopg[binary]", "dagster-aws"])
    assert {"psycopg", "psycopg-binary", "dagster-aws", "boto3", "botocore"} <= found
    assert ROWS["psycopg-binary"] == "LGPL-3.0-only"


def test_the_servers_that_people_ask_about_are_told_of() -> None:
    for name in ("SeaweedFS", "MinIO", "Redis", "Valkey", "Grafana"):
        assert name in PAGE
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
