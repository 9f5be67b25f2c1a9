"""A small installation with a champion, made once a session for all workers, and copied for each test that wants it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fraud_core.features.encoder import Encoder
from tests.conftest import new_installation
from tests.desk import DeskServer
from tests.few_trees import few_trees
from tests.home import SOURCE, WEEKS, Home
from tests.once import made_once
from tests.stores import copy_installation


@pytest.fixture(scope="module")
def few_trees_alone() -> Iterator[None]:
    """What is trained in a file of tests is trained as the champions of the homes that are made once: with few trees."""
    with few_trees():
        yield


@pytest.fixture(scope="session")
def judged_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an installation that took and judged every week but the last, and has no champion. Read it, do not write."""

    def make(folder: Path) -> None:
        (folder / "small.toml").write_text(SOURCE)
        home = Home(folder)
        with few_trees():
            assert home.run("land").success
            for week in WEEKS[:-1]:
                assert home.run("materialize_partition", week).success
        home.close()

    return made_once(tmp_path_factory, "judged", make)


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory, judged_home: Path) -> Path:
    """The same with a champion, which was trained on those weeks. Read it, do not write."""

    def make(folder: Path) -> None:
        copy_installation(judged_home, folder)
        home = Home(folder)
        with few_trees():
            assert home.run("train").success
        assert json.loads(home.latest())["sequence"] == 1
        home.close()

    return made_once(tmp_path_factory, "trained", make)


@pytest.fixture
def new_home(trained_home: Path, tmp_path: Path) -> Iterator[Callable[..., Home]]:
    """Makes copies of the installation: `new_home(setting=value, ...)`."""
    made: list[Home] = []

    def make(**options: Any) -> Home:
        path = tmp_path / f"copy{len(made)}"
        copy_installation(trained_home, path)
        made.append(Home(path, options))
        return made[-1]

    yield make
    for home in made:
        home.close()


@pytest.fixture
def home(new_home: Callable[..., Home]) -> Home:
    """A copy of the installation."""
    return new_home()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, learned: tuple[bytes, Encoder]) -> Iterator[DeskServer]:
    """A desk where people sign in."""
    folder = tmp_path_factory.mktemp("desk")
    with DeskServer(new_installation(folder, learned), folder) as server:
        yield server
