"""The reasons behind a score: exact Shapley values on the bundle's own model, and a sentence in plain words for each.

Trees: the path-dependent TreeSHAP values of Lundberg et al. 2020 ("From local explanations to global understanding with
explainable AI for trees", Nature Machine Intelligence 2). A leaf of value v whose path speaks of m features is a game: feature i
takes part with h_i, 1 where the row stays on the path and else 0, or is left out with s_i, the share of the training rows that
stay. Its Shapley value is an integral of the game's multilinear extension (Owen 1972, Management Science 18),

    v * (h_i - s_i) * integral over t in [0, 1] of the product over j != i of (t * h_j + (1 - t) * s_j),

of a polynomial of degree m - 1, which ceil(m / 2) Gauss-Legendre nodes integrate exactly. All terms of the product are positive,
so nothing cancels, and NumPy computes all leaves with the same m at once.

Linear models: coefficient * (x - training mean), the Shapley values where features count as independent (Lundberg and Lee 2017).
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import polars as pl
import treelite

from fraud_core.errors import IntegrityError
from fraud_core.features import catalogue
from fraud_core.features.wording import WORDINGS
from fraud_core.models.bundle import Fitted
from fraud_core.signing.card_numbers import printable
from fraud_core.units.arrays import Array, Flags, Floats, Indices

Value = str | float | int | None

LESS, LESS_OR_EQUAL = 2, 3  # treelite's codes for the comparisons that lead to the left child


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a score is what it is: one feature's part in it.

    Attributes:
        feature: its name.
        value: the value it had, in the feature's unit; None: missing.
        contribution: what it added to the score, in the explainer's unit.
        direction: whether it raised or lowered the risk.
        code: short and stable, for programs; docs/reasons.md lists them.
        sentence: for people.
    """

    feature: str
    value: Value
    contribution: float
    direction: Literal["raises", "lowers"]
    code: str
    sentence: str


class Explainer:
    """Explains the scores of one model, which may be a bundle. Immutable and safe to share between threads.

    A row has the same contributions, to the bit, alone and in any batch.

    Attributes:
        unit: of contributions. "log-odds": they and the base sum to the served log-odds, Platt's map included (boosting and
            linear). "probability": they sum to the forest's own mean probability, which Platt's map takes for its margin.
    """

    unit: Literal["log-odds", "probability"]

    def __init__(self, fitted: Fitted) -> None:
        """Parse the model once; of a bundle, its first.

        Raises:
            IntegrityError: the model lacks what its explanation needs.
        """
        self._columns = fitted.encoder.columns
        self._model: _Attribution
        if fitted.kind == "linear":
            self._model = _Linear.parse(fitted.model)
        else:
            self._model = _Trees.parse(fitted.model, len(self._columns), forest=fitted.kind == "forest")
        if fitted.kind == "forest":
            self.unit = "probability"
            self._slope, self._intercept = 1.0, 0.0
        else:
            self.unit = "log-odds"
            self._slope, self._intercept = fitted.calibration.slope, fitted.calibration.intercept

    def contributions(self, X: Floats) -> tuple[float, Floats]:
        """What each column adds to the score of each row.

        Args:
            X: a matrix of shape (n, columns), columns in the encoder's order.

        Returns:
            The base, which is the score expected of a training row before anything is known of it, and contributions of
            shape (n, columns): base + contributions.sum(axis=1) is the score in `unit`.
        """
        return self._slope * self._model.base + self._intercept, self._slope * self._model.attribute(X)

    def reasons(self, values: Mapping[str, Any], contributions: Floats, top: int = 3) -> list[Reason]:
        """The strongest reasons of one row, strongest first; a feature that contributed nothing is none.

        Args:
            values: feature -> the value it had, as `features.compute` gives it (NaN or None: missing).
            contributions: the row's contributions, of shape (columns,).
            top: how many at most.
        """
        strongest = np.argsort(-np.abs(contributions), kind="stable")[:top]
        return [self._reason(int(at), values, float(contributions[at])) for at in strongest if contributions[at] != 0]

    def _reason(self, at: int, values: Mapping[str, Any], contribution: float) -> Reason:
        column = self._columns[at]
        wording = WORDINGS[column.feature]
        value = _plain(catalogue.BY_NAME[column.feature], values[column.feature])
        state, subject = "", wording.missing if value is None else wording.phrase(value)
        if value is None:
            state = "_MISSING"
        elif column.categories is not None and value not in column.categories:
            state, subject = "_UNSEEN", f"{subject}, not seen in training,"
        elif wording.scale and column.missing is not None and not isinstance(value, str):
            state = "_HIGH" if value > column.missing else "_LOW" if value < column.missing else "_TYPICAL"
        direction: Literal["raises", "lowers"] = "raises" if contribution > 0 else "lowers"
        sentence = f"{subject} {direction} the risk."
        return Reason(column.feature, value, contribution, direction, wording.code + state, sentence)


