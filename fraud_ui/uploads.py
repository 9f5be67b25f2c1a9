"""Files that users of the desk send and take away: each sees their own alone, within a quota, and for an hour.

Gradio keeps what is sent under the hash of its content, in one folder for all, and gives it to whoever knows the path. So its two
routes for files are replaced by these.
"""

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import IO, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from fraud_core.errors import FraudError
from fraud_core.settings import Settings
from fraud_ui.sign_in import UPLOAD

KEPT_SECONDS = 3_600.0
BUFFER = 1 << 20  # bytes between two looks at the quota
FILES_IN_A_FORM = 10


class NotTakenError(FraudError):
    """A file was not taken in: it is too long, or the quota is used up."""


class NotYoursError(FraudError):
    """The file is somebody else's, or is gone."""


class UserFiles:
    """The files of each user, in a folder of their own: those that were sent, and those made to be taken away.

    Args:
        folder: of all of them.
        settings: how long a file may be, and how much all files may take.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._settings = settings

    def of(self, user: str) -> Path:
        """The folder of a user; its name tells neither who it is nor, by itself, opens anything."""
        return self._folder / hashlib.sha256(user.encode()).hexdigest()[:32]

    def own(self, user: str, path: str) -> Path:
        """A file of this user's.

        Raises:
            NotYoursError: there is none at this path.
        """
        with suppress(OSError, ValueError):
            found = Path(path).resolve(strict=True)
            if found.is_file() and found.is_relative_to(self.of(user).resolve()):
                return found
        raise NotYoursError("There is no such file of yours; it is kept for an hour at most. Choose it again.")

    def new(self, user: str, name: str) -> Path:
        """Where a file of this name can be sent to, under a folder that nobody can guess.

        Raises:
            NotTakenError: the user has too many already.
        """
        self.sweep()
        sent = self.of(user) / "sent"
        if len(list(_files_in(sent))) >= self._settings.ui_upload_files:
            raise NotTakenError(
                f"You have {self._settings.ui_upload_files} files here that were not scored yet; score or remove them first. "
                "Each is removed after an hour."
            )
        return self._made(sent, re.sub(r"[^\w.() -]", "_", Path(name).name)[-100:].strip(" .") or "file")

    def to_take_away(self, user: str, name: str) -> Path:
        """Where a file that is made for this user can be written."""
        return self._made(self.of(user) / "made", name)

    def see_room(self, user: str, file: int, more: int) -> None:
        """See that a file of so many bytes may grow by so many more.

        Raises:
            NotTakenError: it would be too long, or the user's or everybody's files would.
        """
        settings = self._settings
        if file + more > settings.max_upload:
            raise NotTakenError(f"The file is longer than {settings.max_upload:,} bytes; split it.")
        if _bytes_in(self.of(user)) + more > settings.ui_upload_quota:
            raise NotTakenError(
                f"Your files here would take more than {settings.ui_upload_quota:,} bytes. Score what you sent; each file is "
                "removed after an hour."
            )
        if _bytes_in(self._folder) + more > settings.spool_quota:
            raise NotTakenError("The space for everybody's files is used up; try again in a few minutes.")

    def sweep(self, now: float | None = None) -> None:
        """Remove what is older than an hour. A job goes on reading a file that it has open."""
        oldest = (time.time() if now is None else now) - KEPT_SECONDS
        for file in list(_files_in(self._folder)):
            with suppress(OSError):
                if file.lstat().st_mtime < oldest:
                    remove(file)

    @staticmethod
    def _made(folder: Path, name: str) -> Path:
        place = folder / secrets.token_urlsafe(24)
        place.mkdir(parents=True, mode=0o700)
        return place / name


def remove(path: Path) -> None:
    """Remove a file, and the folder that was made for it."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # something else lies there
        path.parent.rmdir()


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in _files_in(folder):
        with suppress(FileNotFoundError):  # it was removed meanwhile
            total += file.lstat().st_size
    return total


def _files_in(folder: Path) -> Iterator[Path]:
    """All files, however deep. Unlike a glob, the walk goes on where a folder is removed meanwhile."""
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


# --- the two routes -------------------------------------------------------------------------------------------------------------


