"""Dependencies of the desk's handlers, and who is asking."""

import getpass
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path

from fraud_core.access.users import Role, User, Users
from fraud_core.decisions.log import DecisionLog, Found
from fraud_core.errors import FraudError, IntegrityError
from fraud_core.features.windows import Reach
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.open import open_history
from fraud_core.labels.log import LabelLog
from fraud_core.models.bundle import read_bundle
from fraud_core.models.explain import Explainer
from fraud_core.models.follower import LoadedModel, ModelFollower
from fraud_core.models.scorer import Scorer
from fraud_core.review.claims import Claims
from fraud_core.review.queue import ReviewQueue
from fraud_core.settings import Settings
from fraud_core.signing.keys import card_key, signing_key
from fraud_core.sources.money import RateTable
from fraud_core.storage.artifacts import Artifacts
from fraud_core.storage.database import open_database
from fraud_core.storage.heads import Heads
from fraud_core.storage.open import open_store
from fraud_ui.metrics import DeskMetrics
from fraud_ui.sign_in import NotAllowedError, Visits, present
from fraud_ui.uploads import UserFiles
from fraud_ui.views.files import FileJobs
from fraud_ui.views.models import Catalogue

PAST_PAYMENTS = 10
USUAL_REACH = Reach.of_days(30, 7)  # before the first champion says how far back it looks


class NoModelError(FraudError):
    """There is no champion to score with."""


@dataclass(frozen=True)
class Desk:
    """The parts of one desk.

    Attributes:
        settings: all of it.
        follower: follows the champion.
        lookup: tells what cards and merchants did before; the desk writes nothing there.
        users: None where nobody signs in; whoever reaches the desk is then the user of its process, as a lead.
        visits: who is signed in.
        files: what each user sent, and can take away.
        jobs: the files that are being scored.
    """

    settings: Settings
    follower: ModelFollower
    artifacts: Artifacts
    users: Users | None
    visits: Visits
    files: UserFiles
    jobs: FileJobs
    catalogue: Catalogue
    queue: ReviewQueue
    labels: LabelLog
    lookup: HistoryLookup
    metrics: DeskMetrics

    @classmethod
    def open(cls, settings: Settings, *, signs_in: bool) -> "Desk":
        """The desk of an installation. Nothing is read yet.

        Args:
            signs_in: whether people sign in (see `server.must_sign_in`).
        """
        store = open_store(settings.store_url, settings.home / "cache")
        key, engine = signing_key(settings), open_database(settings)
        labels = LabelLog(engine)
        claims = Claims(engine, timedelta(minutes=settings.review_claim_minutes))
        artifacts = Artifacts(store, key)
        return cls(
            settings=settings,
            follower=ModelFollower(store, key, heads=Heads(engine, store.url), rates=RateTable.of(settings)),
            artifacts=artifacts,
            users=Users(engine) if signs_in else None,
            visits=Visits(),
            files=UserFiles(_folder(settings), settings),
            jobs=FileJobs(settings),
            catalogue=Catalogue(artifacts, settings.dagster_link),
            queue=ReviewQueue(DecisionLog(engine, settings.decision_retention_days), labels, claims, settings.review_capacity),
            labels=labels,
            lookup=HistoryLookup(open_history(settings, USUAL_REACH), card_key(settings)),
            metrics=DeskMetrics(),
        )

    @property
    def folder(self) -> Path:
        """Where what is sent and taken away lies for a while."""
        return _folder(self.settings)

    @cached_property
    def somebody(self) -> User:
        """Who works here where nobody signs in."""
        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            name = "unknown"
        return User(f"unverified:{name}", "lead", "", datetime.now(UTC), None, frozenset())

    def person(self, visit_id: str | None, role: Role) -> User:
        """Who asks, as the database has them now.

        Args:
            visit_id: of whoever signed in.
            role: what is needed; a lead may do all that an analyst may.

        Raises:
            NotSignedInError: nobody is signed in, or no longer: revoked, or with a password that was replaced.
            NotAllowedError: the role is another.
            StoreError: the users cannot be read.
        """
        if self.users is None:
            return self.somebody
        user = present(self.users, self.visits.by_id(visit_id) if visit_id else None)
        if role == "lead" and user.role != "lead":
            raise NotAllowedError("Only a lead may do this; ask one.")
        return user

    def served(self) -> LoadedModel:
        """The model that scores now.

        Raises:
            NoModelError: there is none.
        """
        served = self.follower.served
        if served is None:
            raise NoModelError(
                "There is no model yet, so nothing can be scored. Run the pipeline (`fraud pipeline`, or materialize champion in "
                "Dagster); the desk takes the first champion within seconds, and what you typed is still there."
            )
        return served

    def version(self, version: str) -> LoadedModel | None:
        """A version at work, to explain what it decided; None where the store has it no more, this release cannot run it, or
        there is no champion at all."""
        served = self.follower.served
        if served is None or served.version == version:
            return served
        try:
            scorer, explainer, without_history = self._older(version)
        except IntegrityError:
            return None
        return replace(served, scorer=scorer, explainer=explainer, explainer_without_history=without_history)

    @cached_property
    def _older(self) -> Callable[[str], tuple[Scorer, Explainer, Explainer | None]]:
        @lru_cache(maxsize=4)
        def read(version: str) -> tuple[Scorer, Explainer, Explainer | None]:
            bundle = read_bundle(self.artifacts.store, version, self.artifacts.signing_key)
            plain = bundle.without_history
            scorer = Scorer(bundle)
            told = None if plain is None else Explainer(plain, scorer.declared)
            return scorer, Explainer(bundle, scorer.declared), told

        return read

    def past(self, card: str) -> Found:
        """The last decisions about a card, by its keyed hash, newest payment first."""
        return self.queue.decisions.of_card(card, PAST_PAYMENTS)


def _folder(settings: Settings) -> Path:
    return settings.home / "run" / "desk"
