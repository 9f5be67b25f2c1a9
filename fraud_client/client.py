"""Clients of the scoring API, blocking and async. They repeat what is safe to repeat, within a time that the caller sets."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from fraud_client import calls
from fraud_client.calls import CHUNK, Attempts, Call, FileAnswer
from fraud_client.types import (
    BatchScore,
    Labelled,
    LabelSource,
    Outcome,
    Readiness,
    RowRefusal,
    RowScore,
    Score,
    Transaction,
)

T = TypeVar("T")


class FraudClient:
    """Calls a scoring API. Safe to share between threads; use it as a context manager, or close it.

    Args:
        url: of the API, such as http://127.0.0.1:8000.
        key: the API key, where the API asks for one.
        timeout: seconds to wait for one answer.
        patience: seconds that one call may take in all, repetitions included. 0: nothing is repeated.
        transport: replaces the network, in tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 2.0,
        patience: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=url, headers=calls.headers(key), timeout=timeout, transport=transport)
        self._timeout, self._patience = timeout, patience

    def score(self, transaction: Transaction, *, explain: bool = False) -> Score:
        """Score a payment. Repeated where the connection fails only if the payment has a `transaction_id`.

        Raises:
            RefusedError: something about it is wrong.
            UnavailableError: the API cannot be reached, or has no model.
        """
        return self._result(calls.score(transaction, explain))

    def refund(self, transaction: Transaction) -> str:
        """Record money that came back, under an id of its own, where the source declares refunds; returns the id. Not scored.

        Raises:
            RefusedError: something about it is wrong.
            UnavailableError: the API cannot be reached, or has no model.
        """
        return self._result(calls.refund(transaction))

    def score_batch(self, transactions: Sequence[Transaction]) -> BatchScore:
        """Score up to 10,000 payments; nothing is recorded, so it is repeated where the connection fails.

        Raises:
            RefusedError: the batch as a whole is wrong; a wrong row is among the results instead.
            UnavailableError: the API cannot be reached, or has no model.
        """
        return self._result(calls.score_batch(transactions))

    def score_file(self, path: Path) -> Iterator[RowScore | RowRefusal]:
        """Score a CSV or Parquet file, row by row as the answer comes.

        Raises:
            RefusedError: the file as a whole cannot be scored.
            IncompleteError: the answer ended early.
            UnavailableError: the API cannot be reached, or has no model.
            ValueError: it is neither.
        """
        options = calls.file_options(path, self._http.timeout)
        with path.open("rb") as file:
            content = iter(lambda: file.read(CHUNK), b"")
            try:
                answer = self._http.send(self._http.build_request(**options, content=content), stream=True)
                try:
                    if not answer.is_success:
                        answer.read()
                    calls.require_rows(answer)
                    told = FileAnswer()
                    for line in answer.iter_lines():
                        row = told.row(line)
                        if row is None:
                            return
                        yield row
                    raise told.cut_off()
                finally:
                    answer.close()
            except httpx.TransportError as error:
                raise calls.broke_off(error) from error

    def label(self, transaction_id: str, outcome: Outcome, *, source: LabelSource = "chargeback", note: str = "") -> Labelled:
        """Say what became of a payment, scored here or not. Needs the scope `label`.

        The same word twice changes nothing, so it is repeated where the connection fails.

        Raises:
            RefusedError: something is wrong.
            UnavailableError: the API or its database cannot be reached.
        """
        return self._result(calls.label(transaction_id, outcome, source, note))

    def model(self) -> dict[str, Any]:
        """The model that scores: version, thresholds, partitions, card.

        Raises:
            RefusedError, UnavailableError: as with `score`.
        """
        return self._result(calls.MODEL)

    def models(self) -> dict[str, Any]:
        """All versions, and the changes of champion. Needs the scope `admin`.

        Raises:
            RefusedError, UnavailableError: as with `score`.
        """
        return self._result(calls.MODELS)

    def ready(self) -> Readiness:
        """Whether the API can score now. Never repeated.

        Raises:
            UnavailableError: it cannot be reached.
        """
        try:
            return calls.result_of(calls.READY, self._http.request(calls.READY.method, calls.READY.path))
        except httpx.TransportError as error:
            raise calls.unreachable(error) from error

    def reload(self) -> Readiness:
        """Make the API look for a newer model now. Needs the scope `admin`.

        Raises:
            RefusedError, UnavailableError: as with `score`.
        """
        return self._result(calls.RELOAD)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _result(self, call: Call[T]) -> T:
        """Send a request, and again while that is safe and there is time; what its answer means."""
        attempts = Attempts(call.is_safe, self._timeout, self._patience)
        while True:
            try:
                answer = self._http.request(call.method, call.path, timeout=attempts.timeout, **call.content)
            except httpx.TransportError as error:
                wait: float | None = attempts.after_failure(error)
            else:
                wait = attempts.after_answer(answer)
            if wait is None:
                return calls.result_of(call, answer)
            time.sleep(wait)


