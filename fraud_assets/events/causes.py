"""What caused a failed step: the sentence of our own error behind it, and whether it was a blocking check."""

from collections.abc import Iterator
from typing import Any

from fraud_core.errors import FraudError


def is_failed_check(error: Any) -> bool:
    """Whether a step ended because a blocking check did not pass. The check's evaluation tells why."""
    return error is not None and error.cls_name == "DagsterAssetCheckFailedError"


def own_sentence(error: Any) -> str | None:
    """The sentence of the first of our own errors in a chain of causes (`SerializableErrorInfo`); None where there is none."""
    ours = _names(FraudError)
    return next((_without_name(each) for each in chain(error) if each.cls_name in ours), None)


def chain(error: Any) -> Iterator[Any]:
    """An error and what it was raised from, as far as a blocking check's end."""
    while error is not None and not is_failed_check(error):
        yield error
        error = error.cause


def _without_name(error: Any) -> str:
    return str(error.message).split(":", 1)[-1].strip()


def _names(kind: type[FraudError]) -> set[str]:
    return {kind.__name__}.union(*(_names(sub) for sub in kind.__subclasses__()))
