"""Files sent for scoring: spooled to disk within a quota, scored in a process of their own, answered as a stream."""

import asyncio
import csv
import fcntl
import io
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from starlette.requests import ClientDisconnect, Request

from fraud_api.problems import Refused
from fraud_core.filescoring import COMMAND, CSV_COLUMNS, AnswerFormat, FileFormat, Frame, child_environment, order_bytes
from fraud_core.holder import Served
from fraud_core.settings import Settings

logger = logging.getLogger(__name__)

BUFFER = 1 << 20
LEFT_ALONE_SECONDS = 60  # a spooled file is locked within this time, by the process that writes it


@dataclass
class _Spooled:
    path: Path
    descriptor: int

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class Uploads:
    """Scores files for one process of the API.

    Args:
        settings: limits, and where the spool is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home / "run" / "spool"
        self._free = settings.files_at_once
        self._tasks: set[asyncio.Task[None]] = set()

    async def score(self, request: Request, served: Served, file: FileFormat, answer: AnswerFormat) -> AsyncIterator[bytes]:
        """Take in the body, open it, and give the answer as a stream, all of it by this one model.

        Raises:
            Refused: there are too many files, or the file as a whole cannot be scored.
        """
        if self._free == 0:
            raise _busy(f"{self._settings.files_at_once} files are being scored already")
        self._free -= 1
        spooled: _Spooled | None = None
        child: asyncio.subprocess.Process | None = None
        try:
            spooled = await self._spool(request)
            child = await self._start(served, spooled.path, file, answer)
            first = await _frame(child)
            if first.state != "opened":
                raise Refused(422, "unreadable-file", first.detail or "The file could not be read.", first.errors)
        except BaseException:
            await self._end(child, spooled)
            raise
        # The child's end, not the reader's, frees what it holds: a caller who reads no further is cut off by the deadline.
        task = asyncio.create_task(self._watch(child, spooled))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _stream(child, served.version, answer)

    async def _spool(self, request: Request) -> _Spooled:
        await asyncio.to_thread(self._remove_orphans)
        path = self._folder / f"{time.time_ns()}-{token_hex(4)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        spooled = _Spooled(path, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        buffer = bytearray()
        try:
            async for chunk in request.stream():
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

    async def _start(self, served: Served, path: Path, file: FileFormat, answer: AnswerFormat) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(),
            limit=BUFFER,
        )
        assert child.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):  # it ended early; what it wrote, or did not, tells
            child.stdin.write(order_bytes(path, file, answer, served.scorer.bundle, self._settings))
            await child.stdin.drain()
        child.stdin.close()
        return child

    async def _watch(self, child: asyncio.subprocess.Process, spooled: _Spooled) -> None:
        try:
            async with asyncio.timeout(self._settings.max_upload_seconds):
                await child.wait()
        except TimeoutError:
            logger.warning("a file was not scored within %g s; its scoring was ended", self._settings.max_upload_seconds)
        finally:
            await self._end(child, spooled)

    async def _end(self, child: asyncio.subprocess.Process | None, spooled: _Spooled | None) -> None:
        try:
            if child is not None and child.returncode is None:
                child.kill()
                await child.wait()
        finally:
            if spooled is not None:
                spooled.remove()
            self._free += 1


async def _stream(child: asyncio.subprocess.Process, version: str, answer: AnswerFormat) -> AsyncIterator[bytes]:
    """The child's answer, and a last record that says whether it is complete."""
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
            yield data
        detail = "" if frame.state == "done" else frame.detail or "The scoring of this file ended early; send the rest again."
        yield _last_record(last, version, detail, answer)
    except asyncio.IncompleteReadError:
        yield _last_record(last, version, "The scoring of this file ended early; send the rest again.", answer)
    finally:
        if child.returncode is None:
            child.kill()  # the caller went away, or there is nothing more to come


async def _frame(child: asyncio.subprocess.Process) -> Frame:
    assert child.stdout is not None
    line = await child.stdout.readline()
    return Frame.model_validate_json(line) if line.endswith(b"\n") else Frame(state="failed")


def _last_record(last: Frame, version: str, problem: str, answer: AnswerFormat) -> bytes:
    record = {"rows": last.rows, "refused": last.refused, "complete": not problem, "model_version": version}
    if answer == "ndjson":
        return json.dumps(record | ({"problem": problem} if problem else {})).encode() + b"\n"
    text = io.StringIO()
    state = "complete" if not problem else "incomplete"
    summary = f"{last.rows} rows, {last.refused} refused, model {version}"
    csv.writer(text, lineterminator="\n").writerow([state, "", "", "", f"{summary}; {problem}" if problem else summary])
    return text.getvalue().encode()


def _busy(why: str) -> Refused:
    return Refused(429, "too-many-files", f"Not now: {why}. Try again in a minute.", headers={"Retry-After": "60"})
