"""Faults that were found in use, each with the test that now holds it: `docs/proofs/mended.json`.

    FRAUD_TESTS_PASSED=passed.txt make test stores systems rehearse
    .venv/bin/python -m tests.mended passed.txt

fails where a test that the list names did not pass in those runs.
"""

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

LIST = Path(__file__).parents[1] / "docs" / "proofs" / "mended.json"


class Mended(BaseModel):
    """A fault and a test that fails with it.

    Attributes:
        number: section and place in the list of faults.
        fault: what went wrong, in a sentence.
        test: node id of the test.
        failed_at: commit at which the test fails.
        passed_at: commit from which on it passes.
    """

    model_config = ConfigDict(extra="forbid")

    number: str
    fault: str
    test: str
    failed_at: str
    passed_at: str


def mended() -> list[Mended]:
    """The list, in order."""
    return TypeAdapter(list[Mended]).validate_json(LIST.read_bytes())


def main(passed: Path) -> int:
    """Compare the list with the tests that passed; returns an exit status."""
    ran = set(passed.read_text().split("\n"))
    faults = mended()
    missing = [fault for fault in faults if fault.test not in ran]
    for fault in missing:
        print(f"{fault.number}: {fault.test} did not pass", file=sys.stderr)
    if not missing:
        print(f"{len({fault.number for fault in faults})} mended faults: each of their {len(faults)} tests passed")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