def _plain(feature: catalogue.Feature, value: Any) -> Value:
    """A feature's value as JSON can hold it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if feature.is_category:
        return printable(str(value))
    return int(value) if feature.dtype == pl.Int64 else float(value)


class _Attribution(Protocol):
    """A model's margin, split over the columns of its matrix: margin = base + sum of attributions."""

    @property
    def base(self) -> float: ...

    def attribute(self, X: Floats) -> Floats: ...


@dataclass(frozen=True)
class _Linear:
    base: float
    coefficients: Floats
    means: Floats

    @classmethod
    def parse(cls, data: bytes) -> "_Linear":
        document = json.loads(data)
        if "means" not in document:
            raise IntegrityError("The linear model holds no means of its training matrix, so scores have no reasons; train anew.")
        coefficients, means = np.array(document["coefficients"]), np.array(document["means"])
        return cls(float(document["intercept"] + coefficients @ means), coefficients, means)

    def attribute(self, X: Floats) -> Floats:
        return self.coefficients * (X - self.means)


@dataclass(frozen=True)
class _Leaves:
    """Leaves whose paths speak of the same number m of features. Arrays of shape (m, leaves), but `value` of (leaves,).

    Attributes:
        quadrature: nodes in [0, 1] and weights that integrate polynomials of degree m - 1.
        value: what the leaf adds to the margin.
        feature: column.
        above, up_to: the row stays on the path where not x <= above and x <= up_to (`above` is NaN where nothing bounds it:
            no x is <= NaN).
        missing: the row stays on the path where x is NaN.
        share: of the training rows that come by, those that stay on the path at every split on this feature.
    """

    quadrature: tuple[tuple[float, float], ...]
    value: Floats
    feature: Indices
    above: Floats
    up_to: Floats
    missing: Flags
    share: Floats

    def attribute(self, x: Floats) -> Floats:
        """Shapley values of one row, of shape (columns,)."""
        at = x[self.feature]
        stays = ~(at <= self.above) & (at <= self.up_to)
        if np.isnan(x).any():
            stays = np.where(np.isnan(at), self.missing, stays)
        others = np.zeros(at.shape)  # the integral
        for t, weight in self.quadrature:
            terms = self.share * (1 - t)
            terms += t * stays
            others += weight * terms.prod(axis=0) / terms
        others *= self.value
        others *= stays - self.share
        return np.bincount(self.feature.ravel(), others.ravel(), len(x)).astype(np.float64, copy=False)


@dataclass(frozen=True)
class _Trees:
    base: float
    groups: tuple[_Leaves, ...]
    narrow: bool

    @classmethod
    def parse(cls, data: bytes, columns: int, *, forest: bool) -> "_Trees":
        nodes = _Nodes.read(treelite.Model.deserialize_bytes(data), forest=forest)
        base = nodes.bias
        groups: defaultdict[int, list[tuple[Array, ...]]] = defaultdict(list)
        for ends in _walk(nodes, columns):
            base += float((nodes.value[ends.node] * ends.share.prod(axis=1)).sum())
            used = ends.used.sum(axis=1)
            for m in np.unique(used[used > 0]).tolist():
                groups[m].append(_compact(ends.select(used == m), nodes, m))
        return cls(base, tuple(_leaves(m, groups[m]) for m in sorted(groups)), narrow=forest)

    def attribute(self, X: Floats) -> Floats:
        # scikit-learn's forests compare in float32
        rows = X.astype(np.float32).astype(np.float64) if self.narrow else X
        out = np.zeros(X.shape)
        for at, x in enumerate(rows):  # the arrays of one row fill the processor's cache already
            out[at] = sum(leaves.attribute(x) for leaves in self.groups)
        return out


