"""The object store in an S3 bucket: AWS, or any server that speaks its protocol. Imported only where the store's URL says s3.

Endpoint, region and credentials come from the standard AWS variables, profiles and roles, and are kept nowhere.
"""

import hashlib
import io
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)

from fraud_core.errors import IntegrityError, SettingsError, StoreConflictError, StoreError
from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.objects import checked

CONNECT_SECONDS = 5
READ_SECONDS = 30
ATTEMPTS = 4  # of each request, with a pause between them that doubles and is drawn at random: a few seconds in all
LARGE = 32 * 2**20  # bytes from which an object goes up in parts; nothing of it is seen before the last one is there
PARTS = TransferConfig(multipart_threshold=LARGE, multipart_chunksize=LARGE // 2, max_concurrency=4)


def s3_client() -> Any:
    """A boto3 client as the standard AWS variables and profiles describe it, with time-outs and bounded retries.

    Raises:
        SettingsError: they contradict each other.
    """
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    try:
        session = boto3.Session()  # one of its own: the shared one keeps the first credentials that it meets
        client = session.client("s3", config=config)
        if not client.meta.endpoint_url.removesuffix("/").endswith((".amazonaws.com", ".amazonaws.com.cn")):
            # Servers of one's own are known by one name, not by one a bucket.
            client = session.client("s3", config=config.merge(Config(s3={"addressing_style": "path"})))
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"The AWS variables or the AWS profile cannot be used: {error}.") from error
    return client


class S3Store:
    """A store in an S3 bucket, under a prefix. Conditional writes use If-Match and If-None-Match.

    Args:
        bucket: must exist; it is never made.
        prefix: what all keys begin with, without a slash at either end; may be empty.
        cache: folder for local copies.
        client: a boto3 S3 client.
    """

    def __init__(self, bucket: str, prefix: str, cache: Path, client: Any) -> None:
        self.bucket, self.prefix, self.client = bucket, prefix, client
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._copies = DirectoryStore(cache / hashlib.sha256(self.url.encode()).hexdigest()[:16])

    def get(self, key: str) -> bytes:
        found = self.get_tagged(key)
        if found is None:
            raise KeyError(key)
        return found[0]

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        try:
            return self.get_changed(key, None)
        except KeyError:
            return None

    def get_changed(self, key: str, tag: str | None) -> tuple[bytes, str] | None:
        with self._explained(key):
            try:
                return self._read(key, {} if tag is None else {"IfNoneMatch": tag})
            except ClientError as error:
                code = _code(error)
                if code == "304":
                    return None
                # Who may list some folders only is told by AWS that he may not read what is not there.
                if code == "NoSuchKey" or (code in _DENIED and not self.exists(key)):
                    raise KeyError(key) from None
                raise

    def get_hashed(self, key: str, sha256: str) -> bytes:
        try:
            return self._copied(key, sha256)
        except KeyError:
            raise IntegrityError(f"{self.uri(key)} is gone.") from None

    def put(self, key: str, data: bytes) -> None:
        with self._explained(key):
            if len(data) < LARGE:
                self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)
            else:
                self.client.upload_fileobj(io.BytesIO(data), self.bucket, self._key(key), Config=PARTS)

    def put_if(self, key: str, data: bytes, tag: str | None) -> None:
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._explained(key):
            try:
                self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **condition)
            except ClientError as error:
                if _code(error) not in _CONFLICT:
                    raise
                # Where boto3 had to repeat the request, the first one may have been our own write, its answer lost.
                if error.response["ResponseMetadata"].get("RetryAttempts") and self.get(key) == data:
                    return
                raise StoreConflictError(f"{self.uri(key)} was written by somebody else in between.") from error

    def exists(self, key: str) -> bool:
        with self._explained(key):
            found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(key), MaxKeys=1)
            return any(item["Key"] == self._key(key) for item in found.get("Contents", ()))

    def list(self, prefix: str) -> Iterator[str]:
        cut = len(self._key(""))
        with self._explained(prefix):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._key(f"{prefix.rstrip('/')}/" if prefix else "")):
                for item in page.get("Contents", ()):
                    yield item["Key"][cut:]

    def local_path(self, key: str) -> Path:
        self._copied(key, PurePosixPath(key).stem)
        return self._copies.local_path(key)

    def uri(self, key: str) -> str:
        return f"{self.url}/{key}"

    def _copied(self, key: str, sha256: str) -> bytes:
        """The bytes of the local copy, which is made where there is none, and anew where it was damaged."""
        try:
            return self._copies.get_hashed(key, sha256)
        except IntegrityError:
            data = checked(self.get(key), sha256, self.uri(key))
        self._copies.put(key, data)
        return data

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _read(self, key: str, condition: dict[str, str]) -> tuple[bytes, str]:
        """The object and its tag. boto3 repeats what was not answered, but not what broke off in the middle of an answer."""
        for attempt in range(1, ATTEMPTS + 1):
            answer = self.client.get_object(Bucket=self.bucket, Key=self._key(key), **condition)
            try:
                return answer["Body"].read(), answer["ETag"]
            except BotoCoreError:
                if attempt == ATTEMPTS:
                    raise
                # At random, so that those who failed together do not come back together.
                time.sleep(random.uniform(0, 2**attempt / 4))  # noqa: S311
        raise AssertionError("unreachable")

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Whatever the server refuses is told as one sentence that says what to do."""
        try:
            yield
        except ClientError as error:
            code = _code(error)
            raise StoreError(
                f"{self.uri(key)}: {_ANSWERS.get(code, f'the S3 server answers {code}; try again later.')}"
            ) from error
        except BotoCoreError as error:
            advice = next((advice for kinds, advice in _NO_ANSWER if isinstance(error, kinds)), _UNREACHABLE)
            # Not `from error`: boto3's own words name the endpoint, which is to stand in no log.
            raise StoreError(f"{self.uri(key)}: {advice.format(kind=type(error).__name__)}") from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


# For If-Match on an object that is gone, AWS says NoSuchKey.
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey"}
_DENIED = {"AccessDenied", "403"}
_FORBIDDEN = "these credentials may not do this; give them the rights that docs/s3.md lists."
_TOKEN = "the session token of these credentials is not valid, or no longer; sign in again."  # noqa: S105 - a sentence
_REGION = "the bucket is in another region; set AWS_DEFAULT_REGION to it."
_ANSWERS = {
    "NoSuchBucket": "there is no such bucket; create it, or correct FRAUD_STORE.",
    **dict.fromkeys(_DENIED, _FORBIDDEN),
    "InvalidAccessKeyId": "the access key is not known there; correct AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; correct AWS_SECRET_ACCESS_KEY.",
    "RequestTimeTooSkewed": "this machine's clock is off by more than the server tolerates; set it (NTP).",
    **dict.fromkeys(("ExpiredToken", "InvalidToken"), _TOKEN),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), _REGION),
}
_UNREACHABLE = (
    "the S3 endpoint does not answer ({kind}); see that it runs, that AWS_ENDPOINT_URL_S3 is right, and start again: "
    "what was finished is kept."
)
_NO_ANSWER: tuple[tuple[tuple[type[BotoCoreError], ...], str], ...] = (
    (
        (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError),
        "there are no AWS credentials ({kind}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
        "or give this machine a role.",
    ),
    ((SSLError,), "the S3 endpoint's certificate is not trusted; set AWS_CA_BUNDLE to your authority's."),
    ((ParamValidationError,), "bucket or key has a name that S3 does not take; correct FRAUD_STORE."),
)
