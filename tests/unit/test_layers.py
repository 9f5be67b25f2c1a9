"""The layer rule: read off the source by import-linter, and seen at run time."""

import json
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import fraud_core

ROOT = Path(__file__).parents[2]

# Each costs a process that only scores seconds or hundreds of megabytes, or is not installed with the scorer.
HEAVY = [
    "alibi_detect",
    "boto3",
    "dagster",
    "fastapi",
    "gradio",
    "joblib",
    "matplotlib",
    "mlflow",
    "pandas",
    "psycopg",
    "redis",
    "scipy.stats",  # treelite itself loads scipy.sparse
    "shap",
    "sklearn",
]

# Run in an interpreter of its own: which heavy modules does each import bring in?
PROBE = """
import importlib, json, sys
modules, heavy = json.loads(sys.argv[1])
brought = {}
for module in modules:
    before = set(sys.modules)
    importlib.import_module(module)
    new = sorted(set(heavy) & (set(sys.modules) - before))
    if new:
        brought[module] = new
print(json.dumps(brought))
"""


def test_the_contracts_of_the_layer_rule_are_kept() -> None:
    # In a process of its own: it configures logging, which would switch off every logger that there is.
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_every_package_stands_under_the_layer_rule() -> None:
    roots = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["root_packages"]
    assert sorted(roots) == sorted(path.parent.name for path in ROOT.glob("fraud_*/__init__.py"))


def test_importing_the_core_brings_in_no_heavy_library() -> None:
    modules = ["fraud_core", *(module.name for module in pkgutil.walk_packages(fraud_core.__path__, "fraud_core."))]
    assert len(modules) > 1
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([modules, HEAVY])], check=True, capture_output=True, text=True
    )
    # A store's module is imported only where its URL asks for it, and that which unpickles only where a pickle is read.
    assert json.loads(probe.stdout) == {"fraud_core.storage.s3": ["boto3"], "fraud_core.storage.former_names": ["joblib"]}