@dataclass(frozen=True)
class _Nodes:
    """The nodes of all trees in flat arrays of shape (nodes,).

    Attributes:
        bias: what the margin is without any tree.
        roots: index of each tree's root, of shape (trees,).
        is_leaf: whether it has no children.
        left, right: index of the children; meaningless in a leaf.
        feature: column that the node asks for; meaningless in a leaf, as are the next two.
        threshold: x <= threshold goes to the left child.
        missing_left: whether NaN goes to the left child.
        value: what a leaf adds to the margin.
        cover: how many training rows came by; in a forest by their weights.
    """

    bias: float
    roots: Indices
    is_leaf: Flags
    left: Indices
    right: Indices
    feature: Indices
    threshold: Floats
    missing_left: Flags
    value: Floats
    cover: Floats

    @classmethod
    def read(cls, model: Any, *, forest: bool) -> "_Nodes":
        """Read a treelite model of one output (boosting), or of the two classes' shares (forest).

        Raises:
            IntegrityError: a comparison is neither < nor <=, or the nodes do not know how many training rows they saw.
        """
        trees = [model.get_tree_accessor(tree) for tree in range(model.num_tree)]

        def field(name: str) -> Array:
            return np.concatenate([tree.get_field(name) for tree in trees])

        sizes = field("num_nodes")
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        root: Indices = np.repeat(roots, sizes)
        is_leaf, comparison, threshold = field("cleft") < 0, field("cmp"), field("threshold").astype(np.float64)
        if not np.isin(comparison[~is_leaf], (LESS, LESS_OR_EQUAL)).all():
            raise IntegrityError("The model's trees split by other tests than < and <=, so scores have no reasons; train anew.")
        if forest:
            vectors = [tree.get_field("leaf_vector") for tree in trees]
            begins = np.cumsum([0, *map(len, vectors)])[:-1]
            fraud = np.repeat(begins, sizes) + field("leaf_vector_end").astype(np.intp) - 1  # the last class
            value = np.where(is_leaf, np.concatenate(vectors)[fraud], 0.0) / len(trees)
        else:
            value = field("leaf_value").astype(np.float64)
        return cls(
            bias=float(model.get_header_accessor().get_field("base_scores")[-1]),
            roots=roots,
            is_leaf=is_leaf,
            left=root + field("cleft").astype(np.intp),
            right=root + field("cright").astype(np.intp),
            feature=field("split_index").astype(np.intp),
            threshold=np.where(comparison == LESS, np.nextafter(threshold, -np.inf), threshold),
            missing_left=field("default_left").astype(bool),
            value=value,
            cover=_covers(field, len(root)),
        )


def _covers(field: Callable[[str], Array], nodes: int) -> Floats:
    """The training rows that each node saw: by weight where the model knows (scikit-learn's forests), else by number."""
    for name in ("sum_hess", "data_count"):
        cover, present = field(name), field(f"{name}_present")
        if len(present) == nodes and present.all() and (cover > 0).all():
            return cover.astype(np.float64)
    raise IntegrityError("The model's trees do not tell how many training rows each node saw; train anew.")


class _Paths(NamedTuple):
    """Paths from the roots as far as they have been walked: `node` of shape (paths,), the last one; else (paths, columns).

    `used` tells which columns the path speaks of; for the others see `_Leaves`.
    """

    node: Array
    used: Array
    above: Array
    up_to: Array
    missing: Array
    share: Array

    def select(self, which: Flags) -> "_Paths":
        return _Paths(*(array[which] for array in self))

    def step(self, nodes: _Nodes, *, to_left: bool) -> "_Paths":
        """One node further; none of the paths has come to a leaf."""
        child = (nodes.left if to_left else nodes.right)[self.node]
        used, above, up_to, missing, share = (array.copy() for array in self[1:])
        at, threshold = (np.arange(len(child)), nodes.feature[self.node]), nodes.threshold[self.node]
        used[at] = True
        if to_left:
            up_to[at] = np.fmin(up_to[at], threshold)
        else:
            above[at] = np.fmax(above[at], threshold)
        missing[at] &= nodes.missing_left[self.node] == to_left
        share[at] *= nodes.cover[child] / nodes.cover[self.node]
        return _Paths(child, used, above, up_to, missing, share)


def _walk(nodes: _Nodes, columns: int) -> Iterator[_Paths]:
    """The paths that end in a leaf, level by level, through all trees at once."""
    shape = len(nodes.roots), columns
    paths = _Paths(
        nodes.roots,
        used=np.zeros(shape, dtype=bool),
        above=np.full(shape, np.nan),
        up_to=np.full(shape, np.inf),
        missing=np.ones(shape, dtype=bool),
        share=np.ones(shape),
    )
    while len(paths.node):
        ended = nodes.is_leaf[paths.node]
        yield paths.select(ended)
        going = paths.select(~ended)
        left, right = going.step(nodes, to_left=True), going.step(nodes, to_left=False)
        paths = _Paths(*(np.concatenate(pair) for pair in zip(left, right, strict=True)))


def _compact(ends: _Paths, nodes: _Nodes, m: int) -> tuple[Array, ...]:
    """The arrays of `_Leaves`, in its order, for paths that speak of m columns each."""
    columns = np.argsort(~ends.used, axis=1, kind="stable")[:, :m]
    return nodes.value[ends.node], columns.T, *(np.take_along_axis(array, columns, axis=1).T for array in ends[2:])


def _leaves(m: int, parts: list[tuple[Array, ...]]) -> _Leaves:
    """The parts of all levels in one."""
    nodes, weights = np.polynomial.legendre.leggauss((m + 1) // 2)  # type: ignore[no-untyped-call]
    quadrature = tuple(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))
    arrays = (np.ascontiguousarray(np.concatenate(part, axis=-1)) for part in zip(*parts, strict=True))
    return _Leaves(quadrature, *arrays)
