"""Where a test's installation keeps its objects: in a folder of its own, or, under --store=s3, in a real bucket.

There, the name of an installation's folder gives its prefix, so that a copy of the folder is found to have a copy of the store.
"""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.objects import ObjectStore
from fraud_core.storage.s3 import S3Store, s3_client
from tests.servers.s3_server import BUCKET

IN_S3 = "TESTS_IN_S3"  # is set, beside the AWS variables, in a session that runs on S3


def store_settings(folder: Path) -> dict[str, str]:
    """The settings of an installation in this folder, beside its home."""
    if IN_S3 not in os.environ:
        return {}
    return {"store": f"s3://{BUCKET}/{_prefix(folder)}", "card_key": "c4" * 32, "signing_key": "51" * 32}


def copy_installation(source: Path, target: Path) -> None:
    """Copy a folder, and the objects of the installation in it."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    if IN_S3 in os.environ:
        client, old, new = s3_client(), _prefix(source), _prefix(target)

        def copy(key: str) -> None:
            client.copy_object(Bucket=BUCKET, CopySource=f"{BUCKET}/{key}", Key=f"{new}{key.removeprefix(old)}")

        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{old}/")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(copy, [item["Key"] for page in pages for item in page.get("Contents", ())]))


def remove(store: ObjectStore, key: str) -> None:
    """Take an object out of a store, as only a person would."""
    match store:
        case DirectoryStore():
            store.local_path(key).unlink()
        case S3Store():
            assert store.exists(key)
            store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}")


def _prefix(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]
