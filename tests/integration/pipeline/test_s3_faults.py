"""`fraud pipeline` and its jobs on a real S3 server that refuses, or goes away."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import botocore.auth
import dagster as dg
import pytest

from fraud_cli.instance import open_instance
from fraud_cli.jobs import JobFailedError, Pipeline
from fraud_core.errors import StoreError
from fraud_core.storage import s3
from tests.api_server import eventually
from tests.servers.processes import free_port
from tests.servers.s3_proxy import S3Proxy
from tests.servers.s3_server import BUCKET, SECRET, WEED, S3Server, access_key

pytestmark = [pytest.mark.integration, pytest.mark.skipif(WEED is None, reason="SeaweedFS (weed) is not installed")]

JANUARY = "2024-01"
KEYS = (("FRAUD_CARD_KEY", "c4" * 32), ("FRAUD_SIGNING_KEY", "51" * 32))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    made = S3Server(tmp_path_factory.mktemp("s3"))
    yield made
    made.stop()


@pytest.fixture
def proxy(server: S3Server) -> Iterator[S3Proxy]:
    made = S3Proxy(server.port)
    yield made
    made.close()


@pytest.fixture
def place(empty: Any, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A source whose objects are to lie in the bucket; its commands are quick to give up."""
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return replace(empty, environment=(("FRAUD_STORE", f"s3://{BUCKET}/{empty.folder.name}"), *KEYS))


def given(place: Any, **variables: str) -> Any:
    """The same place under other variables."""
    return replace(place, environment=(*place.environment, *variables.items()))


# ---- before any work is done


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"FRAUD_STORE": "s3://frauds/cards"}, "there is no such bucket; create it, or correct FRAUD_STORE"),
        ({"AWS_ACCESS_KEY_ID": "unknown"}, "the access key is not known there; correct AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key does not fit the access key; correct AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no AWS credentials"),
        ({"AWS_ACCESS_KEY_ID": access_key("reader")}, "these credentials may not do this; give them the rights that docs/s3.md"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:{port}"}, "the S3 endpoint does not answer"),
    ],
    ids=["bucket", "access key", "secret key", "no credentials", "no permission", "endpoint"],
)
def test_what_is_wrong_with_the_store_is_one_sentence_before_any_work(
    place: Any, variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    place.installation().artifacts  # noqa: B018 - claims the store: only the right to write is in question
    port = str(free_port())
    run = given(place, **{name: value.format(port=port) for name, value in variables.items()}).fraud("pipeline")
    assert says in run.refusal
    assert run.err.count("\n") == 1
    assert port not in run.err
    assert SECRET not in run.err
    assert not (place.home / "dagster").exists()


def test_a_clock_that_is_off_is_told_before_any_work(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = botocore.auth.get_current_datetime

    def late(*arguments: Any, **options: Any) -> datetime:
        return now(*arguments, **options) - timedelta(hours=1)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", late)
    assert "this machine's clock is off by more than the server tolerates; set it (NTP)" in place.fraud("pipeline").refusal
    assert not (place.home / "dagster").exists()


def test_no_step_of_a_run_begins_where_the_store_takes_no_writes(place: Any) -> None:
    place.installation().artifacts  # noqa: B018 - claims the store
    installation = given(place, AWS_ACCESS_KEY_ID=access_key("reader")).installation()
    with given(place, AWS_ACCESS_KEY_ID=access_key("reader"))._variables({}):
        pipeline = Pipeline(installation)
        with pytest.raises(JobFailedError, match="these credentials may not do this"):
            pipeline.run("land")
    (run,) = pipeline.instance.get_runs()
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert pipeline.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START) == []
    pipeline.instance.dispose()


# ---- in the middle of work


@pytest.mark.parametrize("fate", ["cut", "kill"])
def test_a_server_that_goes_in_the_middle_of_a_write_loses_nothing_and_leaves_nothing_half(
    place: Any, server: S3Server, proxy: S3Proxy, fate: str, empty: Any
) -> None:
    def strike(method: str, path: str) -> Any:
        if method != "PUT" or f"assets/transformed/{JANUARY}/" not in path or not path.endswith(".parquet"):
            return "pass"
        if fate == "kill" and server.process.poll() is None:
            server.stop()
        return "cut" if fate == "cut" else "refuse"

    proxy.fate = strike
    run = given(place, AWS_ENDPOINT_URL_S3=proxy.url).fraud("pipeline", "--until", JANUARY)
    if fate == "kill":
        server.start()
        eventually(lambda: all_readable(place))
    assert "what was finished is kept" in run.refusal
    assert f"assets/transformed/{JANUARY}/" in run.refusal
    stored = place.stored("assets")
    assert not any(key.startswith("assets/transformed") for key in stored)
    installation = place.installation()
    assert installation.artifacts.scan("raw", JANUARY).collect().height == installation.artifacts.pointer("raw", JANUARY).rows

    again = place.fraud("pipeline", "--until", JANUARY)
    assert again.status == 0, again.err
    after = place.stored("assets")
    assert {key: after[key] for key in stored if "/raw/" in key} == {key: stored[key] for key in stored if "/raw/" in key}
    assert after.keys() == undisturbed(empty)

    told = [run.err, again.err]
    with open_instance(installation.settings) as instance:
        for one in instance.get_runs():
            told += [str(record) for record in instance.all_logs(one.run_id)]
    assert f"s3://{BUCKET}/" in "".join(told)
    for hidden in (SECRET, access_key("admin"), str(server.port), proxy.url.rpartition(":")[2]):
        assert not [text for text in told if hidden in text]


def all_readable(place: Any) -> bool:
    """Whether a server that came back has found all of its data again."""
    try:
        return bool(place.stored())
    except StoreError:
        return False


def undisturbed(empty: Any) -> Any:
    """Keys of what the same command writes into a folder."""
    place = replace(empty, environment=(*KEYS, ("FRAUD_STORE", str(empty.folder / "store"))))
    run = place.fraud("pipeline", "--until", JANUARY)
    assert run.status == 0, run.err
    return place.stored("assets").keys()
