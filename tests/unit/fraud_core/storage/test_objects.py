"""What the object store promises: whole objects, one winner of a race, no way out of it, and errors that say what to do."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fraud_core.errors import SettingsError, StoreConflictError, StoreError
from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.open import open_store
from fraud_core.storage.s3 import S3Store


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def files(store: DirectoryStore) -> list[str]:
    """Every file below the store, drafts included, but for the lock."""
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file() and path.name != ".lock")


def tag(store: DirectoryStore, key: str) -> str:
    found = store.get_tagged(key)
    assert found is not None
    return found[1]


# ---- objects


def test_what_was_put_is_got_and_may_be_replaced(store: DirectoryStore) -> None:
    store.put("a/b.bin", b"one")
    store.put("a/b.bin", b"")
    assert (store.get("a/b.bin"), store.exists("a/b.bin")) == (b"", True)
    assert store.local_path("a/b.bin").read_bytes() == b""
    assert store.uri("a/b.bin") == f"{store.url}/a/b.bin"


@pytest.mark.parametrize("key", ["missing", "a", "a/b.bin/c", "a/", ""])
def test_what_is_not_there_is_a_key_error_a_folder_included(store: DirectoryStore, key: str) -> None:
    store.put("a/b.bin", b"x")
    assert not store.exists(key)
    assert store.get_tagged(key) is None
    for look in (store.get, store.local_path):
        with pytest.raises(KeyError):
            look(key)


def test_keys_are_listed_sorted_below_a_folder_and_not_beside_it(store: DirectoryStore) -> None:
    for key in ("m/b/2", "m/a", "m/b.x", "m/b/1", "model/x"):
        store.put(key, b"")
    assert list(store.list("m")) == ["m/a", "m/b.x", "m/b/1", "m/b/2"]
    assert list(store.list("m/b")) == ["m/b/1", "m/b/2"]
    assert list(store.list("none")) == []
    assert list(store.list("")) == ["m/a", "m/b.x", "m/b/1", "m/b/2", "model/x"]


def test_neither_drafts_nor_the_lock_are_objects(store: DirectoryStore) -> None:
    store.put("m/a", b"1")
    store.put_if("m/a", b"2", tag(store, "m/a"))
    (store.root / "m" / ".draft-0123").write_bytes(b"left by a process that was killed")
    assert list(store.list("")) == ["m/a"]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "link/x"])
def test_no_key_leads_out_of_the_store(store: DirectoryStore, tmp_path: Path, key: str) -> None:
    store.put("a/b", b"")
    (store.root / "link").symlink_to(tmp_path)
    (tmp_path / "x").write_bytes(b"outside")
    for act in (
        store.get,
        store.exists,
        store.local_path,
        store.uri,
        lambda key: store.put(key, b"!"),
        lambda key: list(store.list(key)),
    ):
        with pytest.raises(StoreError, match="leads out of the store"):
            act(key)
    assert (tmp_path / "x").read_bytes() == b"outside"


def test_what_has_not_changed_is_not_read_again(store: DirectoryStore) -> None:
    with pytest.raises(KeyError):
        store.get_changed("k", None)
    store.put("k", b"one")
    old = tag(store, "k")
    assert store.get_changed("k", None) == (b"one", old)
    assert store.get_changed("k", old) is None
    store.put("k", b"two")
    assert store.get_changed("k", old) == (b"two", tag(store, "k"))


# ---- conditional writes


def test_a_write_of_a_new_object_fails_where_there_is_one(store: DirectoryStore) -> None:
    store.put_if("k", b"first", None)
    with pytest.raises(StoreConflictError, match="exists already"):
        store.put_if("k", b"second", None)
    assert (store.get("k"), files(store)) == (b"first", ["k"])


def test_a_write_over_a_tag_fails_where_the_object_changed_or_is_gone(store: DirectoryStore) -> None:
    store.put("k", b"first")
    old = tag(store, "k")
    store.put_if("k", b"second", old)
    with pytest.raises(StoreConflictError, match="changed by somebody else"):
        store.put_if("k", b"third", old)
    with pytest.raises(StoreConflictError):
        store.put_if("other", b"x", old)
    assert (store.get("k"), files(store)) == (b"second", ["k"])


def test_of_racing_threads_one_makes_the_object_and_the_others_are_told(store: DirectoryStore) -> None:
    barrier, won = threading.Barrier(8), []

    def race(number: int) -> None:
        barrier.wait()
        try:
            store.put_if("k", str(number).encode(), None)
        except StoreConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("k") == str(won[0]).encode()


class SlowToCompare(DirectoryStore):
    """Lets time pass between comparing the tag and writing."""

    def get_tagged(self, key: str) -> tuple[bytes, str] | None:
        found = super().get_tagged(key)
        time.sleep(0.02)
        return found


def test_of_racing_threads_with_the_same_tag_one_replaces_the_object(store: DirectoryStore) -> None:
    store.put("k", b"old")
    slow, old, won = SlowToCompare(store.root), tag(store, "k"), []

    def race(number: int) -> None:
        try:
            slow.put_if("k", str(number).encode(), old)
        except StoreConflictError:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("k") == str(won[0]).encode()


COUNTING = """
import sys
from pathlib import Path
from fraud_core.errors import StoreConflictError
from fraud_core.storage.directory import DirectoryStore

