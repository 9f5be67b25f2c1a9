"""The scripts of `make bench`, which no other test starts."""

import importlib
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_what_a_script_imports_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    before = set(sys.modules)
    try:
        importlib.import_module(name)
    finally:
        for added in set(sys.modules) - before:
            if Path(getattr(sys.modules[added], "__file__", None) or "").parent == BENCH:
                del sys.modules[added]
