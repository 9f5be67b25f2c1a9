"""What the scorer promises: scikit-learn's scores without scikit-learn, the same bits for one row as for many, and no pickle."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fraud_core.errors import IntegrityError
from fraud_core.features import catalogue
from fraud_core.features.catalogue import PLAIN
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.features.windows import Reach
from fraud_core.models.bundle import Bundle, Fitted, make_bundle, read_bundle, write_bundle
from fraud_core.models.kinds.catalogue import KINDS as CATALOGUE
from fraud_core.models.manifest import Calibration, Lineage, Lookback, ModelKind, Thresholds
from fraud_core.models.registry import point_at
from fraud_core.models.scorer import Scorer, probabilities
from fraud_core.signing.keys import Key
from fraud_core.storage.directory import DirectoryStore
from fraud_core.units.arrays import Floats

KEY = Key(b"k" * 32)
CALIBRATION = Calibration(slope=1.3, intercept=-0.4)
KINDS: tuple[ModelKind, ...] = ("linear", "forest", "boosting")
ENCODER = Encoder(
    columns=tuple(
        ColumnEncoding(feature=f.name, categories={"food": 0.01, "net": 0.2, "(missing)": 0.05}, unseen=0.03)
        if f.is_category
        else ColumnEncoding(feature=f.name, missing=1.0)
        for f in PLAIN
    )
)


def transactions(count: int, seed: int = 5) -> dict[str, npt.NDArray[Any]]:
    """Canonical arrays, some values missing."""
    rng = np.random.default_rng(seed)
    born = np.datetime64("1930-01-01") + rng.integers(0, 25_000, count).astype("timedelta64[D]")
    born[rng.random(count) < 0.05] = np.datetime64("NaT")
    population = rng.integers(100, 2_000_000, count).astype(np.float64)
    population[rng.random(count) < 0.05] = np.nan
    return {
        "timestamp": 1_600_000_000_000_000 + rng.integers(0, 10**14, count),
        "amount_cents": np.round(100 * rng.lognormal(3.5, 1.5, count)).astype(np.int64),
        "birth_date": born,
        "city_population": population,
        "category": rng.choice(np.array(["food", "net", "new", None], dtype=object), count),
        **{
            name: rng.uniform(30, 40, count)
            for name in ("home_latitude", "merchant_latitude", "home_longitude", "merchant_longitude")
        },
    }


def matrix(count: int, seed: int = 5) -> Floats:
    return ENCODER.matrix(catalogue.compute(PLAIN, transactions(count, seed), catalogue.ZoneInfo("UTC")))


def frauds(X: Floats, seed: int = 6) -> npt.NDArray[np.bool_]:
    risk = X[:, 0] - 4 + X[:, 3] + 10 * X[:, 7] + np.random.default_rng(seed).normal(size=len(X))
    return np.asarray(risk > 1.5)


@pytest.fixture(scope="module")
def fitted() -> dict[ModelKind, Any]:
    """One small model a kind, by scikit-learn."""
    X = matrix(4_000)
    y = frauds(X)
    return {
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(X, y),
        "forest": RandomForestClassifier(n_estimators=20, max_leaf_nodes=200, random_state=1).fit(X, y),
        "boosting": HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=31, early_stopping=False, random_state=1).fit(
            X, y
        ),
    }


@pytest.fixture(scope="module")
def bundles(fitted: dict[ModelKind, Any]) -> dict[ModelKind, Bundle]:
    """Their bundles."""
    return {kind: bundle(kind, CATALOGUE[kind].export(fitted[kind])) for kind in KINDS}


def bundle(kind: ModelKind, model: bytes, **changes: Any) -> Bundle:
    given: dict[str, Any] = {
        "source": "test",
        "timezone": "America/New_York",
        "feature_version": catalogue.VERSION,
        "encoder": ENCODER,
        "calibration": CALIBRATION,
        "thresholds": Thresholds(review=0.4, decline=0.8),
        "lineage": Lineage(training_set="t", partitions=(), card_key_id="c", libraries={}),
    }
    return make_bundle(kind=kind, model=model, **(given | changes))


MARGINS: dict[ModelKind, Callable[[Any, Floats], Floats]] = {
    "linear": lambda model, X: model.decision_function(X),
    "forest": lambda model, X: model.predict_proba(X)[:, 1],
    "boosting": lambda model, X: model.decision_function(X),
}


# ---- scikit-learn's scores


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundles_scores_equal_scikit_learns_to_1e_9_on_100_000_rows(
    kind: ModelKind, fitted: dict[ModelKind, Any], bundles: dict[ModelKind, Bundle]
) -> None:
    X = matrix(100_000, seed=9)
    expected = 1 / (1 + np.exp(-(CALIBRATION.slope * MARGINS[kind](fitted[kind], X) + CALIBRATION.intercept)))
    scores = Scorer(bundles[kind], threads=2).score_matrix(X)
    assert scores.shape == (100_000,)
    assert np.abs(scores - expected).max() <= 1e-9


@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_rows_on_the_very_borders_of_the_trees_fall_where_scikit_learn_lets_them(
    kind: ModelKind, fitted: dict[ModelKind, Any], bundles: dict[ModelKind, Bundle]
) -> None:
    if kind == "forest":
        borders = np.concatenate([tree.tree_.threshold[tree.tree_.feature == 0] for tree in fitted[kind].estimators_])
    else:
        nodes = np.concatenate([predictor.nodes for (predictor,) in fitted[kind]._predictors])
        borders = nodes["num_threshold"][(nodes["feature_idx"] == 0) & (nodes["is_leaf"] == 0)]
    X = np.repeat(matrix(1), 3 * len(borders), axis=0)
    X[:, 0] = np.concatenate([borders, np.nextafter(borders, np.inf), np.nextafter(borders, -np.inf)])
    margins = CATALOGUE[kind].load(bundles[kind].model).margins(X)
    assert np.abs(margins - MARGINS[kind](fitted[kind], X)).max() <= 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_has_the_bits_it_has_among_others_and_threads_do_not_matter(
    kind: ModelKind, bundles: dict[ModelKind, Bundle]
) -> None:
    X = matrix(1_000, seed=11)
    scorer = Scorer(bundles[kind])
    together = scorer.score_matrix(X)
    assert np.concatenate([scorer.score_matrix(X[n : n + 1]) for n in range(len(X))]).tobytes() == together.tobytes()
    assert scorer.score_matrix(np.asfortranarray(X)).tobytes() == together.tobytes()
    assert Scorer(bundles[kind], threads=2).score_matrix(X).tobytes() == together.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_transaction_as_it_comes_and_as_transformed_stores_it_has_the_same_score(
    kind: ModelKind, bundles: dict[ModelKind, Bundle]
) -> None:
    arrays, scorer = transactions(2_000, seed=12), Scorer(bundles[kind])
    raw = pl.DataFrame(
        {
            **{
                name: values
                for name, values in arrays.items()
                if name not in {"timestamp", "birth_date", "category", "city_population"}
            },
            "timestamp": pl.Series(arrays["timestamp"]).cast(pl.Datetime("us", "UTC")),
            "birth_date": pl.Series(arrays["birth_date"]),
            "city_population": pl.Series(arrays["city_population"]).fill_nan(None).cast(pl.Int64),
            "category": pl.Series(arrays["category"].tolist(), dtype=pl.String),
        }
    )
    stored = catalogue.feature_frame(raw, PLAIN, scorer.zone)
    served = np.array([scorer.score_inputs({k: v[n : n + 1] for k, v in arrays.items()})[0] for n in range(200)])
    assert scorer.score_features(stored)[:200].tobytes() == served.tobytes()
    assert scorer.score_features(stored).tobytes() == scorer.score_inputs(arrays).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_scorer_may_be_shared_between_threads(kind: ModelKind, bundles: dict[ModelKind, Bundle]) -> None:
    X = matrix(2_000, seed=13)
    expected = Scorer(bundles[kind]).score_matrix(X).tobytes()
    scorer = Scorer(bundles[kind])
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(scorer.score_matrix(X).tobytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


# ---- probabilities and decisions


@pytest.mark.parametrize("margin", [0.0, 1.0, -30.0, 1e4, -1e4, 1e300, -1e300])
def test_a_probability_lies_between_0_and_1_however_extreme_the_margin(margin: float) -> None:
    (probability,) = probabilities(np.array([margin]), Calibration(slope=1.0, intercept=0.0))
    assert 0 <= probability <= 1
    assert (probability > 0.5) == (margin > 0)


def test_a_higher_margin_never_has_a_lower_probability() -> None:
    margins = np.sort(np.random.default_rng(1).normal(0, 200, 10_000))
    assert (np.diff(probabilities(margins, CALIBRATION)) >= 0).all()


@pytest.mark.parametrize(
    ("probability", "decision"),
    [(0.0, "approve"), (0.3999999, "approve"), (0.4, "review"), (0.7999999, "review"), (0.8, "decline"), (1.0, "decline")],
)
def test_a_threshold_belongs_to_the_stricter_decision(
    bundles: dict[ModelKind, Bundle], probability: float, decision: str
) -> None:
    assert Scorer(bundles["linear"]).decide(probability) == decision


def test_the_scorer_says_which_columns_a_transaction_must_bring(bundles: dict[ModelKind, Bundle]) -> None:
    assert Scorer(bundles["linear"]).needs == set(transactions(1))
    bare = Encoder(columns=(ColumnEncoding(feature="log_amount", missing=1.0),))
    small = bundle("linear", b'{"coefficients":[1.0],"intercept":0.0}', encoder=bare)
    assert Scorer(small).needs == {"timestamp", "amount_cents"}


# ---- without history


LOOKBACK = Lookback(history_days=30, label_delay_days=7)
PAST = Encoder(columns=(ColumnEncoding(feature="log_amount", missing=1.0), ColumnEncoding(feature="card_count_1d", missing=2.0)))


def with_history(**changes: Any) -> Bundle:
    """A bundle with a feature of the past, whose second model does without it and has thresholds of its own."""
    second = Fitted(
        kind="linear",
        model=b'{"coefficients":[2.0],"intercept":-1.0}',
        encoder=Encoder(columns=PAST.columns[:1]),
        calibration=Calibration(slope=0.5, intercept=0.25),
        thresholds=Thresholds(review=0.1, decline=0.3),
    )
    given = {"encoder": PAST, "lookback": LOOKBACK, "fallback": second} | changes
    return bundle("linear", b'{"coefficients":[1.0,3.0],"intercept":0.5}', **given)


def test_without_history_the_second_model_scores_by_its_own_features_calibration_and_thresholds() -> None:
    scorer = Scorer(with_history())
    plain = scorer.without_history
    assert plain is not None
    amounts = transactions(50)
    log_amount = catalogue.compute(plain.features, amounts, plain.zone)["log_amount"]
    np.testing.assert_allclose(plain.score_inputs(amounts), 1 / (1 + np.exp(-(0.5 * (2 * log_amount - 1) + 0.25))))
    assert [plain.decide(value) for value in (0.09, 0.2, 0.3)] == ["approve", "review", "decline"]
    assert (plain.version, plain.zone, plain.without_history) == (scorer.version, scorer.zone, None)


def test_a_scorer_says_how_far_it_looks_back_and_its_second_that_it_does_not() -> None:
    scorer = Scorer(with_history())
    assert scorer.uses_history
    assert scorer.reach == Reach.of_days(30, 7)
    assert scorer.without_history is not None
    assert not scorer.without_history.uses_history
    assert scorer.without_history.reach is None


def test_a_model_without_features_of_the_past_has_no_second(bundles: dict[ModelKind, Bundle]) -> None:
    scorer = Scorer(bundles["linear"])
    assert (scorer.uses_history, scorer.reach, scorer.without_history) == (False, None, None)


# ---- what is refused


@pytest.mark.parametrize("missing", ["lookback", "fallback"])
def test_a_model_that_uses_history_and_could_not_do_without_is_refused(missing: str) -> None:
    with pytest.raises(IntegrityError, match="does not say how far it looks back, or has no model"):
        Scorer(with_history(**{missing: None}))


def test_a_model_of_other_feature_definitions_is_refused(bundles: dict[ModelKind, Bundle]) -> None:
    other = bundle("linear", bundles["linear"].model, feature_version=catalogue.VERSION + 1)
    with pytest.raises(IntegrityError, match="Train anew, or run the release it was trained with"):
        Scorer(other)


def test_a_model_of_unknown_features_is_refused_by_their_names(bundles: dict[ModelKind, Bundle]) -> None:
    unknown = Encoder(columns=(ColumnEncoding(feature="shoe_size", missing=1.0),))
    with pytest.raises(IntegrityError, match="shoe_size"):
        Scorer(bundle("linear", bundles["linear"].model, encoder=unknown))


def test_an_encoder_of_other_features_than_the_manifest_names_is_refused(bundles: dict[ModelKind, Bundle]) -> None:
    whole = bundles["linear"]
    learned = whole.manifest.learned.model_copy(update={"features": tuple(reversed(ENCODER.features))})
    manifest = whole.manifest.model_copy(update={"version": learned.version, "learned": learned})
    with pytest.raises(IntegrityError, match="encoder of other features"):
        Scorer(whole.model_copy(update={"manifest": manifest}))


# ---- no pickle


SERVING = """
import json, sys
unpickled = []
sys.addaudithook(lambda event, given: unpickled.append(str(given)) if event == "pickle.find_class" else None)
from pathlib import Path
import numpy as np
from fraud_core.models.bundle import read_bundle
from fraud_core.models.registry import read_latest
from fraud_core.signing.keys import Key
from fraud_core.models.scorer import Scorer
from fraud_core.storage.directory import DirectoryStore

