"""Trees: export by treelite, and the reasons of a model of trees.

Path-dependent TreeSHAP values of Lundberg et al. 2020 ("From local explanations to global understanding with explainable AI for
trees", Nature Machine Intelligence 2). A leaf of value v whose path speaks of m features is a game: feature i
takes part with h_i, 1 where the row stays on the path and else 0, or is left out with s_i, the share of the training rows that
stay. Its Shapley value is an integral of the game's multilinear extension (Owen 1972, Management Science 18),

    v * (h_i - s_i) * integral over t in [0, 1] of the product over j != i of (t * h_j + (1 - t) * s_j),

of a polynomial of degree m - 1, which ceil(m / 2) Gauss-Legendre nodes integrate exactly. All terms of the product are positive,
so nothing cancels, and NumPy computes all leaves with the same m at once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import treelite

from fraud_core.errors import IntegrityError
from fraud_core.models.kinds.kind import Attribution, Kind
from fraud_core.units.arrays import Array, Flags, Floats, Indices

MOST_CELLS = 8_000_000  # nodes times columns that are walked at once: a forest of 2,000 nodes a tree takes 40 columns as a whole
LESS, LESS_OR_EQUAL = 2, 3  # treelite's codes for the comparisons that lead to the left child


class TreeKind(Kind):
    """A kind of model of trees that scikit-learn fits.

    Attributes:
        is_forest: scikit-learn's forest, whose trees compare in float32 and hold the shares of the two classes; else boosting's.
    """

    suffix = "treelite"
    is_forest: bool

    def export(self, estimator: Any) -> bytes:
        """In treelite's own format, which is read back without unpickling."""
        import treelite.sklearn  # noqa: PLC0415 - a scorer must not load scikit-learn

        return bytes(treelite.sklearn.import_model(estimator).serialize_bytes())

    def explain(self, data: bytes, columns: int) -> Attribution:
        return _Trees.parse(data, columns, forest=self.is_forest)


@dataclass(frozen=True)
class LoadedTrees:
    """Trees in treelite's format, parsed when they are first asked, which use so many threads."""

    data: bytes
    threads: int

    @cached_property
    def parsed(self) -> Any:
        """Treelite's model."""
        return treelite.Model.deserialize_bytes(self.data)


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
    """The paths that end in a leaf, level by level, through as many trees at once as memory is to be had for."""
    some = max(1, len(nodes.roots) * MOST_CELLS // (len(nodes.left) * columns))
    for begin in range(0, len(nodes.roots), some):
        yield from _walk_from(nodes.roots[begin : begin + some], nodes, columns)


def _walk_from(roots: Indices, nodes: _Nodes, columns: int) -> Iterator[_Paths]:
    shape = len(roots), columns
    paths = _Paths(
        roots,
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
