"""Dagster's own processes as we start them: what its daemon does by itself and by backfill, and who decides by its web server."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import dagster as dg
import httpx
import pytest
from playwright.sync_api import Page, sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fraud_cli.instance import environment, open_instance
from fraud_core.access.users import Users
from fraud_core.gate import read_verdict
from fraud_core.gate.records import Decision
from fraud_core.storage.database import open_database
from tests.api_server import eventually
from tests.home import DRIFTED, Home
from tests.receiver import Receiver
from tests.servers.processes import free_port, listens
from tests.stores import copy_installation

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "fraud"}
WORKSPACE = "load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}, location_name: fraud}}}}]"
LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
BACKFILL = """mutation Backfill($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
PATIENCE = 240.0  # seconds, on a machine with other work


def launch(action: str, **forged: str) -> dict[str, Any]:
    """What Dagster's own launchpad sends to accept or refuse a partition."""
    config = {"reason": "checked with finance", "who": "cfo"}
    tags = [{"key": key, "value": value} for key, value in {"dagster/partition": DRIFTED, **forged}.items()]
    run_config = {"ops": {action: {"config": config}}}
    selector = {**LOCATION, "jobName": f"{action}_partition"}
    return {"selector": selector, "runConfigData": run_config, "executionMetadata": {"tags": tags}}


class Dagster:
    """Its daemon and a web server over one code server that loads the definitions once. All end at once with the test."""

    def __init__(self, home: Home, logs: Path, stack: ExitStack) -> None:
        self.home, self._logs, self._stack = home, logs, stack
        self._variables = os.environ | home.environment | environment(home.installation.settings)
        open_instance(home.installation.settings).dispose()
        port = free_port()
        self._workspace = logs / "workspace.yaml"
        self._workspace.write_text(WORKSPACE.format(port=port))
        code = ["api", "grpc", "--module-name", "tests.eager_definitions", "--host", "127.0.0.1", "--port", str(port)]
        self._start("code", [BIN / "dagster", *code, "--location-name", "fraud"])
        eventually(lambda: listens(port), seconds=PATIENCE)
        self._start("daemon", [BIN / "dagster-daemon", "run", "--workspace", self._workspace])
        self.open = self.web("open")

    def web(self, name: str, **variables: str) -> str:
        """Start a web server; returns its URL."""
        port = str(free_port())
        options = ["--workspace", self._workspace, "--host", "127.0.0.1", "--port", port]
        self._start(name, [BIN / "fraud", "webserver", "--", *options], **variables)
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(f"{url}/server_info"), seconds=PATIENCE)
        return url

    def mutation(self, query: str, params: dict[str, Any], url: str = "", **options: Any) -> dict[str, Any]:
        """Send one as a program on this machine may; returns what it came to."""
        answer = httpx.post(f"{url or self.open}/graphql", json={"query": query, "variables": {"params": params}}, **options)
        (found,) = answer.json()["data"].values()
        return dict(found)

    def runs(self, *jobs: str) -> list[dg.DagsterRun]:
        """The runs of some jobs."""
        with dg.DagsterInstance.from_config(self._variables["DAGSTER_HOME"]) as instance:
            return [run for run in instance.get_runs() if run.job_name in jobs]

    def decided(self, action: str) -> Decision | None:
        """Who decided what, once the run of it is over."""
        eventually(lambda: all(run.is_finished for run in self.runs(f"{action}_partition")), seconds=PATIENCE)
        assert [run.status for run in self.runs(f"{action}_partition")] == [dg.DagsterRunStatus.SUCCESS]
        artifacts = self.home.installation.artifacts
        verdict = read_verdict(artifacts.store, artifacts.signing_key, DRIFTED)
        assert verdict is not None
        return verdict.overruled_by if action == "accept" else verdict.refused_by

    def _start(self, name: str, command: list[Any], **variables: str) -> None:
        own = self._variables | {"PYTHONPATH": str(ROOT)} | variables
        with (self._logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)
        self._stack.callback(process.wait, 60)
        self._stack.callback(os.killpg, process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def webhook() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def dagster(trained_home: Path, webhook: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    """With a champion, and a last partition that has drifted and was not taken yet. The tests of this file share it."""
    folder = tmp_path_factory.mktemp("dagster")
    copy_installation(trained_home, folder)
    home = Home(folder, {"webhook_url": webhook.url})
    with ExitStack() as stack:
        yield Dagster(home, folder, stack)
    home.close()


@pytest.fixture
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_by_itself_and_by_backfill_a_drifted_partition_is_taken_told_and_trains_nothing(
    dagster: Dagster, webhook: Receiver
) -> None:
    before = dagster.home.latest()
    eventually(lambda: bool(webhook.taken), seconds=PATIENCE)
    asked = {"selector": {"partitionSetName": "run_partition_partition_set", "repositorySelector": LOCATION}}
    begun = dagster.mutation(BACKFILL, asked | {"partitionNames": [DRIFTED]})
    assert begun["__typename"] == "LaunchBackfillSuccess", begun
    eventually(lambda: any(run.is_finished for run in dagster.runs("run_partition")), seconds=PATIENCE)
    assert [run.status for run in dagster.runs("run_partition")] == [dg.DagsterRunStatus.FAILURE]
    assert [run.status for run in dagster.runs("materialize_partition")] == [dg.DagsterRunStatus.FAILURE]
    assert dagster.runs("train") == []
    assert {(message["check"], message["partition"]) for message in webhook.taken} == {("drift", DRIFTED)}
    assert dagster.home.latest() == before


def test_no_page_of_another_site_and_no_typed_name_decides_but_who_signed_in_does(
    dagster: Dagster, page: Page, tmp_path: Path
) -> None:
    # ---- from outside: each is refused, and nothing is queued
    inline = f"mutation {{ launchRun(executionParams: {graphql(launch('accept'))}) {{ __typename }} }}"
    by_get = f"/graphql?query={quote(inline)}"
    evil, own = "http://evil.example", dagster.open.removeprefix("http://")
    with httpx.Client(base_url=dagster.open) as client:
        for method, path, headers, status in (
            ("GET", by_get, {}, 405),
            ("GET", by_get, {"accept": "text/html"}, 405),
            ("HEAD", by_get, {}, 405),
            ("GET", by_get, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
            ("POST", by_get, {"origin": evil}, 403),
            ("POST", by_get, {"origin": "null"}, 403),
            ("POST", by_get, {"origin": "http://127.0.0.1:1"}, 403),
            ("POST", by_get, {"sec-fetch-site": "same-site"}, 403),
            ("POST", by_get, {"host": "evil.example:3000", "origin": "http://evil.example:3000"}, 421),
            ("POST", "/report_asset_check/transformed", {"origin": evil}, 403),
            ("GET", "/", {"host": "evil.example"}, 421),
        ):
            assert client.request(method, path, headers=headers).status_code == status, (method, headers)
        assert client.get("/").headers["x-frame-options"] == "DENY"
        followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert client.get("/runs", headers=followed).status_code == 200, "a link from a chat leads here"
        framed = followed | {"sec-fetch-dest": "iframe"}
        assert client.get("/runs", headers=framed).status_code == 403
    for origin in (evil, "null"):
        with (
            pytest.raises(InvalidStatus, match="403"),
            connect(f"ws://{own}/graphql", origin=origin, subprotocols=["graphql-ws"]),
        ):
            pass
    with connect(f"ws://{own}/graphql", origin=dagster.open, subprotocols=["graphql-ws"]) as socket:  # type: ignore[arg-type,list-item]
        socket.send('{"type": "connection_init"}')
        assert "connection_ack" in str(socket.recv(10))

    # ---- the same by a browser that shows somebody else's page
    attack(page, tmp_path / "elsewhere", dagster.open, by_get)
    assert dagster.runs("accept_partition") == []

    # ---- where people sign in, it is the desk's users of the role `lead`, under their own names
    users = Users(open_database(dagster.home.installation.settings))
    (_, lead), (_, analyst) = users.create("anna", "lead"), users.create("ben", "analyst")
    closed = dagster.web("closed", FRAUD_DAGSTER_AUTH="users")
    for auth in (None, ("anna", "wrong"), ("ben", analyst), ("carl", lead)):
        refused = httpx.get(closed, auth=auth)
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    assert dagster.mutation(LAUNCH, launch("refuse"), closed, auth=("anna", lead))["run"]
    refused_by = dagster.decided("refuse")
    assert refused_by is not None
    assert refused_by.who == "anna", "not the `cfo` that she typed"
    users.revoke("anna")
    eventually(lambda: httpx.get(closed, auth=("anna", lead)).status_code == 401, seconds=20)

    # ---- Dagster's own page works; nobody signed in, so the name that was typed is worth nothing
    page.goto(f"{dagster.open}/jobs")
    page.get_by_text("accept_partition").first.wait_for(timeout=60_000)
    forged = launch("accept", **{"fraud/signed_in": "cfo"})
    body = {"query": LAUNCH, "variables": {"params": forged}}
    sent = "body => fetch('/graphql', {method: 'POST', headers: {'content-type': 'application/json'}, body}).then(r => r.json())"
    assert page.evaluate(sent, httpx.Request("POST", evil, json=body).content.decode())["data"]["launchRun"]["run"]
    accepted = dagster.decided("accept")
    assert accepted is not None
    assert accepted.who == "unverified:cfo"


def attack(page: Page, folder: Path, target: str, by_get: str) -> None:
    """Show a page of another origin that tries a picture, a form, a script and a WebSocket, and wait for what they come to."""
    folder.mkdir()
    (folder / "index.html").write_text(
        f"""<h1>cat pictures</h1><img src="{target}{by_get}"><iframe src="{target}/runs"></iframe>
        <form method="post" enctype="text/plain" action="{target}{by_get}" target="there"></form><iframe name="there"></iframe>
        <script>
        const ended = [fetch("{target}{by_get}", {{method: "POST", mode: "no-cors", body: "x"}}).then(() => 0, () => 0),
            new Promise(done => new WebSocket("{target.replace("http", "ws")}/graphql", "graphql-ws").onerror = done)]
        document.forms[0].submit()
        Promise.all(ended).then(() => document.title = "done")
        </script>"""
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.goto(f"http://localhost:{server.server_port}")
        page.wait_for_function("document.title == 'done' && document.images[0].complete")
        page.wait_for_load_state("networkidle")
    finally:
        server.shutdown()
        server.server_close()


def graphql(value: Any) -> str:
    """A value as GraphQL writes it within a query."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {graphql(one)}" for name, one in value.items()) + "}"
    return '"' + str(value) + '"'


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