store, key = DirectoryStore(Path(sys.argv[1])), Key(b"k" * 32)
latest = read_latest(store, key)
scorer = Scorer(read_bundle(store, latest.version, key, latest.manifest_sha256))
scores = scorer.score_matrix(np.array(json.loads(sys.stdin.read())))
print(json.dumps({"scores": scores.tolist(), "unpickled": unpickled, "modules": sorted(sys.modules)}))
"""


@pytest.mark.parametrize("kind", ["linear", "boosting"])
def test_a_process_that_scores_unpickles_nothing_and_loads_no_heavy_library(
    tmp_path: Path, kind: ModelKind, bundles: dict[ModelKind, Bundle]
) -> None:
    store = DirectoryStore(tmp_path)
    write_bundle(store, bundles[kind], KEY)
    point_at(store, bundles[kind].version, KEY, how="promotion", who="test", at=datetime.now(UTC))
    X = matrix(5, seed=14)
    run = [sys.executable, "-c", SERVING, store.url]
    answer = json.loads(subprocess.run(run, input=json.dumps(X.tolist()), capture_output=True, text=True, check=True).stdout)
    assert answer["scores"] == Scorer(read_bundle(store, bundles[kind].version, KEY)).score_matrix(X).tolist()
    assert answer["unpickled"] == []
    loaded = {name.split(".")[0] for name in answer["modules"]}
    heavy = {
        "joblib",
        "cloudpickle",
        "sklearn",
        "pandas",
        "pyarrow",
        "dagster",
        "mlflow",
        "gradio",
        "alibi_detect",
        "shap",
        "boto3",
    }
    assert not loaded & heavy
