"""File scoring: uploads spooled to disk within a quota, scored in a process of their own, answered as a stream."""

import asyncio
import csv
import fcntl
import io
import json
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from starlette.requests import ClientDisconnect, Request

from fraud_api.http.problems import Refused
from fraud_core.models.follower import LoadedModel
from fraud_core.scoring.file import COMMAND, CSV_COLUMNS, AnswerFormat, Frame, child_environment, order_bytes
from fraud_core.scoring.file_parsing import FileFormat
from fraud_core.settings import Settings

logger = logging.getLogger(__name__)

BUFFER = 1 << 20
LEAST_RATE = 10_000  # bytes a second, on average, of a file on its way in
LEFT_ALONE_SECONDS = 60  # a spooled file is locked within this time, by the process that writes it


@dataclass
class _Spooled:
    path: Path
    descriptor: int

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class _Running:
    """The scoring of one file.

    Attributes:
        child: the process that scores.
        moved: when the child last gave something, or the caller last took it, on the event loop's clock.
        offered: whether it is the caller's turn, to take what the child gave.
        notes: what was taken for granted of the file.
        ended: why it was ended, if it was.
    """

    def __init__(self, child: asyncio.subprocess.Process, notes: list[str]) -> None:
        self.child, self.notes, self.ended = child, notes, ""
        self.step(offered=True)

    def step(self, *, offered: bool) -> None:
        """Something moved."""
        self.moved, self.offered = asyncio.get_running_loop().time(), offered


class Uploads:
    """Scores files for one process of the API.

    Args:
        settings: limits, and where the spool is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home / "run" / "spool"
        self._free = settings.files_at_once
        self._by_key: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def score(self, request: Request, served: LoadedModel, file: FileFormat, answer: AnswerFormat) -> AsyncIterator[bytes]:
        """Take in the body, open it, and give the answer as a stream, all of it by this one model.

        Raises:
            Refused: there are too many files, or the file as a whole cannot be scored.
        """
        if self._free == 0:
            raise _busy(f"{self._settings.files_at_once} files are being scored already")
        key = request.scope.get("state", {}).get("key_name", "")
        if key and self._by_key[key] >= self._settings.files_per_key:
            raise _busy(f"this key has {self._settings.files_per_key} file(s) being scored already")
        self._free -= 1
        self._by_key[key] += 1
        spooled: _Spooled | None = None
        child: asyncio.subprocess.Process | None = None
        try:
            spooled = await self._spool(request)
            child = await _started()
            first = await self._opened(child, self._order(spooled.path, file, answer, served))
            if first.state != "opened":
                raise Refused(422, "unreadable-file", first.detail or "The file could not be read.", first.errors)
        except BaseException:
            await self._end(key, child, spooled)
            raise
        running = _Running(child, first.notes)
        # The child's end, not the reader's, frees what it holds: a caller who reads no further is cut off by the deadline.
        task = asyncio.create_task(self._watch(key, running, spooled))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _stream(running, served.version, answer)

    def _order(self, path: Path, file: FileFormat, answer: AnswerFormat, served: LoadedModel) -> bytes:
        return order_bytes(path, file, answer, served.scorer.bundle, self._settings, accepts=served.accepts)

    async def _spool(self, request: Request) -> _Spooled:
        await asyncio.to_thread(self._remove_orphans)
        path = self._folder / f"{time.time_ns()}-{token_hex(4)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        spooled = _Spooled(path, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        buffer = bytearray()
        try:
            async for chunk in self._arriving(request):
                buffer += chunk
                if len(buffer) >= BUFFER:
                    await asyncio.to_thread(self._append, descriptor, bytes(buffer))
                    buffer.clear()
            await asyncio.to_thread(self._append, descriptor, bytes(buffer))
        except ClientDisconnect:
            spooled.remove()
            raise Refused(400, "body-cut-off", "The connection ended before the file did; send it again.") from None
        except BaseException:
            spooled.remove()
            raise
        return spooled

    async def _arriving(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it comes in, as long as it does: whoever sends nothing, or next to nothing, holds no place."""
        stream = request.stream()
        loop = asyncio.get_running_loop()
        begun, received = loop.time(), 0
        stall = self._settings.file_stall_seconds
        while True:
            try:
                async with asyncio.timeout_at(begun + stall + received / LEAST_RATE):
                    chunk = await anext(stream, None)
            except TimeoutError:
                detail = f"The file came in more slowly than {LEAST_RATE} bytes a second; send it again."
                raise Refused(408, "body-too-slow", detail, headers={"Connection": "close"}) from None
            if chunk is None:
                return
            received += len(chunk)
            yield chunk

    def _append(self, descriptor: int, data: bytes) -> None:
        if self._taken() + len(data) > self._settings.spool_quota:
            raise _busy("the space for files is used up")
        while data:
            data = data[os.write(descriptor, data) :]

    def _taken(self) -> int:
        total = 0
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):  # another process is done with it
                total += entry.stat().st_size
        return total

    def _remove_orphans(self) -> None:
        """Remove files of processes that were killed: nobody holds their lock."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in os.scandir(self._folder):
            with suppress(OSError):
                if time.time() - entry.stat().st_mtime < LEFT_ALONE_SECONDS:
                    continue
                with Path(entry.path).open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    Path(entry.path).unlink()

    async def _opened(self, child: asyncio.subprocess.Process, order: bytes) -> Frame:
        """Its first answer to the order: reading takes a step at most, and whatever else it does takes moments."""
        assert child.stdin is not None
        seconds = self._settings.file_step_seconds + self._settings.file_stall_seconds
        try:
            async with asyncio.timeout(seconds):
                with suppress(BrokenPipeError, ConnectionResetError):  # it ended early; what it wrote, or did not, tells
                    child.stdin.write(order)
                    await child.stdin.drain()
                child.stdin.close()
                return await _frame(child)
        except TimeoutError:
            logger.warning("the scoring of a file was ended: it did not begin within %g s", seconds)
            detail = f"The scoring of this file did not begin within {seconds:g} s; try again shortly."
            raise Refused(503, "file-scoring", detail, headers={"Retry-After": "60"}) from None

    async def _watch(self, key: str, running: _Running, spooled: _Spooled) -> None:
        """Wait for the child's end, and end it where it takes too long or nobody takes its answer."""
        loop = asyncio.get_running_loop()
        last = loop.time() + self._settings.file_seconds
        stall = self._settings.file_stall_seconds
        try:
            while running.child.returncode is None and not running.ended:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(last, running.moved + stall)):
                        await running.child.wait()
                if loop.time() >= last:
                    running.ended = f"The file was not scored within {self._settings.file_seconds:g} s; split it."
                elif loop.time() >= running.moved + stall:
                    halted = "Nothing of the answer was taken" if running.offered else "The scoring got no further"
                    running.ended = f"{halted} for {stall:g} s; send the rest again."
            if running.ended:
                logger.warning("the scoring of a file was ended: %s", running.ended)
        finally:
            await self._end(key, running.child, spooled)

    async def _end(self, key: str, child: asyncio.subprocess.Process | None, spooled: _Spooled | None) -> None:
        try:
            if child is not None and child.returncode is None:
                child.kill()
                await child.wait()
        finally:
            if spooled is not None:
                spooled.remove()
            self._free += 1
            self._by_key[key] -= 1
            self._by_key += Counter()  # keys without a file are forgotten


