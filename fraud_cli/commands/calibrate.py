"""`fraud calibrate`: how the gate would have judged the partitions at hand, and how often it is wrong on simulated ones."""

import sys
from datetime import UTC, datetime

from tqdm import tqdm

from fraud_assets.installation import Installation
from fraud_assets.reports import calibration
from fraud_core import gate
from fraud_core.gate.statistics import scipy_detector
from fraud_core.settings import Settings
from fraud_core.training_data.transform import source_features


def calibrate(settings: Settings, *, simulated: bool) -> int:
    """Print Markdown: every materialized partition judged anew by the gate's own reference, walking forward; nothing is recorded.

    Args:
        settings: the installation's.
        simulated: also false alarms and power on simulated partitions; takes about ten minutes of one core.
    """
    installation = Installation.load(settings)
    features = source_features(installation.source)
    names = [feature.name for feature in features]
    carried = ["card"] if installation.source.columns.card is not None else []
    keys = tqdm(installation.transformed(), desc="judging", unit="partition", file=sys.stderr, disable=None)
    judgements = gate.walk_forward(
        ((key, installation.artifacts.scan("transformed", key).select([*names, *carried]).collect()) for key in keys),
        features=features,
        settings=installation.source.drift,
        seed=settings.seed,
        detector=scipy_detector,
        now=datetime.now(UTC),
    )
    print(f"### {installation.source.name}, partition by partition\n\n{calibration.walk_table(judgements)}")
    if simulated:
        print(f"\n{calibration.report(scipy_detector)}")
    return 0
