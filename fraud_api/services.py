"""What the routes work with, made once for each application."""

from dataclasses import dataclass

from starlette.requests import Request

from fraud_api.metrics import Metrics
from fraud_api.observed import Draining
from fraud_api.together import Together
from fraud_api.uploads import Uploads
from fraud_core.holder import ScorerHolder
from fraud_core.settings import Settings


@dataclass(frozen=True)
class Services:
    """The parts of an application."""

    settings: Settings
    holder: ScorerHolder
    metrics: Metrics
    together: Together
    uploads: Uploads
    draining: Draining


def services_of(request: Request) -> Services:
    """The services of the application that a request came to."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services