async def _stream(running: _Running, version: str, answer: AnswerFormat) -> AsyncIterator[bytes]:
    """The child's answer, and a last record that says whether it is complete, and what became of every line."""
    child = running.child
    assert child.stdout is not None
    last = Frame(state="failed")
    try:
        if answer == "csv":
            yield (",".join(CSV_COLUMNS) + "\n").encode()
        while True:
            frame = await _frame(child)
            if frame.state != "rows":
                break
            data = await child.stdout.readexactly(frame.size)
            last = frame
            running.step(offered=True)
            yield data
            running.step(offered=False)
        if frame.state == "done":
            yield _last_record(frame, version, "", answer, running.notes)
        else:
            detail = frame.detail or running.ended or "The scoring of this file ended early; send the rest again."
            yield _last_record(last, version, detail, answer, running.notes)
    except asyncio.IncompleteReadError:
        detail = running.ended or "The scoring of this file ended early; send the rest again."
        yield _last_record(last, version, detail, answer, running.notes)
    finally:
        if child.returncode is None:
            child.kill()  # the caller went away, or there is nothing more to come


async def _started() -> asyncio.subprocess.Process:
    """A process that waits for its order."""
    return await asyncio.create_subprocess_exec(
        *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=child_environment(), limit=BUFFER
    )


async def _frame(child: asyncio.subprocess.Process) -> Frame:
    assert child.stdout is not None
    line = await child.stdout.readline()
    return Frame.model_validate_json(line) if line.endswith(b"\n") else Frame(state="failed")


def _last_record(last: Frame, version: str, problem: str, answer: AnswerFormat, notes: list[str]) -> bytes:
    record = {
        "rows": last.rows,
        "scored": last.rows - last.refused,
        "refused": last.refused,
        "lines": last.lines,
        "lines_without_payment": last.idle,
        "complete": not problem,
        "model_version": version,
    }
    if answer == "ndjson":
        return (
            json.dumps(record | ({"problem": problem} if problem else {}) | ({"notes": notes} if notes else {})).encode() + b"\n"
        )
    text = io.StringIO()
    state = "complete" if not problem else "incomplete"
    lines = f"{last.lines} lines, {last.idle} of them without a payment"
    summary = "; ".join((f"{last.rows} rows, {last.refused} refused, {lines}, model {version}", *notes))
    csv.writer(text, lineterminator="\n").writerow([state, "", "", "", f"{summary}; {problem}" if problem else summary])
    return text.getvalue().encode()


def _busy(why: str) -> Refused:
    return Refused(429, "too-many-files", f"Not now: {why}. Try again in a minute.", headers={"Retry-After": "60"})
