"""What artifacts promise: what was there is never harmed, what comes back is what was written, and one source a store."""

import io
import json
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import joblib
import polars as pl
import pytest

from fraud_core.errors import IntegrityError, PartitionError, SourceError, StoreError
from fraud_core.signing import keys
from fraud_core.signing.keys import Key, canonical_json, sign
from fraud_core.storage.artifacts import Artifacts, Document, Estimator, Pointer, Table, fingerprint
from fraud_core.storage.directory import DirectoryStore
from tests.stores import remove

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(DirectoryStore(tmp_path / "store"), KEY)


def table(*values: int, content: str = "c", inputs: str = "i") -> Table:
    return Table(
        frame=pl.DataFrame({"x": pl.Series(values, dtype=pl.Int64)}), content=content, inputs=inputs, facts={"rows": len(values)}
    )


def objects(artifacts: Artifacts) -> dict[str, bytes]:
    return {key: artifacts.store.get(key) for key in artifacts.store.list("")}


# ---- writing and reading


def test_a_table_a_document_and_a_fitted_object_come_back_as_they_were(artifacts: Artifacts) -> None:
    artifacts.write("raw", "2024-01", table(1, 2))
    artifacts.write("landing", None, Document(body={"a": [1, None]}, content="c"))
    artifacts.write("model", None, Estimator(fitted={"coefficients": [1.5]}, inputs="i"))
    assert artifacts.scan("raw", "2024-01").collect()["x"].to_list() == [1, 2]
    assert artifacts.document("landing") == {"a": [1, None]}
    assert artifacts.estimator("model") == {"coefficients": [1.5]}


def test_the_pointer_tells_what_was_written(artifacts: Artifacts) -> None:
    written = artifacts.write("raw", "2024-01", table(1, 2, 3, content="what", inputs="of"))
    assert artifacts.pointer("raw", "2024-01") == written
    assert (written.rows, written.content, written.inputs, written.facts) == (3, "what", "of", {"rows": 3})
    assert written.key == f"assets/raw/2024-01/{written.sha256[:12]}.parquet"
    assert written.size == len(artifacts.store.get(written.key))


def test_a_new_materialization_leaves_the_bytes_of_the_former_where_they_were(artifacts: Artifacts) -> None:
    former = artifacts.write("raw", "2024-01", table(1))
    data = artifacts.store.get(former.key)
    artifacts.write("raw", "2024-01", table(2))
    assert artifacts.store.get(former.key) == data
    assert artifacts.scan("raw", "2024-01").collect()["x"].to_list() == [2]


def test_the_same_rows_again_write_the_same_bytes_and_pointer(artifacts: Artifacts) -> None:
    artifacts.write("raw", "2024-01", table(1))
    before = objects(artifacts)
    artifacts.write("raw", "2024-01", table(1))
    assert objects(artifacts) == before


