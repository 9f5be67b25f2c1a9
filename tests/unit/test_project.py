"""What the repository promises about itself: its dependencies, its locks, its commands, and what may not lie in it."""

import ast
import fnmatch
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from dagster import AssetSelection
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fraud_core.settings import env_example

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PARTS = ("pipeline", "scorer", "ui")
LOCKS = (*PARTS, "dev")

# Distribution -> the module it is imported as and, where it may be started as a process instead, its command.
WANTED = {
    "dagster": {"dagster"},
    "dagster-webserver": {"dagster_webserver", "dagster-webserver"},
    "dagster-aws": {"dagster_aws"},
    "dagster-mlflow": {"dagster_mlflow"},
    "scikit-learn": {"sklearn"},
    "pandas": {"pandas"},
    "joblib": {"joblib"},
    "alibi-detect": {"alibi_detect"},
    "fastapi": {"fastapi"},
    "uvicorn": {"uvicorn"},
    "gradio": {"gradio"},
    "prometheus-fastapi-instrumentator": {"prometheus_fastapi_instrumentator"},
    "dvc": {"dvc"},
}
COMMANDS = {"dagster-webserver", "dvc", "uvicorn"}


def declared(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml asks for in these extras, the common dependencies included, by distribution."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def lock_text(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def locked(name: str) -> dict[str, set[str]]:
    """The versions a lock file pins, by distribution; more than one where the platform or Python decides."""
    pins: dict[str, set[str]] = {}
    for line in lock_text(name).splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix("\\"))
            (pin,) = requirement.specifier
            assert pin.operator == "==", f"{line} is not a pin"
            pins.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return pins