store, made = DirectoryStore(Path(sys.argv[1])), 0
print("ready", flush=True)
sys.stdin.readline()
try:
    store.put_if("owner", sys.argv[2].encode(), None)
    print("won", flush=True)
except StoreConflictError:
    print("lost", flush=True)
while made < 25:
    data, tag = store.get_tagged("count")
    try:
        store.put_if("count", str(int(data) + 1).encode(), tag)
        made += 1
    except StoreConflictError:
        pass
"""


def test_of_racing_processes_one_wins_each_write_and_no_count_is_lost(store: DirectoryStore) -> None:
    store.put("count", b"0")
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTING, store.url, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    for process in racing:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = []
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in racing:
        said.append(process.communicate(timeout=60)[0].strip())
        assert process.returncode == 0
    assert sorted(said) == ["lost"] * 3 + ["won"]
    assert store.get("owner") == str(said.index("won")).encode()
    assert store.get("count") == b"100"
    assert files(store) == ["count", "owner"]


def test_a_reader_sees_the_old_object_or_the_new_one_and_nothing_else(store: DirectoryStore) -> None:
    contents = {letter * 200_000 for letter in (b"a", b"b")}
    store.put("k", b"a" * 200_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                store.put("k", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {store.get("k") for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= contents


# ---- what goes wrong


def test_a_full_disk_is_explained_and_leaves_the_old_object_and_no_draft(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a/k", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    for write in (
        lambda: store.put("a/k", b"new"),
        lambda: store.put_if("a/k", b"new", tag(store, "a/k")),
        lambda: store.put_if("a/other", b"new", None),
        lambda: store.put("b/c", b"new"),
    ):
        with pytest.raises(StoreError, match=r"No space left on device\. Nothing was changed"):
            write()
    assert (store.get("a/k"), files(store)) == (b"old", ["a/k"])


def test_a_rename_that_fails_leaves_the_old_object_and_no_draft(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("k", b"old")

    def fail(source: Path, target: Path) -> Path:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreError, match=r"Operation not permitted\. Nothing was changed"):
        store.put("k", b"new")
    assert (store.get("k"), files(store)) == (b"old", ["k"])


def test_a_disk_that_does_not_confirm_the_rename_is_not_reported_as_nothing_done(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def fail_the_second(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_the_second)
    with pytest.raises(StoreError, match="was written to, but the disk does not confirm it: Input/output error"):
        store.put("k", b"new")


def test_an_object_in_the_way_of_a_folder_is_explained(store: DirectoryStore) -> None:
    store.put("a", b"old")
    with pytest.raises(StoreError, match=r"Cannot write .*a/b: .*Nothing was changed"):
        store.put("a/b", b"new")
    assert store.get("a") == b"old"


def test_a_disk_that_cannot_be_read_is_explained(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("k", b"x")

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(StoreError, match=r"Cannot read .*k: Input/output error"):
        store.get("k")


# ---- which store a URL means


def test_a_path_is_a_directory_and_an_s3_address_is_a_bucket_with_prefix(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path / "x"), tmp_path), DirectoryStore)
    found = open_store("s3://bucket/some/prefix/", tmp_path, client=object())
    assert isinstance(found, S3Store)
    assert (found.bucket, found.prefix, found.url) == ("bucket", "some/prefix", "s3://bucket/some/prefix")
    assert open_store("s3://bucket", tmp_path, client=object()).uri("k") == "s3://bucket/k"


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///prefix", "s3://key:secret@bucket/prefix", "s3://bucket/prefix?x=secret", "s3://b/#secret"]
)
def test_an_s3_address_holds_a_bucket_and_a_prefix_and_no_credentials(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="FRAUD_STORE must look like s3://bucket/prefix") as refused:
        open_store(url, tmp_path, client=object())
    assert "secret" not in str(refused.value)
