"""Executes the notebook `explore.py`, and writes docs/gallery.md with its pictures.

python -m gallery.make                         # from the Sparkov file beside the repository, else from the built-in simulator
python -m gallery.make --source sources/mine.toml --file data/mine.csv --out /tmp/gallery
"""

import argparse
import base64
import os
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
SPARKOV = ROOT.parent / "shared" / "data" / "sparkov_2019_2020.parquet"
HEAD = "<!-- Made by `make gallery` from gallery/explore.py; do not change it by hand. -->\n"


def main() -> None:
    """Read the arguments, and make the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = SPARKOV.is_file()
    parser.add_argument("--source", type=Path, default=ROOT / "sources" / ("kaggle_sparkov.toml" if known else "simulated.toml"))
    parser.add_argument("--file", default=str(SPARKOV) if known else "", help="read this file instead of the TOML's paths")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of gallery.md and images/gallery/")
    given = parser.parse_args()
    if given.source != parser.get_default("source") and given.file == parser.get_default("file"):
        given.file = ""
    print(make(given.source, given.file, given.out))


def make(source: Path, file: str, out: Path) -> Path:
    """Execute the notebook on a source, and write the page and its pictures.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell of the notebook failed.
    """
    os.environ |= {"GALLERY_SOURCE": str(source), "GALLERY_FILE": file, "PYTHONPATH": str(ROOT)}
    notebook = jupytext.read(ROOT / "gallery" / "explore.py")
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    images = out / "images" / "gallery"
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob("*.png"):
        old.unlink()
    parts = [HEAD]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts += filter(None, (_shown(output, images) for output in cell.outputs))
    page = out / "gallery.md"
    page.write_text("\n\n".join(parts).replace("\n\n\n", "\n\n") + "\n")
    return page


def _shown(output: Any, images: Path) -> str:
    """What an output of a cell is on the page; pictures go to files."""
    told = output.get("metadata", {}).get("gallery")
    if told is not None:
        (images / f"{told['name']}.png").write_bytes(base64.b64decode(output["data"]["image/png"]))
        return f"![{told['alt']}](images/gallery/{told['name']}.png)"
    return str(output.get("data", {}).get("text/markdown", ""))


if __name__ == "__main__":
    main()
