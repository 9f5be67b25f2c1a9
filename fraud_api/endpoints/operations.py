"""Operation endpoints: health, readiness, reload and metrics."""

import asyncio

from fastapi import APIRouter, Request, Response

from fraud_api.endpoints.requests import operation_id
from fraud_api.schemas import Health, Readiness
from fraud_api.services import services_of
from fraud_core.models.follower import Status

router = APIRouter(generate_unique_id_function=operation_id)

METRICS = "/metrics"


@router.post("/v1/admin/reload", tags=["operation"], summary="Look for a newer champion now")
async def reload(request: Request) -> Readiness:
    """Does what happens every few seconds anyway, in the process that answers; other workers follow within one poll."""
    status = await asyncio.to_thread(services_of(request).follower.poll)
    return readiness_of(status)


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", tags=["operation"], summary="Is the process alive?")
async def healthz() -> Health:
    """Yes."""
    return Health()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    tags=["operation"],
    summary="Can it score?",
    responses={
        503: {"model": Readiness, "description": "There is no model, nothing can be recorded, or the server is about to stop."}
    },
)
async def readyz(request: Request, response: Response) -> Readiness:
    """Whether there is a model, which one, and whether the newest could be loaded."""
    services = services_of(request)
    readiness = readiness_of(
        services.follower.status, stopping=services.draining.active, unrecorded=services.unrecorded is not None
    )
    response.status_code = 200 if readiness.ready else 503
    return readiness


@router.get(METRICS, include_in_schema=False)
def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(services_of(request).metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def readiness_of(status: Status, *, stopping: bool = False, unrecorded: bool = False) -> Readiness:
    """Whether this process can score. A newest model that cannot be loaded does not make it unready: the one before scores."""
    served = status.served
    return Readiness(
        ready=served is not None and not stopping and not unrecorded,
        stopping=stopping,
        model_version=served.version if served else None,
        sequence=served.latest.sequence if served else None,
        checked_at=status.checked_at,
        problem="StoreError" if unrecorded else status.problem_kind,
    )
