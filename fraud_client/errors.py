"""Errors of the client: how a call of the scoring API can fail."""

from fraud_client.types import FieldProblem


class FraudApiError(Exception):
    """Base of all failures."""


class RefusedError(FraudApiError):
    """The API refused the request; sending the same again will not help.

    Attributes:
        status: HTTP status.
        kind: kind of problem, for programs.
        errors: every wrong field.
        request_id: names the request in the API's log.
    """

    def __init__(self, status: int, kind: str, detail: str, errors: tuple[FieldProblem, ...], request_id: str) -> None:
        fields = "; ".join(f"{error.field} {error.reason}" for error in errors)
        super().__init__(f"{status}: {detail}{f' ({fields})' if fields else ''} [request {request_id}]")
        self.status, self.kind, self.errors, self.request_id = status, kind, errors, request_id


class UnavailableError(FraudApiError):
    """The API could not be reached, or cannot score now. Decide by your own fallback."""


class IncompleteError(FraudApiError):
    """The answer to a file ended before all rows were scored; `rows` say how many were."""

    def __init__(self, rows: int, problem: str) -> None:
        super().__init__(f"Only {rows} rows were scored: {problem}")
        self.rows = rows
