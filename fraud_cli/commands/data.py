"""`fraud data`, `fraud served`, `fraud simulate`: data as files, of a model, of the scorer, of the simulator."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from fraud_core.errors import SourceError
from fraud_core.settings import Settings


def data(
    settings: Settings,
    action: Literal["checkout"],
    version: Annotated[str, Argument(help="A model's version; `fraud models` lists them.")],
    to: Annotated[Path | None, Option(help="New folder for it (default: checkouts/VERSION of the home).")] = None,
    retrain: Annotated[bool, Option("--retrain", help="Train on it, and say whether that gives the same version.")] = False,
) -> int:
    """Bring back what a model was trained on, verified by hash."""
    from fraud_assets.delivery.dvc import checkout

    target = to or settings.home / "checkouts" / version
    brought = checkout.checkout(settings, version, target.resolve())
    lineage = brought.training.manifest.lineage
    print(
        f"{brought.files} files ({brought.size / 1e6:,.1f} MB) behind {version} are in {brought.folder}, each with the "
        f"hash that was signed: {len(lineage.partitions)} partitions that it was trained on, {len(lineage.rejected)} that the "
        f"gate rejected, the preprocessor and the model, at data revision {brought.revision[:12]}."
    )
    if not retrain:
        return 0
    again = checkout.retrain(settings, brought, lambda sentence: print(sentence, file=sys.stderr))
    print(f"Trained on again, it gives {again}, {'the same' if again == version else f'another version than {version}'}.")
    return int(again != version)


def served(
    settings: Settings,
    action: Literal["export"],
    to: Annotated[Path | None, Option(help="Folder that the files are added to (default: served in the home).")] = None,
) -> None:
    """Payments that were scored online, as a source of their own (sources/served.toml)."""
    from fraud_assets.installation import Installation
    from fraud_assets.stages.scored_payments import export_served, folder_of

    installation = Installation.load(settings)
    folder = to or folder_of(installation)
    done = export_served(installation, folder)
    print(f"{done.payments} payments in {len(done.files)} new files under {folder}.")


def simulate(
    settings: Settings,
    out: Annotated[Path, Option(help="File to write: .csv or .parquet.")],
    until: Annotated[str | None, Option(metavar="KEY", help="Last partition (default: the source's last).")] = None,
) -> None:
    """Write simulated transactions to a CSV or Parquet file."""
    import polars as pl
    from tqdm import tqdm

    from fraud_core.simulator.simulate import simulate
    from fraud_core.sources import partitions
    from fraud_core.sources.source import load_source

    source = load_source(settings.source)
    if source.simulator is None:
        raise SourceError(f"{settings.source} has no [simulator]; name one that has with --source-config.")
    if out.suffix not in {".csv", ".parquet"}:
        raise SourceError(f"{out}: give a name that ends in .csv or .parquet.")
    keys = source.keys or ([until] if until else [])
    keys = [key for key in keys if until is None or key <= until]
    frames = []
    for key in tqdm(keys, desc="simulating", unit="partition", file=sys.stderr):
        start, end = partitions.window(key, source.cadence, source.zone)
        frame = simulate(source.simulator, start, end, source.zone).with_columns((pl.col("amount_cents") / 100).alias("amount"))
        frames.append(frame.select(source.wanted))
    everything = pl.concat(frames)
    draft = out.with_name(f".{out.name}.draft")
    if out.suffix == ".csv":
        everything.write_csv(draft, float_precision=6)
    else:
        everything.write_parquet(draft)
    draft.replace(out)
    print(f"{len(everything):,} transactions in {out}")
