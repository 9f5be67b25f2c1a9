"""What the reasons behind a score promise: exact Shapley values that sum to the score, and sentences that say what was sent."""

import importlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pytest
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from treelite import model_builder

from fraud_core.errors import IntegrityError
from fraud_core.features import catalogue
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.models.bundle import Bundle, Fitted, make_bundle
from fraud_core.models.explain import Explainer
from fraud_core.models.kinds.catalogue import KINDS
from fraud_core.models.manifest import Calibration, Lineage, Lookback, ModelKind, Thresholds
from fraud_core.models.scorer import Scorer
from fraud_core.units.arrays import Floats
from tests import history_features

WORDINGS = {feature.name: feature.wording for feature in history_features.FEATURES}

CALIBRATION = Calibration(slope=0.83, intercept=-0.4)
IDENTITY = Calibration(slope=1.0, intercept=0.0)


def bundle_of(
    kind: ModelKind, model: bytes, columns: int | Encoder, calibration: Calibration = CALIBRATION, **second: Any
) -> Bundle:
    encoder = columns
    if isinstance(encoder, int):
        encoder = Encoder(columns=tuple(ColumnEncoding(feature=f"x{column}", missing=0.0) for column in range(encoder)))
    return make_bundle(
        source="test",
        timezone="UTC",
        feature_version=catalogue.VERSION,
        kind=kind,
        model=model,
        encoder=encoder,
        calibration=calibration,
        thresholds=Thresholds(review=0.3, decline=0.7),
        lineage=Lineage(training_set="test", partitions=(), card_key_id="test", libraries={}),
        **second,
    )


def training_data(columns: int = 6, rows: int = 1_500, missing: float = 0.0) -> tuple[Floats, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(11)
    X = np.round(rng.normal(size=(rows, columns)), 1)
    y = (X[:, 0] * X[:, 1] + X[:, 2] + 0.5 * rng.normal(size=rows) > 0.8).astype(np.int64)
    X[rng.random(X.shape) < missing] = np.nan
    return X, y


def boosting(X: Floats, y: npt.NDArray[np.int64], trees: int = 25) -> HistGradientBoostingClassifier:
    with threadpool_limits(limits=1):
        return HistGradientBoostingClassifier(max_iter=trees, early_stopping=False, random_state=0).fit(X, y)


def forest(X: Floats, y: npt.NDArray[np.int64]) -> RandomForestClassifier:
    return RandomForestClassifier(20, max_leaf_nodes=64, class_weight="balanced", random_state=0).fit(X, y)


def linear(X: Floats, y: npt.NDArray[np.int64]) -> bytes:
    fitted = LogisticRegression().fit(X, y)
    document = {"coefficients": fitted.coef_[0].tolist(), "intercept": fitted.intercept_[0], "means": X.mean(axis=0).tolist()}
    return json.dumps(document).encode()


@pytest.fixture(scope="module")
def shap() -> Any:
    with warnings.catch_warnings():
        # it makes Matplotlib calls that Matplotlib will drop
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return importlib.import_module("shap")


def treelite_bytes(model: Any) -> bytes:
    return treelite.sklearn.import_model(model).serialize_bytes()


@dataclass
class Node:
    """A node of a tree written down by hand; a leaf has no children."""

    cover: int
    value: float = 0.0
    feature: int = 0
    threshold: float = 0.0
    operator: str = "<="
    missing_left: bool = True
    children: "tuple[Node, Node] | None" = None


def grow(rng: np.random.Generator, columns: int, cover: int, depth: int) -> Node:
    """A random tree: few columns, hence repeated on a path; every operator and default direction."""
    if depth == 0 or cover < 2 or rng.random() < 0.15:
        return Node(cover, value=rng.normal())
    left = int(rng.integers(1, cover))
    return Node(
        cover,
        feature=int(rng.integers(columns)),
        threshold=float(rng.integers(-3, 4)),
        operator=str(rng.choice(["<", "<="])),
        missing_left=bool(rng.random() < 0.5),
        children=(grow(rng, columns, left, depth - 1), grow(rng, columns, cover - left, depth - 1)),
    )


def built(trees: list[Node], columns: int, covers: bool = True) -> bytes:
    """The trees as the bytes of a treelite model."""
    builder: Any = model_builder.ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=model_builder.Metadata(
            num_feature=columns,
            task_type="kBinaryClf",
            average_tree_output=False,
            num_target=1,
            num_class=[1],
            leaf_vector_shape=(1, 1),
        ),
        tree_annotation=model_builder.TreeAnnotation(num_tree=len(trees), target_id=[0] * len(trees), class_id=[0] * len(trees)),
        postprocessor=model_builder.PostProcessorFunc(name="sigmoid"),
        base_scores=[0.25],
    )
    for tree in trees:
        builder.start_tree()
        waiting, keys = [(0, tree)], 1
        while waiting:
            key, node = waiting.pop(0)
            builder.start_node(key)
            if node.children is None:
                builder.leaf(node.value)
            else:
                builder.numerical_test(
                    node.feature,
                    node.threshold,
                    default_left=node.missing_left,
                    opname=node.operator,
                    left_child_key=keys,
                    right_child_key=keys + 1,
                )
                waiting += [(keys, node.children[0]), (keys + 1, node.children[1])]
                keys += 2
            if covers:
                builder.data_count(node.cover)
            builder.end_node()
        builder.end_tree()
    data: bytes = builder.commit().serialize_bytes()
    return data


