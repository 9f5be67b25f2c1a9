"""The object store, promotion and the scorer on a real S3 server: its faults, and what is left after each."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from fraud_api.schemas import EXAMPLE
from fraud_core.errors import IntegrityError, PromotionError, StoreConflictError, StoreError
from fraud_core.intake.landing import land
from fraud_core.intake.watch import look
from fraud_core.models.bundle import read_bundle
from fraud_core.models.follower import ModelFollower
from fraud_core.models.registry import LATEST, read_latest
from fraud_core.signing.keys import Key, sign
from fraud_core.sources.source import Source
from fraud_core.storage import s3
from fraud_core.storage.artifacts import Artifacts, Estimator
from fraud_core.storage.open import open_store
from fraud_core.storage.s3 import S3Store
from tests.api_server import Servers, eventually, problem_of, version_of
from tests.servers.s3_proxy import S3Proxy
from tests.servers.s3_server import BUCKET, WEED, S3Server
from tests.stores import remove

pytestmark = [pytest.mark.integration, pytest.mark.skipif(WEED is None, reason="SeaweedFS (weed) is not installed")]

DOCS = Path(__file__).parents[2] / "docs"


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
def opened(tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., S3Store]:
    """Opens this test's store: `opened(url=..., who=...)`."""

    def make(url: str = server.url, who: str = "admin") -> S3Store:
        for name, value in (server.environment_of(who) | {"AWS_ENDPOINT_URL_S3": url}).items():
            monkeypatch.setenv(name, value)
        found = open_store(f"s3://{BUCKET}/{tmp_path.name}", tmp_path / "cache")
        assert isinstance(found, S3Store)
        return found

    return make


@pytest.fixture
def store(opened: Callable[..., S3Store]) -> S3Store:
    return opened()


@pytest.fixture
def through(opened: Callable[..., S3Store], proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """The same store by way of the proxy, by somebody who is quick to give up."""
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    return opened(proxy.url)


@pytest.fixture
def promoting(installation: Any, store: S3Store) -> Any:
    """An installation on S3, with a champion."""
    settings = {"store": store.url, "card_key": SecretStr("c4" * 32), "signing_key": SecretStr(installation.key.secret.hex())}
    made = replace(installation, store=store, settings=installation.settings.model_copy(update=settings))
    made.promote(1)
    return made


def objects(store: S3Store) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("")}


# ---- objects


def test_objects_are_written_replaced_listed_and_fetched_once(store: S3Store) -> None:
    for key, data in (("m/b/1", b"one"), ("m/a", b""), ("model/x", b"x"), ("m/b/1", b"two")):
        store.put(key, data)
    assert objects(store) == {"m/a": b"", "m/b/1": b"two", "model/x": b"x"}
    assert list(store.list("m")) == ["m/a", "m/b/1"]
    assert (store.exists("m/b/1"), store.exists("m/b"), store.exists("none")) == (True, False, False)
    assert store.get_tagged("none") is None
    with pytest.raises(KeyError):
        store.get("none")
    named = f"m/{hashlib.sha256(b'rows').hexdigest()[:12]}.parquet"
    store.put(named, b"rows")
    path = store.local_path(named)
    remove(store, named)
    assert store.local_path(named) == path
    assert path.read_bytes() == b"rows"
    remove(store, "m/a")
    assert not store.exists("m/a")


@pytest.mark.parametrize("first", [True, False])
def test_of_racing_writers_one_wins_and_the_others_are_told(store: S3Store, first: bool) -> None:
    if not first:
        store.put("k", b"old")
    found = store.get_tagged("k")
    barrier = threading.Barrier(8)

    def race(number: int) -> int | None:
        barrier.wait()
        try:
            store.put_if("k", f"writer {number}".encode(), None if found is None else found[1])
        except StoreConflictError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        won = [number for number in pool.map(race, range(8)) if number is not None]
    assert [f"writer {number}".encode() for number in won] == [store.get("k")]


def test_a_write_over_an_object_that_is_gone_is_a_conflict(store: S3Store) -> None:
    store.put("k", b"old")
    found = store.get_tagged("k")
    remove(store, "k")
    assert found is not None
    with pytest.raises(StoreConflictError):
        store.put_if("k", b"new", found[1])
    assert not store.exists("k")