@pytest.mark.parametrize("dies_at", [1, 2])
def test_a_write_that_fails_half_way_leaves_the_former_materialization_in_force(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    artifacts.write("raw", "2024-01", table(1))
    real, calls = DirectoryStore.put, []

    def put(store: DirectoryStore, key: str, data: bytes) -> None:
        calls.append(key)
        if len(calls) == dies_at:
            raise StoreError("the disk is full")
        real(store, key, data)

    monkeypatch.setattr(DirectoryStore, "put", put)
    with pytest.raises(StoreError):
        artifacts.write("raw", "2024-01", table(2))
    assert calls[-1].endswith(".parquet" if dies_at == 1 else "latest.json")
    assert artifacts.scan("raw", "2024-01").collect()["x"].to_list() == [1]


def test_what_was_not_materialized_is_none_or_a_sentence(artifacts: Artifacts) -> None:
    assert artifacts.pointer("raw", "2024-01") is None
    assert artifacts.document("landing") is None
    with pytest.raises(PartitionError, match="raw 2024-01 was not materialized yet"):
        artifacts.scan("raw", "2024-01")
    with pytest.raises(PartitionError, match="model was not materialized yet"):
        artifacts.estimator("model")


def test_the_pointers_of_an_asset_are_those_of_its_partitions_in_time_order(artifacts: Artifacts) -> None:
    for partition in ("2024-02", "2023-12", "2024-01"):
        artifacts.write("raw", partition, table(1))
    artifacts.write("raw_other", "2024-03", table(1))
    artifacts.write("landing", None, Document(body={}, content="c"))
    assert list(artifacts.pointers("raw")) == ["2023-12", "2024-01", "2024-02"]
    assert artifacts.pointers("landing") == {}


# ---- forgery


def pointer_key(asset: str, partition: str | None = None) -> str:
    return f"assets/{asset}/{partition}/latest.json" if partition else f"assets/{asset}/latest.json"


def test_a_changed_pointer_is_refused(artifacts: Artifacts) -> None:
    artifacts.write("raw", "2024-01", table(1))
    document = json.loads(artifacts.store.get(pointer_key("raw", "2024-01")))
    artifacts.store.put(pointer_key("raw", "2024-01"), canonical_json({**document, "content": "other"}))
    with pytest.raises(IntegrityError, match=r"raw/2024-01/latest\.json does not carry a valid signature"):
        artifacts.pointer("raw", "2024-01")


@pytest.mark.parametrize("data", [b"", b"not json", b"[]", b"{}", b'{"signature": "00"}'])
def test_a_pointer_that_is_no_signed_document_is_refused(artifacts: Artifacts, data: bytes) -> None:
    artifacts.store.put(pointer_key("raw", "2024-01"), data)
    with pytest.raises(IntegrityError):
        artifacts.pointer("raw", "2024-01")


def test_a_pointer_signed_by_another_installation_is_refused(artifacts: Artifacts) -> None:
    Artifacts(artifacts.store, OTHER).write("raw", "2024-01", table(1))
    with pytest.raises(IntegrityError, match="FRAUD_SIGNING_KEY"):
        artifacts.scan("raw", "2024-01")


def test_a_pointer_copied_from_another_partition_or_asset_is_refused(artifacts: Artifacts) -> None:
    artifacts.write("raw", "2024-01", table(1))
    data = artifacts.store.get(pointer_key("raw", "2024-01"))
    for asset, partition in (("raw", "2024-02"), ("transformed", "2024-01")):
        artifacts.store.put(pointer_key(asset, partition), data)
        with pytest.raises(IntegrityError, match="speaks of"):
            artifacts.pointer(asset, partition)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.path),)


@pytest.fixture
def trap(tmp_path: Path) -> tuple[bytes, Path]:
    """A joblib file that does something when it is loaded, and what it does."""
    sprung = tmp_path / "sprung"
    buffer = io.BytesIO()
    joblib.dump(Trap(sprung), buffer)
    return buffer.getvalue(), sprung


def test_the_trap_works(trap: tuple[bytes, Path]) -> None:
    data, sprung = trap
    joblib.load(io.BytesIO(data))
    assert sprung.exists()


def test_a_joblib_file_that_was_replaced_is_refused_before_it_is_unpickled(
    artifacts: Artifacts, trap: tuple[bytes, Path]
) -> None:
    data, sprung = trap
    written = artifacts.write("model", None, Estimator(fitted=1, inputs="i"))
    artifacts.store.put(written.key, data)
    with pytest.raises(IntegrityError, match=r"model/.*\.joblib is not the file that was written; it is not loaded"):
        artifacts.estimator("model")
    assert not sprung.exists()


def test_the_file_of_a_partition_that_was_replaced_is_not_read(artifacts: Artifacts) -> None:
    written = artifacts.write("transformed", "2024-01", table(1, 2))
    other = artifacts.write("transformed", "2024-02", table(3, 4, content="rejected"))
    artifacts.store.put(written.key, artifacts.store.get(other.key))
    with pytest.raises(IntegrityError, match=r"is not the file that was written; .* Materialize transformed 2024-01 again"):
        artifacts.scan("transformed", "2024-01")
    remove(artifacts.store, written.key)
    with pytest.raises(IntegrityError, match="is gone"):
        artifacts.scan("transformed", "2024-01")


