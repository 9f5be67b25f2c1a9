"""Commands of `fraud`, carried out in this process."""

import io
import json
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from fraud_cli.main import main


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object on the last line of standard output."""
        document = json.loads(self.out.splitlines()[-1])
        assert isinstance(document, dict)
        return document

    @property
    def refusal(self) -> str:
        """The one sentence of a command that was refused."""
        assert self.status == 1
        assert self.out == ""
        assert "Traceback" not in self.err
        last = self.err.splitlines()[-1]
        assert last.startswith("fraud: ")
        return last.removeprefix("fraud: ")


def fraud(*arguments: str) -> Finished:
    """Carry out a command under the variables of this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        status = main(list(arguments))
    return Finished(status, out.getvalue(), err.getvalue())
