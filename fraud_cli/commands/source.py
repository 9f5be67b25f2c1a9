"""`fraud source`: a first TOML guessed from a file, and how each field of a source comes through."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from fraud_core.errors import SourceError
from fraud_core.settings import Settings


def source(
    settings: Settings,
    action: Literal["init", "check"],
    path: Annotated[Path | None, Argument(help="init: the file of payments. check: the TOML (default: FRAUD_SOURCE).")] = None,
    file: Annotated[list[str] | None, Option(help="check: file to read instead of the TOML's paths; several times.")] = None,
    out: Annotated[Path | None, Option(help="init: TOML to write (default: to standard output).")] = None,
) -> int:
    """Guess a first TOML of a source from a file (init), or parse a sample of one and show each field (check)."""
    if action == "init":
        from fraud_core.intake.drafts.guess import draft

        if path is None:
            raise SourceError("Name the file to guess from: fraud source init data/payments.csv")
        text = draft(path)
        if out is None:
            print(text, end="")
            return 0
        if out.exists():
            raise SourceError(f"{out} is there already; name another with --out, or remove it.")
        out.write_text(text, encoding="utf-8")
        print(f"{out} is a first guess; read it, then: fraud source check {out}")
        return 0
    from fraud_core.intake.drafts.sample import take_sample, to_text
    from fraud_core.sources.source import load_source

    declared = load_source(path or settings.source, tuple(file or ()))
    if declared.simulator is not None:
        raise SourceError(f"{path or settings.source} is simulated, and has no file to check; name one with --file.")
    sample = take_sample(declared)
    print(to_text(sample, declared))
    return int(sample.kept == 0 or bool(sample.problem))
