"""The house: the picture of the tree in docs/design.md is the tree, and its rooms stay small."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("fraud_*/__init__.py"))
MOST_FILES = 12  # at the top of a package or a room
ROOM = re.compile(r"  ([\w.]+/?) {2,}(\S.+)")


def pictured() -> dict[str, dict[str, str]]:
    """What docs/design.md says stands in each package: the sentence on each file and folder at its top."""
    (tree,) = re.findall(r"## The house\n```text\n(.*?)```", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, dict[str, str]] = {}
    package = ""
    for line in tree.splitlines():
        if room := ROOM.fullmatch(line):
            found[package][room[1]] = room[2]
        else:
            package = line.split("/")[0]
            found[package] = {}
    return found


def standing(package: str) -> set[str]:
    """Python files and folders at the top of a package."""
    # A room that has moved may leave its compiled files behind in a clone that was brought up to date.
    inside = [path for path in (ROOT / package).iterdir() if (path / "__init__.py").exists() or path.suffix == ".py"]
    return {path.name + "/" * path.is_dir() for path in inside if path.name[0] != "_"}


@pytest.mark.parametrize("package", [package for package in PACKAGES if package != "fraud_client"])
def test_the_picture_of_a_package_names_every_file_and_room_at_its_top(package: str) -> None:
    assert set(pictured()[package]) == standing(package)


def test_the_core_has_no_flat_file_but_errors_and_settings() -> None:
    assert {name for name in standing("fraud_core") if name.endswith(".py")} == {"errors.py", "settings.py"}


def test_no_room_has_more_than_twelve_files() -> None:
    rooms = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    crowded = {
        room: count for room in rooms if (count := sum(path.name != "__init__.py" for path in room.glob("*.py"))) > MOST_FILES
    }
    assert not crowded


def test_a_folder_of_tests_stands_where_the_room_that_it_tests_stands() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / "tests" / "unit" / package).rglob("test_*.py")}
    assert [folder for folder in sorted(folders) if not (ROOT / folder.relative_to(ROOT / "tests" / "unit")).is_dir()] == []