def test_a_large_object_goes_up_in_parts_and_comes_back_whole(through: S3Store, proxy: S3Proxy) -> None:
    data = bytes(range(256)) * (s3.LARGE // 256) + b"and a bit"
    through.put("large", data)
    assert len([asked for asked in proxy.asked if "partNumber=" in asked.path]) == 3
    assert through.get("large") == data


def test_of_a_large_object_that_broke_off_nothing_is_seen_and_the_old_one_stays(through: S3Store, proxy: S3Proxy) -> None:
    through.put("large", b"old")
    proxy.fate = lambda method, path: "refuse" if "partNumber=2" in path else "pass"
    with pytest.raises(StoreError, match="does not answer"):
        through.put("large", bytes(s3.LARGE))
    assert objects(through) == {"large": b"old"}
    assert [asked.method for asked in proxy.asked if "uploadId=" in asked.path][-1] == "DELETE"  # what went up is taken away


def test_a_write_whose_answer_was_lost_is_no_conflict_with_itself(through: S3Store, proxy: S3Proxy) -> None:
    proxy.fate = lambda method, path: "pass" if proxy.asked else "lose"
    through.put_if("k", b"mine", None)
    assert [(asked.method, asked.status) for asked in proxy.asked] == [("PUT", None), ("PUT", 412), ("GET", 200)]
    assert through.get("k") == b"mine"


# ---- promotion


def test_an_unchanged_pointer_costs_the_scorer_one_empty_answer(promoting: Any, through: S3Store, proxy: S3Proxy) -> None:
    follower = ModelFollower(through, promoting.key)
    served = follower.poll().served
    proxy.asked.clear()
    assert [follower.poll().served for _ in range(3)] == [served] * 3
    assert [(asked.method, asked.status) for asked in proxy.asked] == [("GET", 304)] * 3
    second = promoting.promote(2)
    followed = follower.poll().served
    assert followed is not None
    assert followed.version == second


def test_a_server_that_goes_between_bundle_and_pointer_leaves_the_old_champion(
    promoting: Any, through: S3Store, proxy: S3Proxy
) -> None:
    follower = ModelFollower(promoting.store, promoting.key)
    first, before = follower.poll().served, promoting.store.get(LATEST)
    proxy.fate = lambda method, path: "refuse" if method == "PUT" and path.endswith(LATEST) else "pass"
    with pytest.raises(StoreError, match=r"latest\.json: the S3 endpoint does not answer .* what was finished is kept"):
        replace(promoting, store=through).promote(2)
    assert promoting.store.get(LATEST) == before
    assert follower.poll().served is first
    assert read_bundle(promoting.store, promoting.bundle(2).version, promoting.key).version == promoting.bundle(2).version

    proxy.fate = lambda method, path: "pass"
    second = replace(promoting, store=through).promote(2)
    assert follower.poll().served.version == second  # type: ignore[union-attr]


@pytest.mark.parametrize("file", ["model.treelite", "encoder.json", "manifest.json"])
def test_a_server_that_goes_in_the_middle_of_a_bundle_leaves_the_old_champion(
    promoting: Any, through: S3Store, proxy: S3Proxy, file: str
) -> None:
    before, version = objects(promoting.store), promoting.bundle(2).version
    proxy.fate = lambda method, path: "cut" if method == "PUT" and path.endswith(f"{version}/{file}") else "pass"
    with pytest.raises(StoreError, match=f"{version}/{file}: the S3 endpoint does not answer"):
        replace(promoting, store=through).promote(2)
    after = objects(promoting.store)
    assert {key: after[key] for key in before} == before
    assert f"models/{version}/{file}" not in after
    assert promoting.promote(2) == version


def test_a_bucket_that_refuses_writes_leaves_the_old_champion_and_says_whose_right_is_missing(
    promoting: Any, server: S3Server
) -> None:
    before = objects(promoting.store)
    denied = f"arn:aws:s3:::{BUCKET}/{promoting.store.prefix}/models/*"
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": denied}
    put_policy(server, {"Version": "2012-10-17", "Statement": [statement]})
    with pytest.raises(StoreError, match=r"these credentials may not do this; .* docs/s3\.md"):
        promoting.promote(2)
    server.client().delete_bucket_policy(Bucket=BUCKET)
    assert objects(promoting.store) == before
    promoting.promote(2)


def test_of_two_promotions_at_once_one_wins_whole(promoting: Any, opened: Callable[..., S3Store], tmp_path: Path) -> None:
    barrier = threading.Barrier(2)

    class Waiting(S3Store):
        def put_if(self, key: str, data: bytes, tag: str | None) -> None:
            if key == LATEST:
                barrier.wait()  # both have read the pointer
            super().put_if(key, data, tag)

    def promote(number: int) -> str:
        store = opened()
        own = Waiting(store.bucket, store.prefix, tmp_path / str(number), store.client)
        try:
            return str(replace(promoting, store=own).promote(number))
        except PromotionError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(promote, (2, 3)))
    lost = "Another promotion or rollback moved the pointer at the same moment; look and try again."
    assert told.count(lost) == 1
    won = [version for version in told if version != lost]
    latest = read_latest(promoting.store, promoting.key)
    assert latest is not None
    assert [latest.version] == won
    assert [change.version for change in latest.history] == [promoting.bundle(1).version, *won]
    assert ModelFollower(promoting.store, promoting.key).poll().served.version == won[0]  # type: ignore[union-attr]