def add_file_routes(app: FastAPI, files: UserFiles, settings: Settings) -> None:
    """Put our routes for files before Gradio's. `request.state.visitor` is who calls (see `sign_in.Door`)."""
    from gradio.routes import file_upload_statuses  # noqa: PLC0415 - it reads the environment when it is imported

    @app.post(UPLOAD)
    async def upload(request: Request, upload_id: str | None = None) -> Response:
        def progress(name: str, data: bytes) -> None:
            if upload_id is not None:
                file_upload_statuses.append(upload_id, name, data)

        if upload_id is not None:
            file_upload_statuses.track(upload_id)
        try:
            async with asyncio.timeout(settings.max_upload_seconds):
                taken = await take_in(request, files, progress)
        except (NotTakenError, FormParserError) as error:
            told = str(error) if isinstance(error, NotTakenError) else "This is not a form with files."
            return PlainTextResponse(told, 413 if isinstance(error, NotTakenError) else 400)
        except TimeoutError:
            return PlainTextResponse(f"The file did not arrive within {settings.max_upload_seconds:g} s.", 408)
        except ClientDisconnect:
            return PlainTextResponse("The connection ended before the file did.", 400)
        finally:
            if upload_id is not None:
                file_upload_statuses.set_done(upload_id)
        return JSONResponse([str(path) for path in taken])

    @app.api_route("/gradio_api/file={path:path}", methods=["GET", "HEAD"])
    @app.api_route("/gradio_api/file/{path:path}", methods=["GET", "HEAD"])
    def take_away(request: Request, path: str) -> FileResponse:
        try:
            found = files.own(request.state.visitor, path)
        except NotYoursError as error:
            raise HTTPException(403, str(error)) from None
        return FileResponse(found, media_type="application/octet-stream", filename=found.name)


async def take_in(request: Request, files: UserFiles, progress: Callable[[str, bytes], None]) -> list[Path]:
    """Write the files of a form as they come.

    Raises:
        NotTakenError: one is too long, or the quota is used up; nothing is kept.
        FormParserError: it is no such form; nothing is kept.
        ClientDisconnect: it ended too early; nothing is kept.
    """
    form = Form(request.headers.get("content-type", ""), files, request.state.visitor)
    try:
        async for chunk in request.stream():
            for name, data in await run_in_threadpool(form.feed, chunk):
                progress(name, data)
        form.finalize()
    except BaseException:
        form.drop()
        raise
    return form.paths


class Form:
    """A form with files (RFC 7578), written to the user's folder as it comes. Fields that are no file are passed over."""

    def __init__(self, content_type: str, files: UserFiles, user: str) -> None:
        header = Message()
        header["content-type"] = content_type
        boundary = header.get_param("boundary")
        if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
            raise FormParserError("not multipart/form-data")
        self.paths: list[Path] = []
        self._files, self._user = files, user
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._field,
                "on_header_value": self._value,
                "on_header_end": self._header_ended,
                "on_headers_finished": self._begin,
                "on_part_data": self._data,
                "on_part_end": self._end,
            },
        )
        self._name, self._said = b"", b""
        self._disposition = b""
        self._open: IO[bytes] | None = None
        self._buffer = bytearray()
        self._came: list[tuple[str, bytes]] = []

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """Parse and write what came; gives the file name and the bytes of each piece of a file."""
        self._parser.write(chunk)
        if len(self._buffer) >= BUFFER:
            self._flush()
        came, self._came = self._came, []
        return came

    def finalize(self) -> None:
        """The form must be complete now."""
        self._parser.finalize()
        if self._open is not None:
            raise FormParserError("the last part is not complete")

    def drop(self) -> None:
        """Remove everything."""
        if self._open is not None:
            self._open.close()
        for path in self.paths:
            remove(path)

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._said += data[start:end]

    def _header_ended(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._said
        self._name, self._said = b"", b""

    def _begin(self) -> None:
        header = Message()
        header["content-disposition"] = self._disposition.decode("utf-8", "replace")
        name, self._disposition = header.get_filename(), b""
        if name is None:
            return
        if len(self.paths) == FILES_IN_A_FORM:
            raise NotTakenError(f"At most {FILES_IN_A_FORM} files can be sent at a time.")
        path = self._files.new(self._user, name)
        self.paths.append(path)
        self._open = path.open("xb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._open is not None:
            self._buffer += data[start:end]
            self._came.append((self.paths[-1].name, bytes(data[start:end])))

    def _end(self) -> None:
        if self._open is not None:
            self._flush()
            self._open.close()
            self._open = None

    def _flush(self) -> None:
        assert self._open is not None
        self._files.see_room(self._user, self._open.tell(), len(self._buffer))
        self._open.write(self._buffer)
        self._open.flush()
        self._buffer.clear()


def paths_in(values: Any) -> Iterator[str]:
    """The paths of all files that a request names, wherever they stand in its values."""
    if isinstance(values, dict):
        if isinstance(values.get("path"), str):
            yield values["path"]
        for value in values.values():
            yield from paths_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from paths_in(value)