@pytest.fixture(scope="module")
def used_names() -> set[str]:
    """Top-level modules that the shipped packages import, and the commands they name in a string of its own."""
    names: set[str] = set()
    for path in ROOT.glob("fraud_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import():
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                case ast.ImportFrom(module=str(module)):
                    names.add(module.partition(".")[0])
                case ast.Constant(value=str(text)) if text in COMMANDS:
                    names.add(text)
    return names


def make_rules() -> dict[str, list[str]]:
    """The Makefile's targets with what each depends on."""
    rules = re.findall(r"^([a-z]+):([^#\n]*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return {target: needs.split() for target, needs in rules}


def ci_commands() -> list[str]:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def readme_make_commands() -> list[str]:
    """Every line of the README's fenced blocks that calls make, without its comment."""
    blocks = re.findall(r"^```\w*[^\n]*\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.removeprefix("$ ").partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("make ")]


@pytest.mark.parametrize("package", WANTED)
def test_a_wanted_package_is_declared_and_locked(package: str) -> None:
    extras = [extra for extra in PROJECT["optional-dependencies"] if package in declared(extra)]
    assert extras, f"{package} is in no extra of pyproject.toml"
    for lock in {*extras, "dev"} & {*LOCKS}:
        assert package in locked(lock), f"{package} is not in requirements/{lock}.txt: run `make lock`"


@pytest.mark.parametrize("package", WANTED)
def test_a_wanted_package_is_used(package: str, used_names: set[str]) -> None:
    assert not WANTED[package].isdisjoint(used_names), f"{package} is declared, but nothing that ships uses it"


def test_dvc_is_wanted_with_its_s3_remote() -> None:
    assert declared("pipeline")["dvc"].extras == {"s3"}


def test_the_supported_pythons_are_the_declared_ones() -> None:
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert named == {"3.11", "3.12"}
    assert PROJECT["requires-python"] == ">=3.11,<3.13"


@pytest.mark.parametrize("lock", [*LOCKS, "bootstrap"])
def test_every_pin_carries_a_hash(lock: str) -> None:
    entries = re.findall(r"^\w.*(?:\n +.*)*", lock_text(lock), re.MULTILINE)
    assert entries
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}$", entry)] == []


@pytest.mark.parametrize("lock", [*LOCKS, "bootstrap"])
def test_no_lock_holds_an_address(lock: str) -> None:
    assert re.findall(r"^.*(?::/|--(?:extra-)?index|--find-links| @ ).*$", lock_text(lock), re.MULTILINE) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_what_pyproject_asks_for(lock: str) -> None:
    pins = locked(lock)
    asked = declared(*PROJECT["optional-dependencies"]) if lock == "dev" else declared(lock)
    for package, requirement in asked.items():
        versions = pins.get(package, set())
        assert versions, f"{package} is not in requirements/{lock}.txt: run `make lock`"
        refused = [pin for pin in versions if not requirement.specifier.contains(pin, prereleases=True)]
        assert not refused, f"{requirement} is asked for, {refused} is locked: run `make lock`"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_locked_to_the_versions_that_the_tests_run_with(part: str) -> None:
    tested = locked("dev")
    assert {package: pins for package, pins in locked(part).items() if not pins <= tested.get(package, set())} == {}


def test_this_environment_is_the_locked_one() -> None:
    pins = locked("dev")
    assert {package: version(package) for package in WANTED if version(package) not in pins[package]} == {}


def test_the_scorer_installs_no_heavy_library() -> None:
    heavy = {"alibi-detect", "dagster", "dvc", "gradio", "matplotlib", "mlflow", "pandas", "scikit-learn", "shap"}
    assert heavy.isdisjoint(locked("scorer"))


def test_what_may_not_be_used_in_production_is_an_extra_of_its_own() -> None:
    assert [extra for extra in PROJECT["optional-dependencies"] if "alibi-detect" in declared(extra)] == ["alibi"]


def test_dagster_parses_selections_beside_dvc() -> None:
    # With the antlr4 runtime that dvc's hydra-core likes best, this dies with "ord() expected string of length 1".
    assert AssetSelection.from_string('+key:"model"') == AssetSelection.from_string('key:"model"').upstream()


@pytest.mark.integration
def test_dvc_adds_and_pushes_beside_dagster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, remote = tmp_path / "work", tmp_path / "remote"
    work.mkdir()
    (work / "rows.csv").write_text("amount\n1\n", encoding="utf-8")
    for folder in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG"):
        monkeypatch.setenv(f"DVC_{folder}_DIR", str(tmp_path / folder))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("CI", "true")  # dvc then looks for no newer version of itself

    for arguments in (["init", "--no-scm"], ["remote", "add", "--default", "here", str(remote)], ["add", "rows.csv"], ["push"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=work, check=True)

    (pushed,) = [path for path in remote.rglob("*") if path.is_file()]
    assert pushed.read_text(encoding="utf-8") == "amount\n1\n"


def test_the_readme_runs_and_tests_the_product_with_one_command_each() -> None:
    commands = readme_make_commands()
    assert commands.count("make run") == 1
    assert commands.count("make test") == 1


def test_every_make_command_of_the_readme_has_a_target() -> None:
    named = {word for command in readme_make_commands() for word in command.split()[1:] if "=" not in word}
    assert named - make_rules().keys() == set()


def test_ci_checks_style_and_types_and_closes_with_the_readme_s_test_command() -> None:
    calls = [command for command in ci_commands() if command.startswith("make ")]
    assert calls[:2] == ["make lint", "make types"]
    assert calls[-1] == "make test"
    assert ci_commands()[-2:] == ["make test", '.venv/bin/python -m tests.mended "$FRAUD_TESTS_PASSED"']
    assert calls[-1] in readme_make_commands()


def test_every_target_that_needs_the_environment_makes_it() -> None:
    rules = make_rules()
    assert [target for target in ("run", "test", "lint", "types", "docs", "proof", "lock") if "setup" not in rules[target]] == []
    assert rules["setup"] == ["$(STAMP)"]


def test_env_example_is_made_from_the_settings() -> None:
    written = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert written == env_example(), "run `.venv/bin/fraud settings --example > .env.example`"


def test_no_file_is_larger_than_a_repository_should_hold() -> None:
    # The tree is walked, rather than git asked, so that it holds before a file is added and where there is no git.
    ignored = [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split())]

    def kept(names: list[str]) -> list[str]:
        return [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)]

    large = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = kept(folders)
        large += [path for path in (Path(folder, name) for name in kept(files)) if path.stat().st_size > 1_500_000]
    assert large == []
