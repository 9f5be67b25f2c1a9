"""Dependencies of the endpoints, made once for each application."""

from concurrent.futures import Executor
from dataclasses import dataclass

from sqlalchemy import Engine
from starlette.requests import Request

from fraud_api.deciding import Deciding
from fraud_api.http.access_log import Draining
from fraud_api.metrics.registry import Metrics
from fraud_api.newer import NewerChampion
from fraud_api.uploads import Uploads
from fraud_core.decisions.writer import DecisionWriter
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.writer import HistoryWriter
from fraud_core.labels.log import LabelLog
from fraud_core.models.follower import LoadedModel, ModelFollower
from fraud_core.settings import Settings
from fraud_core.transactions.transaction import Transaction


@dataclass(frozen=True)
class Services:
    """The parts of an application."""

    settings: Settings
    follower: ModelFollower
    newer: NewerChampion
    metrics: Metrics
    lookup: HistoryLookup
    deciding: Deciding
    labels: LabelLog
    decisions: DecisionWriter
    history: HistoryWriter
    uploads: Uploads
    batches: Executor  # one thread, for all requests about many payments: single ones share the interpreter with no more
    draining: Draining
    engines: tuple[Engine, ...]  # behind labels, decisions and what was seen of the store

    def payment(self, served: LoadedModel) -> type[Transaction]:
        """The type of the payments that a model is asked about."""
        return served.payment(self.settings.api_unknown_fields)

    def refund(self, served: LoadedModel) -> type[Transaction]:
        """The type of the refunds that are recorded beside them."""
        return served.refund(self.settings.api_unknown_fields)

    @property
    def unrecorded(self) -> str | None:
        """Why payments cannot be recorded at present, and so are not decided; None: they can."""
        return self.history.problem or self.decisions.problem

    def close(self) -> None:
        """Write what was decided, and let go of the stores."""
        self.batches.shutdown(cancel_futures=True)
        self.decisions.close()
        self.history.close()
        self.history.store.close()
        for engine in self.engines:
            engine.dispose()


def services_of(request: Request) -> Services:
    """The services of the application that a request came to."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services
