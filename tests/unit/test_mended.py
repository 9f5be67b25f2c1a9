"""The list of mended faults names tests that exist, and commits."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.mended import main, mended

ROOT = Path(__file__).parents[2]


@cache
def functions_of(file: str) -> set[str]:
    """Names of the functions that a test file defines, or takes over whole from another of ours."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ImportFrom) and node.module and node.names[0].name == "*":
            names |= functions_of(f"{node.module.replace('.', '/')}.py")
    return names


def test_every_mended_fault_names_a_test_that_exists_and_two_commits() -> None:
    faults = mended()
    assert faults
    for fault in faults:
        file, name = fault.test.split("::", 1)
        assert name.split("::")[-1] in functions_of(file), fault.test
        assert re.fullmatch(r"[0-9]+\.[0-9]+[a-z]?", fault.number), fault.number
        assert all(re.fullmatch("[0-9a-f]{7,40}", commit) for commit in (fault.failed_at, fault.passed_at)), fault.number


def test_a_named_test_that_did_not_pass_is_told(tmp_path: Path) -> None:
    passed = tmp_path / "passed.txt"
    passed.write_text("".join(f"{fault.test}\n" for fault in mended()))
    assert main(passed) == 0
    passed.write_text("".join(f"{fault.test}\n" for fault in mended()[1:] if fault.test != mended()[0].test))
    assert main(passed) == 1
