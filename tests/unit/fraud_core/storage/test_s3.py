"""What is asked of an S3 server, and what its answers mean. How a real one takes it, the integration tests show."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import (
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    SSLError,
)
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from fraud_core.errors import IntegrityError, SettingsError, StoreConflictError, StoreError
from fraud_core.storage import s3
from fraud_core.storage.s3 import S3Store, s3_client


@pytest.fixture(autouse=True)
def no_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own AWS settings."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def stubbed(tmp_path: Path) -> Iterator[tuple[S3Store, Stubber]]:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s")
    with Stubber(client) as stub:
        yield S3Store("b", "p", tmp_path / "cache", client), stub
        stub.assert_no_pending_responses()


def body(data: bytes) -> dict[str, Any]:
    return {"Body": StreamingBody(io.BytesIO(data), len(data)), "ETag": '"tag"'}


# ---- what is asked


def test_conditional_writes_ask_the_server_for_the_condition(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stub = stubbed
    stub.add_response("put_object", {}, {"Bucket": "b", "Key": "p/k", "Body": b"x", "IfNoneMatch": "*"})
    stub.add_response("put_object", {}, {"Bucket": "b", "Key": "p/k", "Body": b"x", "IfMatch": '"tag"'})
    store.put_if("k", b"x", None)
    store.put_if("k", b"x", '"tag"')


def test_a_look_for_changes_asks_the_server_for_the_condition(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stub = stubbed
    stub.add_client_error(
        "get_object", "304", http_status_code=304, expected_params={"Bucket": "b", "Key": "p/k", "IfNoneMatch": '"old"'}
    )
    stub.add_response("get_object", body(b"new"), {"Bucket": "b", "Key": "p/k", "IfNoneMatch": '"old"'})
    assert store.get_changed("k", '"old"') is None
    assert store.get_changed("k", '"old"') == (b"new", '"tag"')


@pytest.mark.parametrize(("prefix", "asked"), [("m", "p/m/"), ("m/", "p/m/"), ("", "p/")])
def test_keys_are_listed_without_the_prefix_of_the_store(stubbed: tuple[S3Store, Stubber], prefix: str, asked: str) -> None:
    store, stub = stubbed
    stub.add_response("list_objects_v2", {"Contents": [{"Key": "p/m/a"}, {"Key": "p/m/b/c"}]}, {"Bucket": "b", "Prefix": asked})
    assert list(store.list(prefix)) == ["m/a", "m/b/c"]


@pytest.mark.parametrize(("there", "exists"), [(["p/k"], True), (["p/key"], False), ([], False)])
def test_an_object_whose_key_only_begins_alike_is_another(
    stubbed: tuple[S3Store, Stubber], there: list[str], exists: bool
) -> None:
    store, stub = stubbed
    asked = {"Bucket": "b", "Prefix": "p/k", "MaxKeys": ANY}
    stub.add_response("list_objects_v2", {"Contents": [{"Key": key} for key in there]}, asked)
    assert store.exists("k") is exists


def test_a_local_copy_is_fetched_once(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stub = stubbed
    key = f"a/{hashlib.sha256(b'rows').hexdigest()[:12]}.parquet"
    stub.add_response("get_object", body(b"rows"), {"Bucket": "b", "Key": f"p/{key}"})
    path = store.local_path(key)
    assert path.name == Path(key).name
    assert store.local_path(key).read_bytes() == b"rows"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_local_copy_that_was_damaged_is_not_read_but_fetched_again(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stub = stubbed
    sha256 = hashlib.sha256(b"rows").hexdigest()
    for _ in range(2):
        stub.add_response("get_object", body(b"rows"))
    assert store.get_hashed("a/rows", sha256) == b"rows"
    (copy,) = (path for path in store._copies.root.rglob("rows") if path.is_file())
    copy.write_bytes(b"ROWS")
    assert store.get_hashed("a/rows", sha256) == b"rows"
    assert copy.read_bytes() == b"rows"


def test_a_fetched_object_that_is_not_what_it_is_named_by_is_not_used(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stub = stubbed
    key = f"a/{hashlib.sha256(b'rows').hexdigest()[:12]}.parquet"
    stub.add_response("get_object", body(b"other rows"))
    stub.add_response("get_object", body(b"rows"))
    with pytest.raises(IntegrityError, match="is not the file that was written"):
        store.local_path(key)
    assert store.local_path(key).read_bytes() == b"rows"


# ---- what the answers mean


@pytest.mark.parametrize(
    ("code", "status"), [("PreconditionFailed", 412), ("ConditionalRequestConflict", 409), ("NoSuchKey", 404), ("412", 412)]
)
def test_a_condition_that_does_not_hold_is_a_conflict_the_object_being_gone_included(
    stubbed: tuple[S3Store, Stubber], code: str, status: int
) -> None:
    store, stub = stubbed
    stub.add_client_error("put_object", code, http_status_code=status)
    with pytest.raises(StoreConflictError, match="s3://b/p/k was written by somebody else"):
        store.put_if("k", b"x", '"tag"')


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDenied", "these credentials may not do this"),
        ("NoSuchBucket", "there is no such bucket"),
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("RequestTimeTooSkewed", "this machine's clock is off"),
        ("ExpiredToken", "sign in again"),
        ("PermanentRedirect", "AWS_DEFAULT_REGION"),
        ("SlowDown", "the S3 server answers SlowDown; try again later"),
    ],
)
def test_an_answer_that_refuses_says_what_to_do(stubbed: tuple[S3Store, Stubber], code: str, says: str) -> None:
    store, stub = stubbed
    for operation, act in (
        ("get_object", lambda: store.get("k")),
        ("put_object", lambda: store.put("k", b"")),
        ("put_object", lambda: store.put_if("k", b"", None)),
        ("list_objects_v2", lambda: list(store.list("k"))),
    ):
        stub.add_client_error(operation, code)
        if operation == "get_object" and code == "AccessDenied":
            stub.add_client_error("list_objects_v2", code)
        with pytest.raises(StoreError, match=f"s3://b/p/k: .*{says}"):
            act()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            EndpointConnectionError(endpoint_url="http://nowhere"),
            "does not answer .EndpointConnectionError.*what was finished is kept",
        ),
        (ConnectTimeoutError(endpoint_url="http://nowhere"), "does not answer .ConnectTimeoutError"),
        (NoCredentialsError(), "there are no AWS credentials"),
        (CredentialRetrievalError(provider="p", error_msg="e"), "there are no AWS credentials"),
        (SSLError(endpoint_url="http://nowhere", error="e"), "AWS_CA_BUNDLE"),
    ],
)
def test_a_request_without_an_answer_says_what_to_do(tmp_path: Path, error: Exception, says: str) -> None:
    class Unanswered:
        def get_object(self, **asked: str) -> None:
            raise error

    with pytest.raises(StoreError, match=f"s3://b/k: .*{says}"):
        S3Store("b", "", tmp_path, Unanswered()).get("k")


def test_a_bucket_by_a_name_that_s3_does_not_take_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="correct FRAUD_STORE"):
        S3Store("not a bucket", "", tmp_path, s3_client()).get("k")


def test_an_object_that_is_not_there_is_a_key_error(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stub = stubbed
    for _ in range(4):
        stub.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    assert store.get_tagged("k") is None
    for look in (store.get, store.local_path, lambda key: store.get_changed(key, None)):
        with pytest.raises(KeyError):
            look("k")


def test_who_may_list_a_folder_only_learns_there_that_nothing_is_there(stubbed: tuple[S3Store, Stubber]) -> None:
    """AWS tells him that he may not read the object, there or not."""
    store, stub = stubbed
    for contents in ([], [{"Key": "p/k"}]):
        stub.add_client_error("get_object", "AccessDenied", http_status_code=403)
        stub.add_response("list_objects_v2", {"Contents": contents})
    assert store.get_tagged("k") is None
    with pytest.raises(StoreError, match="may not do this"):
        store.get_tagged("k")


def test_an_answer_that_breaks_off_is_asked_for_again_and_not_for_ever(
    stubbed: tuple[S3Store, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stub = stubbed
    paused: list[float] = []
    monkeypatch.setattr(s3.time, "sleep", paused.append)
    torn = {"Body": StreamingBody(io.BytesIO(b"hal"), 4), "ETag": '"tag"'}
    for answer in (torn, torn, body(b"half")):
        stub.add_response("get_object", answer)
    assert store.get("k") == b"half"
    for _ in range(s3.ATTEMPTS):
        stub.add_response("get_object", {"Body": StreamingBody(io.BytesIO(b"hal"), 4), "ETag": '"tag"'})
    with pytest.raises(StoreError, match="IncompleteReadError"):
        store.get("k")
    assert len(paused) == 2 + s3.ATTEMPTS - 1
    assert sum(paused) < 10


# ---- the client


def test_the_client_waits_for_a_bounded_time_and_tries_a_bounded_number_of_times() -> None:
    config = s3_client().meta.config
    assert (config.connect_timeout, config.read_timeout) == (s3.CONNECT_SECONDS, s3.READ_SECONDS)
    assert config.retries == {"mode": "standard", "total_max_attempts": s3.ATTEMPTS}


def test_a_server_of_ones_own_is_known_by_one_name_for_all_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not (s3_client().meta.config.s3 or {}).get("addressing_style")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://objects:8333")
    client = s3_client()
    assert client.meta.endpoint_url == "http://objects:8333"
    assert client.meta.config.s3["addressing_style"] == "path"


@pytest.mark.parametrize(("name", "value"), [("AWS_PROFILE", "nobody"), ("AWS_ENDPOINT_URL_S3", "objects:8333")])
def test_aws_variables_that_cannot_be_used_are_told(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="The AWS variables or the AWS profile cannot be used"):
        s3_client()
