"""Model follower: polls the pointer to the champion, verifies, and swaps the scorer without a pause.

What is served is one immutable object, replaced by one assignment: whoever took it for a request keeps it to the end, so no
answer mixes two models. Whatever goes wrong on the way to a newer one, the present one stays.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property

import numpy as np

from fraud_core.errors import FraudError, IntegrityError, StoreError
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.models.bundle import read_bundle, read_manifest
from fraud_core.models.explain import Explainer
from fraud_core.models.registry import LATEST, ChampionPointer, latest_of
from fraud_core.models.scorer import Scorer
from fraud_core.signing.keys import Key
from fraud_core.sources.money import RateTable
from fraud_core.storage.heads import Heads, ProcessHeads
from fraud_core.storage.objects import ObjectStore
from fraud_core.transactions.declared_type import Unknown, together, transaction_type
from fraud_core.transactions.transaction import Transaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A champion at work, and the pointer that made it one.

    Attributes:
        before: what the champion before it declared: callers may still send that, or send it again after a rollback.
        rates: by which amounts in other currencies are converted.
    """

    scorer: Scorer
    explainer: Explainer
    latest: ChampionPointer
    loaded_at: datetime
    explainer_without_history: Explainer | None = None
    before: Declared = NOTHING
    rates: RateTable | None = None

    @cached_property
    def accepts(self) -> Declared:
        """The fields that payments may have: its own and those of the champion before it."""
        return together(self.scorer.declared, self.before)

    def payment(self, unknown: Unknown = "refuse") -> type[Transaction]:
        """The type of the payments that it is asked about.

        Args:
            unknown: what becomes of a field that is not among these.
        """
        return transaction_type(self.accepts, self.scorer.zone.key, unknown, self.rates)

    def refund(self, unknown: Unknown = "refuse") -> type[Transaction]:
        """The type of the refunds that are recorded beside them; see `payment`."""
        return transaction_type(self.accepts, self.scorer.zone.key, unknown, self.rates, refunds=True)

    @property
    def version(self) -> str:
        """The version of its bundle."""
        return self.scorer.version

    def explainer_of(self, scorer: Scorer) -> Explainer:
        """The explainer of the scorer, or of the one that does without history."""
        if scorer is self.scorer:
            return self.explainer
        assert self.explainer_without_history is not None
        return self.explainer_without_history


@dataclass(frozen=True)
class Status:
    """How following the pointer goes.

    Attributes:
        served: what scores now; None before the first champion.
        problem: why the newest pointer could not be followed, in a sentence for the operator; None while all is well.
        problem_kind: the error's type, which may be shown to anybody.
        checked_at: when the pointer was last looked at, with or without success.
        failures: how many looks have failed since the start.
    """

    served: LoadedModel | None = None
    problem: str | None = None
    problem_kind: str | None = None
    checked_at: datetime | None = None
    failures: int = 0


