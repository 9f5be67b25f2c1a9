"""File scoring endpoint: CSV or Parquet in, one record a row out, as a stream."""

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from fraud_api.endpoints import openapi
from fraud_api.endpoints.requests import media_type, model_of, operation_id
from fraud_api.http.problems import Refused
from fraud_api.services import services_of

router = APIRouter(generate_unique_id_function=operation_id)


@router.post(
    "/v1/score/file",
    response_class=StreamingResponse,
    tags=["scoring"],
    summary="Score a file",
    responses=openapi.file_answer() | openapi.refusals(400, 406, 408, 413, 415, 422, 503),
    openapi_extra=openapi.FILE_BODY,
)
async def score_file(request: Request) -> StreamingResponse:
    """The decisions on a CSV or Parquet file, whose columns bear the canonical names: one record a row, then one that
    says whether they are all. With `Accept: text/csv` as CSV, else as lines of JSON."""
    services = services_of(request)
    served = model_of(request, services)
    kind = openapi.FILE_TYPES.get(media_type(request))
    if kind is None:
        raise Refused(415, "media-type", f"Send the file as {' or '.join(openapi.FILE_TYPES)}.")
    wanted = openapi.wanted_answer(request.headers.get("accept", ""))
    if wanted is None:
        raise Refused(406, "not-acceptable", f"The answer comes as {' or '.join(openapi.ANSWER_TYPES.values())}.")
    served = await services.newer.than(served) or served  # its columns are judged once, by this one
    request.scope["state"]["model_version"] = served.version
    stream = await services.uploads.score(request, served, kind, wanted)
    return StreamingResponse(stream, media_type=openapi.ANSWER_TYPES[wanted], headers={"X-Model-Version": served.version})
