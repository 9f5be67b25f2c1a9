"""Files on the desk: each user's own, within a quota, and gone after an hour."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fraud_core.settings import Settings
from fraud_ui.uploads import KEPT_SECONDS, NotTakenError, NotYoursError, UserFiles, paths_in, take_in

Sender = Callable[..., httpx.Response]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    quotas = {"max_upload": 100_000, "ui_upload_quota": 250_000, "ui_upload_files": 3, "spool_quota": 400_000}
    return Settings(_env_file=None, home=tmp_path, **quotas)


@pytest.fixture
def files(tmp_path: Path, settings: Settings) -> UserFiles:
    return UserFiles(tmp_path / "desk", settings)


@pytest.fixture
def send(files: UserFiles) -> Sender:
    """Sends files as a form, as somebody."""

    async def upload(request: Request) -> JSONResponse:
        request.state.visitor = request.headers["visitor"]
        try:
            taken = await take_in(request, files, lambda name, data: None)
        except NotTakenError as error:
            return JSONResponse(str(error), 413)
        return JSONResponse([str(path) for path in taken])

    app = Starlette(routes=[Route("/", upload, methods=["POST"])])

    def post(visitor: str, *contents: bytes, name: str = "sent.csv") -> httpx.Response:
        async def once() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
                form = [("files", (name, content)) for content in contents]
                return await http.post("/", files=form, headers={"visitor": visitor})

        return asyncio.run(once())

    return post


def test_a_file_is_taken_in_as_it_is_and_is_its_senders_alone(send: Sender, files: UserFiles) -> None:
    content = bytes(range(256)) * 300 + b"\r\n--not the boundary\r\n"
    (path,) = send("anna", content).json()
    (same,) = send("bert", content).json()
    assert path != same
    assert files.own("anna", path).read_bytes() == content
    assert Path(path).name == "sent.csv"
    outside = ("/etc/passwd", f"{path}/../../../../secret", "")
    for visitor, asked in (("bert", path), ("anna", same), *(("anna", one) for one in outside)):
        with pytest.raises(NotYoursError):
            files.own(visitor, asked)
    link = Path(path).with_name("link")
    link.symlink_to("/etc/passwd")
    with pytest.raises(NotYoursError):
        files.own("anna", str(link))
    (odd,) = send("anna", b"x", name="../../../etc/passwd").json()
    assert files.own("anna", odd).is_relative_to(files.of("anna").resolve())


def test_the_quota_holds_for_a_file_a_user_and_everybody(send: Sender, files: UserFiles) -> None:
    def refused(visitor: str, size: int, *, told: str) -> None:
        answer = send(visitor, b"x" * size)
        assert answer.status_code == 413
        assert told in answer.json()

    refused("anna", 100_001, told="longer than 100,000 bytes")
    assert [send("anna", b"x" * 90_000).status_code for _ in range(2)] == [200, 200]
    refused("anna", 90_000, told="Your files here would take more than 250,000 bytes")
    assert send("anna", b"x" * 1_000).status_code == 200
    refused("anna", 1, told="You have 3 files here")
    assert [send("bert", b"x" * 90_000).status_code for _ in range(2)] == [200, 200]
    refused("carl", 90_000, told="The space for everybody's files is used up")
    assert send("carl", b"x" * 100).status_code == 200
    left = [path for path in files.of("anna").rglob("*") if path.is_file()]
    assert len(left) == 3  # nothing of what was refused


def test_what_nobody_came_back_for_is_gone_after_an_hour(send: Sender, files: UserFiles) -> None:
    (old,), (new,) = send("anna", b"x").json(), send("bert", b"x").json()
    os.utime(old, (time.time() - KEPT_SECONDS - 1,) * 2)
    files.sweep()
    assert (Path(old).parent.exists(), Path(new).exists()) == (False, True)


def test_every_path_that_a_call_names_is_found_wherever_it_stands() -> None:
    file = {"path": "/a", "meta": {"_type": "gradio.FileData"}}
    assert list(paths_in([1, None, file, [{"x": {"path": "/b"}}], {"path": 5}, "path"])) == ["/a", "/b"]
