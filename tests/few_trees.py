"""Smaller candidates than the product trains, and no pictures, for tests in which nothing depends on how good they are or look.

    python -m tests.few_trees pipeline ...

carries out a command of `fraud` with them, in a process of its own.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from fraud_assets.reports import plots
from fraud_assets.training import simple_score
from fraud_cli.main import main
from fraud_core.models.kinds import boosting, forest
from fraud_core.models.kinds.boosting import BoostingSettings

BOOSTING = {"boosting": BoostingSettings(learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=40, trees=40)}
FOREST = forest.FOREST | {"n_estimators": 20}


@contextmanager
def few_trees() -> Iterator[None]:
    """Train by these, and draw nothing, for a while."""
    with (
        mock.patch.object(boosting, "BOOSTING", BOOSTING),
        mock.patch.object(forest, "FOREST", FOREST),
        mock.patch.object(simple_score, "TREES", 20),
        mock.patch.object(plots, "_png", return_value=b"no picture"),
    ):
        yield


if __name__ == "__main__":
    with few_trees():
        sys.exit(main(sys.argv[1:]))