def expected(node: Node, x: Floats, known: frozenset[int]) -> float:
    """A tree's value where some features are known: an unknown one goes both ways, as the training rows did."""
    if node.children is None:
        return node.value
    left, right = node.children
    if node.feature not in known:
        ways = left.cover * expected(left, x, known) + right.cover * expected(right, x, known)
        return ways / node.cover
    at = x[node.feature]
    goes_left = node.missing_left if math.isnan(at) else at < node.threshold or (at == node.threshold and node.operator == "<=")
    return expected(left if goes_left else right, x, known)


def shapley(value: Callable[[frozenset[int]], float], players: int) -> list[float]:
    """Shapley values by their definition: over every coalition."""
    found = []
    for player in range(players):
        others = [other for other in range(players) if other != player]
        total = 0.0
        for size in range(players):
            weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            for coalition in map(frozenset, combinations(others, size)):
                total += weight * (value(coalition | {player}) - value(coalition))
        found.append(total)
    return found


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_contributions_are_the_shapley_values_that_enumeration_of_all_coalitions_gives(columns: int) -> None:
    rng = np.random.default_rng(columns)
    trees = [grow(rng, columns, cover=200, depth=6) for _ in range(8)]
    explainer = Explainer(bundle_of("boosting", built(trees, columns), columns, IDENTITY))
    X = rng.integers(-4, 5, size=(25, columns)).astype(np.float64)
    X[rng.random(X.shape) < 0.2] = np.nan
    X[0], X[1] = np.inf, -np.inf

    base, values = explainer.contributions(X)

    assert base == pytest.approx(0.25 + sum(expected(tree, X[0], frozenset()) for tree in trees), abs=1e-12)
    for row, x in zip(values, X, strict=True):
        truth = sum(np.array(shapley(partial(expected, tree, x), columns)) for tree in trees)
        np.testing.assert_allclose(row, truth, rtol=0, atol=1e-12)


def test_a_feature_that_a_path_asks_twice_counts_once() -> None:
    inner = Node(60, feature=0, threshold=1.0, children=(Node(20, value=5.0), Node(40, value=-1.0)))
    tree = Node(100, feature=0, threshold=3.0, children=(inner, Node(40, value=2.0)))
    explainer = Explainer(bundle_of("boosting", built([tree], 2), 2, IDENTITY))

    base, values = explainer.contributions(np.array([[0.0, 9.0], [2.0, 9.0], [4.0, 9.0]]))

    mean = 0.2 * 5.0 + 0.4 * -1.0 + 0.4 * 2.0
    assert base == pytest.approx(0.25 + mean, abs=1e-15)
    np.testing.assert_allclose(values, [[5.0 - mean, 0.0], [-1.0 - mean, 0.0], [2.0 - mean, 0.0]], rtol=0, atol=1e-15)