class ModelFollower:
    """Holds the scorer of the newest champion. Every method may be called from any thread.

    Args:
        store: where the bundles are.
        signing_key: verifies pointer and manifests.
        listen: told the status after every look, in the thread that looked.
        heads: remembers over restarts which change of the pointer was seen; without, the first look takes what lies there.
        rates: by which amounts in other currencies are converted.
    """

    def __init__(
        self,
        store: ObjectStore,
        signing_key: Key,
        listen: Callable[[Status], None] | None = None,
        heads: Heads | None = None,
        rates: RateTable | None = None,
    ) -> None:
        self.store = store
        self.signing_key = signing_key
        self._listen = listen
        self._rates = rates
        self._pointer = latest_of(store, signing_key, ProcessHeads(heads))
        self._status = Status()
        self._tag: str | None = None
        self._polling = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def served(self) -> LoadedModel | None:
        """What scores now. Take it once a request and use nothing else."""
        return self._status.served

    @property
    def status(self) -> Status:
        """How following the pointer goes."""
        return self._status

    def poll(self) -> Status:
        """Look at the pointer now and follow it. Never raises: a failure is in the status, and what was served stays."""
        with self._polling:
            before = self._status
            now = datetime.now(UTC)
            try:
                served = self._follow()
            except Exception as error:
                # Whatever it is, the answer is the same: keep what works, say so, try again at the next look.
                kind = type(error).__name__
                problem = str(error) if isinstance(error, FraudError) else f"{kind}: {error}"
                self._status = Status(before.served, problem, kind, now, before.failures + 1)
                if problem != before.problem:
                    kept = f"version {before.served.version} goes on serving" if before.served else "there is no model to serve"
                    logger.error("the newest model was not loaded, %s: %s", kept, problem)
            else:
                self._status = Status(served, None, None, now, before.failures)
                if served is not None and served is not before.served:
                    logger.info("serving version %s (change %d of the pointer)", served.version, served.latest.sequence)
                elif before.problem is not None:
                    logger.info("the pointer can be followed again")
            if self._listen is not None:
                self._listen(self._status)
            return self._status

    def start(self, seconds: float, first_within: float = 5.0) -> None:
        """Look at the pointer every so many seconds, in a thread of its own; returns after the first look, or `first_within`."""
        if self._thread is not None:
            raise RuntimeError("The holder follows the pointer already.")
        looked = threading.Event()

        def follow() -> None:
            while not self._stopped.is_set():
                self.poll()
                looked.set()
                self._stopped.wait(seconds)

        self._thread = threading.Thread(target=follow, name="scorer-holder", daemon=True)
        self._thread.start()
        looked.wait(first_within)

    def stop(self) -> None:
        """End the thread; waits for a look that is under way."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> LoadedModel | None:
        """What the pointer asks for: the present one where nothing changed.

        Raises:
            IntegrityError, StoreError: the pointer or its bundle cannot be used.
        """
        current = self._status.served
        try:
            found = self._pointer.changed(self._tag)
        except KeyError:
            if current is None:
                return None
            gone = f"{self.store.uri(LATEST)} is gone; promote a version, or restore the store from its backup."
            raise StoreError(gone) from None
        if found is None or found.document is None:
            return current
        latest = found.document
        if current is not None and (latest.version, latest.manifest_sha256) == (
            current.latest.version,
            current.latest.manifest_sha256,
        ):
            served = replace(current, latest=latest)
        else:
            bundle = read_bundle(self.store, latest.version, self.signing_key, latest.manifest_sha256)
            scorer = Scorer(bundle)
            explainer = warmed_up(scorer)
            plain = None if scorer.without_history is None else warmed_up(scorer.without_history)
            served = LoadedModel(scorer, explainer, latest, datetime.now(UTC), plain, self._before(latest), self._rates)
        self._tag = found.tag
        return served

    def _before(self, latest: ChampionPointer) -> Declared:
        """What the champion before this one declared; nothing where there was none, or its manifest cannot be read any more."""
        versions = [change.version for change in latest.history if change.version != latest.version]
        if not versions:
            return NOTHING
        try:
            return read_manifest(self.store, versions[-1], self.signing_key).learned.declared or NOTHING
        except (IntegrityError, StoreError):
            return NOTHING


def warmed_up(scorer: Scorer) -> Explainer:
    """Score and explain an ordinary transaction and one without any optional field, so that the first caller does not wait.

    Returns:
        The scorer's explainer.

    Raises:
        IntegrityError: what comes out is not a probability.
    """
    missing = float("nan")
    inputs = {
        "timestamp": np.array([time.time_ns() // 1_000] * 2),
        "amount_cents": np.array([4_200, 0]),
        "birth_date": np.array(["1980-02-29", "NaT"], dtype="datetime64[D]"),
        "home_latitude": np.array([47.6, missing]),
        "home_longitude": np.array([-122.3, missing]),
        "merchant_latitude": np.array([47.7, missing]),
        "merchant_longitude": np.array([-122.2, missing]),
        "city_population": np.array([40_000.0, missing]),
        "category": np.array(["grocery_pos", None], dtype=object),
        **{name: np.array([0.0, missing]) for name in scorer.plan.names},
    }
    for column in scorer.declared.columns:
        is_name = column.parser in {"text", "id", "secret"}
        inputs[column.name] = np.array(["x", None], dtype=object) if is_name else np.array([0.0, missing])
    matrix = scorer.matrix(inputs)
    probabilities = scorer.score_matrix(matrix)
    if not bool(np.all((probabilities >= 0) & (probabilities <= 1))):
        raise IntegrityError(f"Version {scorer.version} gives probabilities outside 0 to 1; it is not used.")
    explainer = Explainer(scorer.bundle, scorer.declared)
    explainer.contributions(matrix)
    return explainer