class AsyncFraudClient:
    """`FraudClient` for asyncio: the same methods, errors and repetitions, awaited. To be used in one event loop.

    Args:
        url: of the API, such as http://127.0.0.1:8000.
        key: the API key, where the API asks for one.
        timeout: seconds to wait for one answer.
        patience: seconds that one call may take in all, repetitions included. 0: nothing is repeated.
        transport: replaces the network, in tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 2.0,
        patience: float = 5.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers=calls.headers(key), timeout=timeout, transport=transport)
        self._timeout, self._patience = timeout, patience

    async def score(self, transaction: Transaction, *, explain: bool = False) -> Score:
        """See `FraudClient.score`."""
        return await self._result(calls.score(transaction, explain))

    async def refund(self, transaction: Transaction) -> str:
        """See `FraudClient.refund`."""
        return await self._result(calls.refund(transaction))

    async def score_batch(self, transactions: Sequence[Transaction]) -> BatchScore:
        """See `FraudClient.score_batch`."""
        return await self._result(calls.score_batch(transactions))

    async def score_file(self, path: Path) -> AsyncIterator[RowScore | RowRefusal]:
        """See `FraudClient.score_file`. The file is read in a thread, so that a slow disk holds up nothing else."""
        options = calls.file_options(path, self._http.timeout)
        with await asyncio.to_thread(path.open, "rb") as file:

            async def content() -> AsyncIterator[bytes]:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    yield chunk

            try:
                answer = await self._http.send(self._http.build_request(**options, content=content()), stream=True)
                try:
                    if not answer.is_success:
                        await answer.aread()
                    calls.require_rows(answer)
                    told = FileAnswer()
                    async for line in answer.aiter_lines():
                        row = told.row(line)
                        if row is None:
                            return
                        yield row
                    raise told.cut_off()
                finally:
                    await answer.aclose()
            except httpx.TransportError as error:
                raise calls.broke_off(error) from error

    async def label(
        self, transaction_id: str, outcome: Outcome, *, source: LabelSource = "chargeback", note: str = ""
    ) -> Labelled:
        """See `FraudClient.label`."""
        return await self._result(calls.label(transaction_id, outcome, source, note))

    async def model(self) -> dict[str, Any]:
        """See `FraudClient.model`."""
        return await self._result(calls.MODEL)

    async def models(self) -> dict[str, Any]:
        """See `FraudClient.models`."""
        return await self._result(calls.MODELS)

    async def ready(self) -> Readiness:
        """See `FraudClient.ready`."""
        try:
            return calls.result_of(calls.READY, await self._http.request(calls.READY.method, calls.READY.path))
        except httpx.TransportError as error:
            raise calls.unreachable(error) from error

    async def reload(self) -> Readiness:
        """See `FraudClient.reload`."""
        return await self._result(calls.RELOAD)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _result(self, call: Call[T]) -> T:
        """As `FraudClient._result`."""
        attempts = Attempts(call.is_safe, self._timeout, self._patience)
        while True:
            try:
                answer = await self._http.request(call.method, call.path, timeout=attempts.timeout, **call.content)
            except httpx.TransportError as error:
                wait: float | None = attempts.after_failure(error)
            else:
                wait = attempts.after_answer(answer)
            if wait is None:
                return calls.result_of(call, answer)
            await asyncio.sleep(wait)