def test_many_features_on_one_path_stay_exact() -> None:
    # "all of 24 features are high", each half of the time: by symmetry every feature has an equal part
    tree = Node(1, value=1.0)
    for depth in range(24):
        tree = Node(2 ** (depth + 1), feature=depth, threshold=0.0, children=(Node(2**depth, value=0.0), tree))
    explainer = Explainer(bundle_of("boosting", built([tree], 24), 24, IDENTITY))

    _, values = explainer.contributions(np.ones((1, 24)))

    np.testing.assert_allclose(values, np.full((1, 24), (1.0 - 0.5**24) / 24), rtol=1e-12)


@pytest.mark.parametrize("kind", ["boosting", "linear"])
def test_base_and_contributions_sum_to_the_served_log_odds(kind: ModelKind) -> None:
    X, y = training_data()
    model = treelite_bytes(boosting(X, y)) if kind == "boosting" else linear(X, y)
    bundle = bundle_of(kind, model, X.shape[1])
    rows = np.random.default_rng(1).normal(size=(500, X.shape[1]))

    base, values = Explainer(bundle).contributions(rows)

    served = CALIBRATION.slope * KINDS[kind].load(model).margins(rows) + CALIBRATION.intercept
    assert Explainer(bundle).unit == "log-odds"
    assert np.ptp(served) > 1
    np.testing.assert_allclose(base + values.sum(axis=1), served, rtol=0, atol=1e-9)


def test_base_and_contributions_of_a_forest_sum_to_its_mean_probability() -> None:
    X, y = training_data()
    fitted = forest(X, y)
    model = treelite_bytes(fitted)
    explainer = Explainer(bundle_of("forest", model, X.shape[1]))
    # also rows that float64 sees to the right of a threshold, and float32, in which the forest compares, on it
    tree = fitted.estimators_[0].tree_
    above = np.tile(X[0], (tree.node_count, 1))
    above[np.arange(tree.node_count), np.maximum(tree.feature, 0)] = tree.threshold + 1e-12
    rows = np.vstack([np.random.default_rng(1).normal(size=(500, X.shape[1])), above])

    base, values = explainer.contributions(rows)

    assert explainer.unit == "probability"
    np.testing.assert_allclose(base + values.sum(axis=1), KINDS["forest"].load(model).margins(rows), rtol=0, atol=1e-9)


def test_a_wide_forest_is_taken_apart_tree_by_tree_into_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = training_data()
    bundle = bundle_of("forest", treelite_bytes(forest(X, y)), X.shape[1])
    at_once = Explainer(bundle).contributions(X[:50])
    monkeypatch.setattr("fraud_core.models.kinds.trees.MOST_CELLS", 1)
    base, values = Explainer(bundle).contributions(X[:50])
    assert base == pytest.approx(at_once[0], abs=1e-12)
    np.testing.assert_allclose(values, at_once[1], rtol=0, atol=1e-12)