# ---- who may do what


def put_policy(server: S3Server, policy: dict[str, Any]) -> None:
    """Put a policy on the bucket, and wait until the server goes by it."""
    client = server.client()
    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    eventually(lambda: json.loads(client.get_bucket_policy(Bucket=BUCKET)["Policy"]) == policy)


@pytest.fixture
def documented(server: S3Server, store: S3Store) -> Iterator[None]:
    """The bucket has the policy that docs/s3.md prints."""
    text = (DOCS / "s3.md").read_text()
    printed = re.search(r"<!-- policy -->\n```json\n(.*?)```", text, re.DOTALL)
    assert printed is not None
    policy = printed[1].replace("BUCKET", BUCKET).replace("PREFIX", store.prefix)
    policy = re.sub(r"ACCOUNT:role/fraud-(\w+)", r"000000000000:user/\1", policy)  # this server knows no roles
    put_policy(server, json.loads(policy))
    scorer = server.client("scorer")
    eventually(lambda: is_allowed(lambda: scorer.list_objects_v2(Bucket=BUCKET, Prefix=f"{store.prefix}/models/")))
    yield
    server.client().delete_bucket_policy(Bucket=BUCKET)


def elsewhere(store: S3Store) -> S3Store:
    """Another prefix of the same bucket, with the same rights."""
    return S3Store(store.bucket, "elsewhere", Path(), store.client)


def is_allowed(act: Callable[[], object]) -> bool:
    try:
        act()
    except ClientError:
        return False
    return True


@pytest.mark.usefixtures("documented")
def test_with_the_documented_policy_the_pipeline_writes_and_the_scorer_reads_models_alone(
    installation: Any, opened: Callable[..., S3Store]
) -> None:
    scorer = opened(who="scorer")
    follower = ModelFollower(scorer, installation.key)
    assert (follower.poll().served, follower.status.problem) == (None, None)

    pipeline = opened(who="pipeline")
    artifacts = Artifacts(pipeline, installation.key)
    artifacts.claim("test")
    artifacts.check_writable()
    artifacts.write("preprocessor", None, Estimator(fitted=[1], inputs="i"))
    pipeline.put("assets/large", bytes(s3.LARGE))
    assert artifacts.estimator("preprocessor") == [1]
    version = replace(installation, store=pipeline).promote(1)
    assert follower.poll().served.version == version  # type: ignore[union-attr]

    for refused in (
        lambda: elsewhere(pipeline).put("k", b""),
        lambda: remove(pipeline, LATEST),
        lambda: scorer.get("assets/preprocessor/latest.json"),
        lambda: list(scorer.list("assets")),
        lambda: scorer.put(LATEST, b"{}"),
        lambda: scorer.put_if(f"models/{version}/other.json", b"{}", None),
    ):
        with pytest.raises((StoreError, ClientError), match=r"these credentials may not do this|AccessDenied"):
            refused()