def test_what_was_scanned_stays_what_it_was_whatever_happens_to_the_file(artifacts: Artifacts) -> None:
    written = artifacts.write("raw", "2024-01", table(1, 2))
    lazy, path = artifacts.scan("raw", "2024-01"), artifacts.store.local_path(written.key)
    with path.open("r+b") as file:  # in place, between the check and the reading
        file.write(b"PAR1" + bytes(50))
    assert lazy.collect()["x"].to_list() == [1, 2]


def test_bit_rot_is_put_right_by_materializing_again(artifacts: Artifacts, caplog: pytest.LogCaptureFixture) -> None:
    written = artifacts.write("raw", "2024-01", table(1, 2))
    rotten = bytearray(artifacts.store.get(written.key))
    rotten[40] ^= 1
    artifacts.store.put(written.key, bytes(rotten))
    artifacts.write("raw", "2024-01", table(1, 2))
    assert artifacts.scan("raw", "2024-01").collect()["x"].to_list() == [1, 2]
    assert f"{written.key} was not what its name says; it was replaced" in caplog.text


@pytest.mark.parametrize("signer", [None, OTHER])
def test_a_joblib_file_with_a_forged_pointer_is_refused_before_it_is_unpickled(
    artifacts: Artifacts, trap: tuple[bytes, Path], signer: Key | None
) -> None:
    data, sprung = trap
    written = artifacts.write("model", None, Estimator(fitted=1, inputs="i"))
    forged = written.model_dump() | {"key": "assets/model/evil.joblib", "sha256": fingerprint(data), "size": len(data)}
    artifacts.store.put("assets/model/evil.joblib", data)
    honest = json.loads(artifacts.store.get(pointer_key("model")))
    signature = {"signature": honest["signature"]} if signer is None else {}
    artifacts.store.put(pointer_key("model"), canonical_json(forged | signature if signer is None else sign(forged, signer)))
    with pytest.raises(IntegrityError):
        artifacts.estimator("model")
    assert not sprung.exists()


def test_a_document_that_was_replaced_is_refused(artifacts: Artifacts) -> None:
    written = artifacts.write("landing", None, Document(body={"a": 1}, content="c"))
    artifacts.store.put(written.key, b'{"a":2}')
    with pytest.raises(IntegrityError, match="Materialize landing again"):
        artifacts.document("landing")


def test_no_pickle_is_ever_read_for_a_table_or_a_document(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.write("raw", "2024-01", table(1))
    artifacts.write("landing", None, Document(body={"a": 1}, content="c"))

    def refuse(*given: Any, **named: Any) -> None:
        raise AssertionError("something was unpickled")

    for module, name in ((joblib, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, refuse)
    assert artifacts.document("landing") == {"a": 1}
    assert len(artifacts.scan("raw", "2024-01").collect()) == 1


# ---- one source a store


def test_a_store_belongs_to_the_source_that_came_first(artifacts: Artifacts) -> None:
    artifacts.claim("mine")
    artifacts.claim("mine")
    with pytest.raises(SourceError, match=r"belongs to the source 'mine', not to 'other'\. One source a store"):
        artifacts.claim("other")
    assert json.loads(artifacts.store.get("source.json")) == {"source": "mine"}


def test_of_sources_that_claim_a_store_at_once_one_gets_it(artifacts: Artifacts) -> None:
    barrier = threading.Barrier(6)
    got, refused = [], []

    def claim(name: str) -> None:
        barrier.wait()
        try:
            artifacts.claim(name)
        except SourceError:
            refused.append(name)
        else:
            got.append(name)

    threads = [threading.Thread(target=claim, args=(f"s{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)
    assert json.loads(artifacts.store.get("source.json")) == {"source": got[0]}


# ---- fingerprints


def test_a_fingerprint_tells_where_its_parts_end() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc") != fingerprint("abc")
    assert fingerprint("a") == fingerprint(b"a")
    assert len({fingerprint(), fingerprint(""), fingerprint("", "")}) == 3


def test_a_pointer_holds_no_secret(artifacts: Artifacts) -> None:
    written = artifacts.write("raw", "2024-01", table(1))
    assert isinstance(written, Pointer)
    assert KEY.secret not in artifacts.store.get(pointer_key("raw", "2024-01"))
    assert keys.Key(KEY.secret).secret.hex().encode() not in artifacts.store.get(pointer_key("raw", "2024-01"))
