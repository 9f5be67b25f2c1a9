"""Model and data: read from the store as it is, and shown with intervals, verdicts and links."""

from zoneinfo import ZoneInfo

import pytest

from fraud_core.errors import IntegrityError
from fraud_core.storage.artifacts import Artifacts
from fraud_ui.views import models
from fraud_ui.views.models import Catalogue
from tests.conftest import Installation
from tests.desk import furnish

ZONE = ZoneInfo("Europe/Zurich")


@pytest.fixture
def catalogue(installation: Installation) -> Catalogue:
    furnish(installation)
    return Catalogue(Artifacts(installation.store, installation.key), "http://127.0.0.1:3000")


def test_versions_come_newest_first_with_links_to_their_runs(catalogue: Catalogue, installation: Installation) -> None:
    new, old = catalogue.names()
    assert new == installation.bundle(2).version
    shown = models.links(catalogue.version(new))
    assert 'href="http://127.0.0.1:3000/runs/2f00ba12-3c"' in shown
    assert 'href="http://127.0.0.1:5000/#/experiments/1/runs/7"' in shown
    with pytest.raises(IntegrityError, match="no version"):
        catalogue.version("../etc")
    history = models.history(catalogue.latest(), ZONE)
    assert history.index(new) < history.index(old)


def test_a_link_that_is_none_is_not_shown(catalogue: Catalogue, installation: Installation) -> None:
    new, _ = catalogue.names()
    installation.store.put(f"models/{new}/runs/2f00ba12-3c/tracking.json", b'{"mlflow_url": "javascript:alert(1)"}')
    assert "javascript" not in models.links(catalogue.version(new))


def test_a_card_has_intervals_beside_the_fraud_rate_and_three_curves(catalogue: Catalogue) -> None:
    version = catalogue.version(catalogue.names()[0])
    assert version.card is not None
    holdout = version.card.holdout
    shown = models.card(version, ZONE)
    assert f"{holdout.average_precision:.3f} (" in shown
    assert "guessing gives" in shown
    assert shown.count("<svg") == 2
    assert "2 models were measured on this hold-out" in shown


def test_the_movable_line_tells_the_cost_of_an_observed_threshold(catalogue: Catalogue) -> None:
    found = catalogue.version(catalogue.names()[0]).card
    assert found is not None
    point = next(p for p in found.holdout.cost_curve if p.review_here is not None and 0.01 < p.threshold < 0.3)
    shown = models.cost_chart(found, "review", point.threshold)
    assert f"There 1,000 payments would cost {point.review_here:,.2f}" in shown
    beyond = models.cost_chart(found, "review", 0.9999)
    assert "No figure there" in beyond
    assert "No card was written" in models.cost_chart(None, "review", 0.5)


def test_two_versions_are_compared_by_the_promotions_own_test_and_what_changed(catalogue: Catalogue) -> None:
    new, old = map(catalogue.version, catalogue.names())
    shown = models.comparison(new, old)
    assert "+0.0123</strong> (+0.0040 to +0.0200)" in shown
    assert "Nothing but the training run." in shown  # they differ in their calibration alone
    moved = new.manifest.learned.model_copy(
        update={"features": ("hour", "speed"), "thresholds": new.manifest.learned.thresholds.model_copy(update={"review": 0.5})}
    )
    other = models.Version(new.manifest.model_copy(update={"learned": moved}), new.card, ())
    told = models.differences(old, other)
    assert "Features added: speed." in told
    assert "The review threshold went from 40 % to 50 %." in told


def test_partitions_show_their_verdicts_and_the_drift_of_each(catalogue: Catalogue) -> None:
    verdicts = catalogue.verdicts()
    assert list(verdicts) == ["2024-01", "2024-02", "2024-03"]
    shown = models.partitions(verdicts, ZONE)
    assert shown.index("2024-03") < shown.index("2024-01")
    assert "rejected" in shown
    assert "accepted unjudged" in shown
    drift = models.drift_table(verdicts["2024-03"])
    assert "log_amount" in drift
    assert "drifted" in drift
    assert "fraud accept 2024-03" in drift
    assert "Choose a partition" in models.drift_table(None)
    assert "No feature was compared" in models.drift_table(verdicts["2024-01"])


def test_an_empty_store_says_so(installation: Installation) -> None:
    catalogue = Catalogue(Artifacts(installation.store, installation.key), "http://x")
    assert catalogue.names() == []
    assert "no champion yet" in models.history(catalogue.latest(), ZONE)
    assert "No partition" in models.partitions(catalogue.verdicts(), ZONE)