class Trap:
    """An object whose unpickling runs code."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("bytes that nobody signed were executed",)


@pytest.mark.parametrize("forged", ["file", "file and pointer", "pointer to another file"])
def test_who_can_write_the_bucket_cannot_run_code_in_the_pipeline(store: S3Store, forged: str) -> None:
    ours, theirs = Artifacts(store, Key(b"k" * 32)), Artifacts(store, Key(b"t" * 32))
    pointer = ours.write("model", None, Estimator(fitted=[1], inputs="i"))
    honest = store.get("assets/model/latest.json")
    trap = theirs.write("model", None, Estimator(fitted=Trap(), inputs="i"))
    match forged:
        case "file":
            store.put(pointer.key, store.get(trap.key))
            store.put("assets/model/latest.json", honest)
        case "pointer to another file":
            document = json.loads(honest) | {"key": trap.key, "sha256": trap.sha256}
            store.put("assets/model/latest.json", json.dumps(document).encode())
        case _:
            assert sign(trap.model_dump(), theirs.signing_key) == json.loads(store.get("assets/model/latest.json"))
    with pytest.raises(IntegrityError):
        ours.estimator("model")


# ---- the scorer


def test_the_scorer_starts_without_the_store_says_so_and_outlives_it(promoting: Any, servers: Servers, server: S3Server) -> None:
    version = promoting.promote(2)
    server.stop()
    api = servers.start(promoting.settings)
    refused = httpx.post(f"{api.url}/v1/score", json=EXAMPLE)
    assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
    eventually(lambda: problem_of(api.url) == "StoreError")
    server.start()
    eventually(lambda: version_of(api.url) == version)
    server.stop()
    eventually(lambda: problem_of(api.url) == "StoreError")
    assert httpx.post(f"{api.url}/v1/score", json=EXAMPLE).json()["model_version"] == version
    server.start()
    eventually(lambda: problem_of(api.url) is None)
    assert api.log.read_text().count("the S3 endpoint does not answer (EndpointConnectionError); see that it runs") == 2


def test_on_a_store_that_takes_its_time_with_each_request_promotion_and_scorer_come_through(
    promoting: Any, through: S3Store, proxy: S3Proxy, servers: Servers
) -> None:
    proxy.delay = 0.5
    with ThreadPoolExecutor(1) as pool:
        promotion = pool.submit(replace(promoting, store=through).promote, 2)
        api = servers.start(promoting.settings)  # it is told of the proxy by the AWS variables
        second = promotion.result()
    eventually(lambda: version_of(api.url) == second)
    assert problem_of(api.url) is None


def test_a_source_in_a_bucket_is_read_by_a_pattern_through_its_folders(store: S3Store, server: S3Server, tmp_path: Path) -> None:
    """Such as Spark leaves it, with a column in the names of the folders and names that are patterns by chance."""
    for number, key in enumerate(
        ("2024/kind=fuel/a.csv", "2024/kind=gas%20station/b [1].csv", "2025/kind=x/c #2.csv", "_SUCCESS")
    ):
        body = f"when,sum,id\n2024-03-05 10:20:30,12.34,t{number}\n"
        server.client().put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/in/{key}", Body=body.encode())
    columns = {"transaction_id": "id", "timestamp": {"column": "when", "formats": ["%Y-%m-%d %H:%M:%S"]}, "amount": "sum"}

    def kinds(pattern: str) -> list[str]:
        source = Source.model_validate(
            {"name": "bucket", "paths": [f"s3://{BUCKET}/{tmp_path.name}/in/{pattern}"], "cadence": "monthly", "first": "2024-01"}
            | {"label_delay_days": 7, "columns": columns | {"category": "kind"}}
        )
        landing = land(source, store, Key(b"c" * 32), None)
        assert [seen.name for seen in look(source)] == sorted(landing.files)
        return sorted(kind for one in landing.segments("2024-03") for kind in one.read(store)["category"])

    assert kinds("**/*.csv") == ["fuel", "gas station", "x"]
    assert kinds("2024/*/*.csv") == ["fuel", "gas station"]
    assert kinds("2024/kind=gas%20station/b [1].csv") == ["gas station"]