def test_the_base_is_the_mean_score_of_the_training_rows() -> None:
    X, y = training_data()
    model = treelite_bytes(boosting(X, y))

    base, _ = Explainer(bundle_of("boosting", model, X.shape[1], IDENTITY)).contributions(X[:1])

    assert base == pytest.approx(KINDS["boosting"].load(model).margins(X).mean(), abs=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_boosting_is_explained_as_shap_explains_it(shap: Any, missing: float) -> None:
    X, y = training_data(missing=missing)
    model = boosting(X, y)
    truth = shap.TreeExplainer(model)(X[:100])

    base, values = Explainer(bundle_of("boosting", treelite_bytes(model), X.shape[1], IDENTITY)).contributions(X[:100])

    assert base == pytest.approx(float(truth.base_values[0]), abs=1e-9)
    np.testing.assert_allclose(values, truth.values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_a_weighted_forest_is_explained_as_shap_explains_it(shap: Any, missing: float) -> None:
    X, y = training_data(missing=missing)
    model = forest(X, y)
    truth = shap.TreeExplainer(model)(X[:100])

    base, values = Explainer(bundle_of("forest", treelite_bytes(model), X.shape[1])).contributions(X[:100])

    assert base == pytest.approx(float(truth.base_values[0, 1]), abs=1e-9)
    np.testing.assert_allclose(values, truth.values[..., 1], rtol=0, atol=1e-9)


def test_a_linear_model_is_explained_as_shap_explains_it(shap: Any) -> None:
    X, y = training_data()
    fitted = LogisticRegression().fit(X, y)
    truth = shap.LinearExplainer(fitted, shap.maskers.Independent(X, max_samples=len(X)))(X[:100])

    base, values = Explainer(bundle_of("linear", linear(X, y), X.shape[1], IDENTITY)).contributions(X[:100])

    assert base == pytest.approx(float(np.ravel(truth.base_values)[0]), abs=1e-9)
    np.testing.assert_allclose(values, truth.values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["boosting", "forest", "linear"])
def test_a_row_has_the_same_bits_alone_in_a_batch_and_in_another_thread(kind: ModelKind) -> None:
    X, y = training_data(rows=300)
    model = linear(X, y) if kind == "linear" else treelite_bytes(boosting(X, y) if kind == "boosting" else forest(X, y))
    bundle = bundle_of(kind, model, X.shape[1])
    explainer = Explainer(bundle)

    _, together = explainer.contributions(X[:64])

    with ThreadPoolExecutor(4) as threads:
        alone = list(threads.map(lambda at: explainer.contributions(X[at : at + 1])[1][0], range(64)))
    assert np.array_equal(np.array(alone), together)
    assert np.array_equal(Explainer(bundle).contributions(X[:64])[1], together)


def test_no_rows_have_no_contributions() -> None:
    X, y = training_data(rows=300)
    _, values = Explainer(bundle_of("boosting", treelite_bytes(boosting(X, y)), X.shape[1])).contributions(X[:0])
    assert values.shape == (0, X.shape[1])


def test_trees_without_covers_are_refused() -> None:
    tree = Node(2, children=(Node(1, value=1.0), Node(1, value=2.0)))
    with pytest.raises(IntegrityError, match="how many training rows"):
        Explainer(bundle_of("boosting", built([tree], 1, covers=False), 1))


def test_trees_that_split_by_another_comparison_are_refused() -> None:
    tree = Node(2, operator=">", children=(Node(1, value=1.0), Node(1, value=2.0)))
    with pytest.raises(IntegrityError, match="other tests than < and <="):
        Explainer(bundle_of("boosting", built([tree], 1), 1))


def test_a_linear_model_without_means_is_refused() -> None:
    with pytest.raises(IntegrityError, match="means"):
        Explainer(bundle_of("linear", b'{"coefficients": [1.0], "intercept": 0.0}', 1))


ENCODER = Encoder(
    columns=tuple(
        ColumnEncoding(feature=feature.name, categories={"grocery_pos": 1.0, "(missing)": 0.0}, unseen=2.0)
        if feature.is_category
        else ColumnEncoding(feature=feature.name, missing=median)
        for feature, median in zip(catalogue.PLAIN, (4.0, 14.0, 3.0, 0.0, 44.0, 78_000.0, 2_500.0, 0.0), strict=True)
    )
)
SENT: Mapping[str, Any] = {
    "log_amount": float(np.round(np.log1p(966.11) * 1e9) / 1e9),
    "hour": 2.0,
    "weekday": 0.0,
    "night": 1.0,
    "age": 44.0,
    "distance": 85_213.0,
    "city_population": 1_263_321.0,
    "category": "grocery_pos",
}


@pytest.fixture
def explainer() -> Explainer:
    model = json.dumps({"coefficients": [1.0] * 8, "intercept": 0.0, "means": [0.0] * 8}).encode()
    return Explainer(bundle_of("linear", model, ENCODER))


def told(explainer: Explainer, feature: str, value: Any, contribution: float = 1.0) -> tuple[str, str]:
    """Code and sentence where this feature alone contributes."""
    contributions = np.array([contribution if name == feature else 0.0 for name in ENCODER.features])
    (reason,) = explainer.reasons({**SENT, feature: value}, contributions)
    return reason.code, reason.sentence


def test_every_feature_has_words() -> None:
    assert len({wording.code for wording in WORDINGS.values()}) == len(history_features.FEATURES)


@pytest.mark.parametrize(
    ("feature", "value", "code", "sentence"),
    [
        ("log_amount", SENT["log_amount"], "AMOUNT_HIGH", "The amount of 966.11 raises the risk."),
        ("log_amount", 0.0, "AMOUNT_LOW", "The amount of 0.00 raises the risk."),
        ("log_amount", math.log1p(12_345_678.9), "AMOUNT_HIGH", "The amount of 12.35 million raises the risk."),
        ("hour", 2.0, "HOUR", "The purchase between 02:00 and 03:00 raises the risk."),
        ("hour", 23.0, "HOUR", "The purchase between 23:00 and 24:00 raises the risk."),
        ("weekday", 0.0, "WEEKDAY", "The purchase on a Monday raises the risk."),
        ("weekday", 6.0, "WEEKDAY", "The purchase on a Sunday raises the risk."),
        ("night", 1.0, "DAY_OR_NIGHT", "The purchase at night, from 22:00 to 06:00, raises the risk."),
        ("night", 0.0, "DAY_OR_NIGHT", "The purchase by day, from 06:00 to 22:00, raises the risk."),
        ("age", 44.0, "AGE_TYPICAL", "The cardholder's age of 44 raises the risk."),
        ("age", 19, "AGE_LOW", "The cardholder's age of 19 raises the risk."),
        ("distance", 850.0, "DISTANCE_LOW", "The distance of 850 m from home to the merchant raises the risk."),
        ("distance", 8_512.0, "DISTANCE_LOW", "The distance of 8.5 km from home to the merchant raises the risk."),
        ("distance", 85_213.0, "DISTANCE_HIGH", "The distance of 85 km from home to the merchant raises the risk."),
        ("city_population", 12_345.0, "CITY_POPULATION_HIGH", "The city's population of 12,345 raises the risk."),
        ("category", "grocery_pos", "CATEGORY", 'The merchant category "grocery_pos" raises the risk.'),
        ("category", "yachts", "CATEGORY_UNSEEN", 'The merchant category "yachts", not seen in training, raises the risk.'),
        ("category", None, "CATEGORY_MISSING", "The unknown merchant category raises the risk."),
        ("distance", math.nan, "DISTANCE_MISSING", "The unknown distance from home to the merchant raises the risk."),
        ("age", np.float64("nan"), "AGE_MISSING", "The unknown age of the cardholder raises the risk."),
    ],
)
def test_a_reason_says_in_plain_words_what_was_sent(
    explainer: Explainer, feature: str, value: Any, code: str, sentence: str
) -> None:
    assert told(explainer, feature, value) == (code, sentence)


def test_of_a_name_that_is_pooled_is_said_that_it_was_hardly_seen() -> None:
    model = json.dumps({"coefficients": [1.0] * 8, "intercept": 0.0, "means": [0.0] * 8}).encode()
    columns = (*ENCODER.columns[:-1], ENCODER.columns[-1].model_copy(update={"rare": 10}))
    code, sentence = told(Explainer(bundle_of("linear", model, Encoder(columns=columns))), "category", "yachts")
    assert code == "CATEGORY_UNSEEN"
    assert sentence == 'The merchant category "yachts", seen in fewer than 10 payments of training, raises the risk.'


def test_a_negative_contribution_lowers_the_risk(explainer: Explainer) -> None:
    assert told(explainer, "age", 60.0, contribution=-0.1)[1] == "The cardholder's age of 60 lowers the risk."


def test_the_strongest_reasons_come_first_whatever_their_sign(explainer: Explainer) -> None:
    contributions = np.array([0.5, -2.0, 0.0, 0.5, 0.1, 3.0, 0.0, -0.2])

    reasons = explainer.reasons(SENT, contributions, top=4)

    assert [(reason.feature, reason.contribution, reason.direction) for reason in reasons] == [
        ("distance", 3.0, "raises"),
        ("hour", -2.0, "lowers"),
        ("log_amount", 0.5, "raises"),
        ("night", 0.5, "raises"),
    ]


def test_a_feature_without_a_part_in_the_score_is_no_reason(explainer: Explainer) -> None:
    assert explainer.reasons(SENT, np.array([0.0] * 7 + [1e-3]), top=8)[0].feature == "category"
    assert len(explainer.reasons(SENT, np.array([0.0] * 7 + [1e-3]), top=8)) == 1
    assert explainer.reasons(SENT, np.zeros(8)) == []


def test_the_values_of_reasons_are_what_json_can_hold(explainer: Explainer) -> None:
    sent = {name: np.float64(value) if isinstance(value, float) else np.str_(value) for name, value in SENT.items()}

    reasons = explainer.reasons({**sent, "age": np.float64("nan")}, np.arange(8, 0, -1, dtype=np.float64), top=8)

    values = {
        reason["feature"]: reason["value"] for reason in json.loads(json.dumps([asdict(r) for r in reasons], allow_nan=False))
    }
    assert values == {**SENT, "age": None}
    assert all(type(values[name]) is int for name in ("hour", "weekday", "night", "distance", "city_population"))


def test_the_reasons_of_a_scored_transaction_add_up_to_its_log_odds() -> None:
    rng = np.random.default_rng(5)
    X = np.column_stack([rng.normal(column.missing or 0.0, 30.0, 800) for column in ENCODER.columns])
    y = (X[:, 0] + X[:, 5] - 78_000 + rng.normal(0, 20, 800) > 30).astype(np.int64)
    bundle = bundle_of("boosting", treelite_bytes(boosting(X, y)), ENCODER)
    inputs = {
        "timestamp": np.array([1_592_000_000_000_000]),
        "amount_cents": np.array([96_611]),
        "birth_date": np.array(["NaT"], dtype="datetime64[D]"),
        "home_latitude": np.array([40.0]),
        "home_longitude": np.array([-3.0]),
        "merchant_latitude": np.array([40.5]),
        "merchant_longitude": np.array([-3.5]),
        "city_population": np.array([np.nan]),
        "category": np.array(["grocery_pos"], dtype=object),
    }
    computed = catalogue.compute(catalogue.PLAIN, inputs, ZoneInfo("UTC"))
    explainer = Explainer(bundle)

    base, values = explainer.contributions(ENCODER.matrix(computed))
    reasons = explainer.reasons({name: array[0] for name, array in computed.items()}, values[0], top=8)

    (probability,) = Scorer(bundle).score_inputs(inputs)
    log_odds = math.log(probability / (1 - probability))
    assert base + sum(reason.contribution for reason in reasons) == pytest.approx(log_odds, abs=1e-9)
    assert reasons[0].value == computed[reasons[0].feature][0]


def test_the_page_on_reasons_lists_every_code() -> None:
    page = (Path(__file__).parents[4] / "docs" / "reasons.md").read_text(encoding="utf-8")
    for wording in WORDINGS.values():
        states = ["_MISSING", *(["_HIGH", "_LOW", "_TYPICAL"] if wording.scale else [])]
        assert all(f"`{wording.code}{state}`" in page for state in states), wording.code
    assert all(f"`{code}`" in page for code in ("HOUR", "WEEKDAY", "DAY_OR_NIGHT", "CATEGORY", "CATEGORY_UNSEEN"))


def test_the_second_model_of_a_bundle_is_explained_as_it_scores() -> None:
    X, y = training_data()
    names = ("log_amount", "hour", "weekday", "night", "age", "distance")
    encoder = Encoder(columns=tuple(ColumnEncoding(feature=name, missing=0.0) for name in names))
    past = Encoder(columns=(*encoder.columns, ColumnEncoding(feature="card_count_1d", missing=0.0)))
    second = Fitted(
        kind="boosting",
        model=treelite_bytes(boosting(X, y)),
        encoder=encoder,
        calibration=Calibration(slope=1.4, intercept=0.2),
        thresholds=Thresholds(review=0.3, decline=0.7),
    )
    both = {"fallback": second, "lookback": Lookback(history_days=30, label_delay_days=7)}
    plain = Scorer(bundle_of("linear", linear(np.hstack([X, X[:, :1]]), y), past, **both)).without_history
    assert plain is not None
    base, contributions = Explainer(plain.bundle).contributions(X)
    log_odds = np.log(plain.score_matrix(X) / (1 - plain.score_matrix(X)))
    np.testing.assert_allclose(base + contributions.sum(axis=1), log_odds, atol=1e-9)
