"""What the bundle promises: written once, verified before it is parsed, and a pointer that one write at a time moves."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fraud_core.errors import IntegrityError, PromotionError, StoreError
from fraud_core.features import catalogue
from fraud_core.features.encoder import ColumnEncoding, Encoder
from fraud_core.models.bundle import Bundle, Fitted, make_bundle, read_bundle, write_bundle
from fraud_core.models.manifest import Calibration, Lineage, Lookback, Manifest, ModelKind, Thresholds
from fraud_core.models.registry import LATEST, ChampionPointer, StoredCard, latest_model_card, point_at, read_latest, versions
from fraud_core.signing.documents import signed_document
from fraud_core.signing.keys import Key, canonical_json, sign
from fraud_core.storage.directory import DirectoryStore

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
ENCODER = Encoder(
    columns=(
        ColumnEncoding(feature="log_amount", missing=3.0),
        ColumnEncoding(feature="category", categories={"food": 0.1, "(missing)": 0.2}, unseen=0.15),
    )
)
LINEAGE = Lineage(
    training_set="abc",
    partitions=(("2024-01", "c0ffee", "accepted"),),
    rejected=(("2024-02", "drift"),),
    card_key_id="0123456789ab",
    libraries={"treelite": "4.8"},
)


def bundle(intercept: float = 0.0, *, kind: ModelKind = "linear", lineage: Lineage = LINEAGE, **changes: Any) -> Bundle:
    """A bundle; another intercept makes another version."""
    given = {
        "source": "test",
        "timezone": "UTC",
        "feature_version": catalogue.VERSION,
        "model": b'{"coefficients":[1.0,2.0],"intercept":0.5}',
        "encoder": ENCODER,
        "thresholds": Thresholds(review=0.4, decline=0.8),
    }
    calibration = Calibration(slope=1.0, intercept=intercept)
    return make_bundle(kind=kind, calibration=calibration, lineage=lineage, **(given | changes))


def second(kind: ModelKind = "forest", **changes: Any) -> dict[str, Any]:
    """What a bundle with a second model has beside the first."""
    given = {
        "model": b"trees",
        "encoder": Encoder(columns=ENCODER.columns[:1]),
        "thresholds": Thresholds(review=0.2, decline=0.9),
    }
    fallback = Fitted(kind=kind, calibration=Calibration(slope=2.0, intercept=-1.0), **(given | changes))
    return {"lookback": Lookback(history_days=30, label_delay_days=7), "fallback": fallback}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def three(store: DirectoryStore) -> list[str]:
    """Versions of three bundles that are in the store."""
    made = [bundle(float(number)) for number in range(3)]
    for each in made:
        write_bundle(store, each, KEY)
    return [each.version for each in made]


def promote(store: DirectoryStore, version: str, **changes: Any) -> ChampionPointer:
    return point_at(store, version, KEY, **({"how": "promotion", "who": "pipeline", "at": NOW} | changes))


def latest(store: DirectoryStore) -> ChampionPointer:
    found = read_latest(store, KEY)
    assert found is not None
    return found


# ---- versions


def test_the_version_follows_from_what_was_learned_and_from_nothing_else() -> None:
    other_lineage = LINEAGE.model_copy(update={"training_set": "xyz", "card_key_id": "ba9876543210", "libraries": {}})
    assert bundle().version == bundle(lineage=other_lineage).version
    changed = [
        bundle(1.0),
        bundle(source="other"),
        bundle(timezone="Europe/Zurich"),
        bundle(feature_version=catalogue.VERSION + 1),
        bundle(model=b"{}"),
        bundle(encoder=Encoder(columns=ENCODER.columns[:1])),
        bundle(thresholds=Thresholds(review=0.4, decline=0.9)),
        bundle(kind="boosting"),
        bundle(**second()),
        bundle(**second(model=b"other trees")),
        bundle(**second() | {"lookback": Lookback(history_days=7, label_delay_days=7)}),
        bundle(**second() | {"lookback": Lookback(history_days=7, label_delay_days=7, newest_events=500)}),
    ]
    assert len({bundle().version, *(each.version for each in changed)}) == 13


@pytest.mark.parametrize(
    ("kind", "file"), [("linear", "model.json"), ("boosting", "model.treelite"), ("forest", "model.treelite")]
)
def test_a_bundle_is_three_files_and_comes_back_as_it_was(store: DirectoryStore, kind: ModelKind, file: str) -> None:
    written = bundle(kind=kind)
    write_bundle(store, written, KEY)
    assert sorted(store.list("models")) == [
        f"models/{written.version}/{name}" for name in ("encoder.json", "manifest.json", file)
    ]
    assert read_bundle(store, written.version, KEY) == written
    assert versions(store, KEY) == [written.version]


def test_a_card_made_by_hand_is_unsigned_beside_none_and_nothing_beside_a_signed_one(store: DirectoryStore) -> None:
    made = {"version": "v", "created": "2026-01-01", "holdout": {"average_precision": 0.8}}
    by_hand = made | {"created": "2027-01-01", "holdout": {"average_precision": 0.9999}}
    store.put("models/v/runs/b/card.json", canonical_json(by_hand))
    found = latest_model_card(store, "v", KEY)
    assert found is not None
    assert not found.is_signed
    store.put("models/v/runs/a/card.json", canonical_json(sign(made, KEY)))
    for forged in (by_hand, sign(by_hand, OTHER), sign(made, KEY) | by_hand, sign(by_hand | {"version": "w"}, KEY)):
        store.put("models/v/runs/b/card.json", canonical_json(forged))
        assert latest_model_card(store, "v", KEY) == StoredCard(body=made, is_signed=True)
    store.put("models/v/runs/b/card.json", b"[]")
    assert latest_model_card(store, "v", KEY) == StoredCard(body=made, is_signed=True)


def test_a_version_whose_manifest_does_not_hold_or_whose_files_lack_is_not_listed(store: DirectoryStore) -> None:
    whole, broken, half = bundle(1.0), bundle(2.0), bundle(3.0)
    for each in (whole, broken, half):
        write_bundle(store, each, KEY)
    store.put(f"models/{broken.version}/manifest.json", store.get(f"models/{whole.version}/manifest.json"))
    store.local_path(f"models/{half.version}/encoder.json").unlink()
    store.put("models/evil/manifest.json", b"{}")
    assert versions(store, KEY) == [whole.version]


@pytest.mark.parametrize(("kind", "file"), [("linear", "fallback.json"), ("boosting", "fallback.treelite")])
def test_a_second_model_is_two_files_more_and_comes_back_as_it_was(store: DirectoryStore, kind: ModelKind, file: str) -> None:
    written = bundle(**second(kind))
    write_bundle(store, written, KEY)
    names = ["encoder.json", "fallback_encoder.json", "manifest.json", "model.json", file]
    assert sorted(store.list("models")) == sorted(f"models/{written.version}/{name}" for name in names)
    assert read_bundle(store, written.version, KEY) == written


def test_a_bundle_goes_through_json_whatever_bytes_its_models_are() -> None:
    written = bundle(**second(model=bytes(range(256))), model=b"\xff\x00")
    assert Bundle.model_validate_json(written.model_dump_json()) == written


def test_without_history_a_bundle_is_its_second_model_under_the_same_version() -> None:
    whole = bundle(**second())
    plain = whole.without_history
    assert plain is not None
    assert whole.fallback is not None
    assert {name: getattr(plain, name) for name in Fitted.model_fields} == dict(whole.fallback)
    assert (plain.version, plain.manifest, plain.without_history) == (whole.version, whole.manifest, None)
    assert bundle().without_history is None


@pytest.mark.parametrize("name", ["fallback.treelite", "fallback_encoder.json"])
def test_a_second_model_that_is_not_what_was_signed_is_refused(store: DirectoryStore, name: str) -> None:
    written = bundle(**second())
    write_bundle(store, written, KEY)
    store.put(f"models/{written.version}/{name}", b"{}")
    with pytest.raises(IntegrityError, match=f"{name} does not have the hash"):
        read_bundle(store, written.version, KEY)


def test_a_version_is_written_once(store: DirectoryStore) -> None:
    write_bundle(store, bundle(), KEY)
    before = {key: store.get(key) for key in store.list("models")}
    write_bundle(store, bundle(lineage=LINEAGE.model_copy(update={"training_set": "later"})), KEY)
    assert {key: store.get(key) for key in store.list("models")} == before


def test_writing_a_version_whose_files_were_changed_is_refused(store: DirectoryStore) -> None:
    written = bundle()
    write_bundle(store, written, KEY)
    store.put(f"models/{written.version}/model.json", b"{}")
    with pytest.raises(IntegrityError, match=r"model\.json exists with other content"):
        write_bundle(store, written, KEY)


def test_a_bundle_whose_writer_died_is_no_version_and_is_completed_by_the_next_writer(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = bundle(), DirectoryStore.put_if

    def die_at_the_manifest(self: DirectoryStore, key: str, data: bytes, tag: str | None) -> None:
        if key.endswith("manifest.json"):
            raise StoreError("killed")
        real(self, key, data, tag)

    monkeypatch.setattr(DirectoryStore, "put_if", die_at_the_manifest)
    with pytest.raises(StoreError):
        write_bundle(store, written, KEY)
    monkeypatch.undo()
    assert versions(store, KEY) == []
    with pytest.raises(IntegrityError, match="is missing; the bundle is not whole"):
        promote(store, written.version)
    assert read_latest(store, KEY) is None
    write_bundle(store, written, KEY)
    assert promote(store, written.version).version == written.version


def test_runs_beside_a_bundle_are_no_versions(store: DirectoryStore, three: list[str]) -> None:
    store.put(f"models/{three[0]}/runs/run/manifest.json", b"{}")
    store.put("models/half/model.json", b"{}")
    assert sorted(versions(store, KEY)) == sorted(three)


# ---- tampering


@pytest.mark.parametrize("file", ["model.json", "encoder.json", "manifest.json"])
@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1], lambda data: data + b" ", lambda data: data.replace(b"1", b"2", 1), lambda data: b""]
)
def test_any_change_of_any_file_is_detected(store: DirectoryStore, file: str, spoil: Any) -> None:
    written = bundle()
    write_bundle(store, written, KEY)
    promote(store, written.version)
    key = f"models/{written.version}/{file}"
    store.put(key, spoil(store.get(key)))
    with pytest.raises(IntegrityError, match=written.version):
        read_bundle(store, written.version, KEY, latest(store).manifest_sha256)


@pytest.mark.parametrize("file", ["model.json", "encoder.json", "manifest.json"])
def test_a_missing_file_is_told(store: DirectoryStore, file: str) -> None:
    written = bundle()
    write_bundle(store, written, KEY)
    Path(store.uri(f"models/{written.version}/{file}")).unlink()
    with pytest.raises(IntegrityError, match=f"{file} is missing; the bundle is not whole"):
        read_bundle(store, written.version, KEY)


def test_nothing_is_parsed_before_its_signature_and_hashes_hold(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written = bundle()
    write_bundle(store, written, KEY)
    parsed: list[str] = []
    monkeypatch.setattr(Manifest, "model_validate", lambda *given: parsed.append("manifest"))
    monkeypatch.setattr(Encoder, "model_validate_json", lambda *given: parsed.append("encoder"))
    folder = f"models/{written.version}"
    store.put(f"{folder}/manifest.json", signed_document(written.manifest, OTHER))
    with pytest.raises(IntegrityError):
        read_bundle(store, written.version, KEY)
    assert parsed == []
    monkeypatch.undo()
    monkeypatch.setattr(Encoder, "model_validate_json", lambda *given: parsed.append("encoder"))
    store.put(f"{folder}/manifest.json", signed_document(written.manifest, KEY))
    store.put(f"{folder}/encoder.json", b'{"columns":[]}')
    with pytest.raises(IntegrityError, match=r"encoder\.json does not have the hash"):
        read_bundle(store, written.version, KEY)
    assert parsed == []


def test_a_bundle_under_another_version_is_refused(store: DirectoryStore, three: list[str]) -> None:
    for file in ("manifest.json", "model.json", "encoder.json"):
        store.put(f"models/{'0' * 16}/{file}", store.get(f"models/{three[0]}/{file}"))
    with pytest.raises(IntegrityError, match=f"speaks of version {three[0]}"):
        read_bundle(store, "0" * 16, KEY)


def test_a_manifest_that_signs_other_knowledge_than_its_version_is_refused(store: DirectoryStore) -> None:
    written = bundle()
    write_bundle(store, written, KEY)
    document = written.manifest.model_dump(mode="json")
    document["learned"]["thresholds"]["decline"] = 0.99
    store.put(f"models/{written.version}/manifest.json", canonical_json(sign(document, KEY)))
    with pytest.raises(IntegrityError, match="speaks of version"):
        read_bundle(store, written.version, KEY)


def test_another_manifest_than_the_pointer_names_is_refused(store: DirectoryStore, three: list[str]) -> None:
    named = promote(store, three[0])
    later = bundle(lineage=LINEAGE.model_copy(update={"training_set": "later"}))
    store.put(f"models/{later.version}/manifest.json", signed_document(later.manifest, KEY))
    assert read_bundle(store, three[0], KEY).manifest.lineage.training_set == "later"
    with pytest.raises(IntegrityError, match="is not the one the pointer names"):
        read_bundle(store, three[0], KEY, named.manifest_sha256)


@pytest.mark.parametrize(("number", "advice"), [(1, "Train anew"), (3, "Upgrade")])
def test_a_bundle_of_another_format_is_refused_with_what_to_do(store: DirectoryStore, number: int, advice: str) -> None:
    whole = bundle().manifest
    learned = whole.learned.model_copy(update={"format": number})
    manifest = whole.model_copy(update={"version": learned.version, "learned": learned})
    store.put(f"models/{learned.version}/manifest.json", signed_document(manifest, KEY))
    with pytest.raises(IntegrityError, match=rf"has format {number}; this release reads format 2\. {advice}"):
        read_bundle(store, learned.version, KEY)


def test_a_signed_document_of_another_kind_is_refused(store: DirectoryStore, three: list[str]) -> None:
    promote(store, three[0])
    store.put(f"models/{three[1]}/manifest.json", store.get(LATEST))
    with pytest.raises(IntegrityError, match="is signed, but is not a manifest"):
        read_bundle(store, three[1], KEY)
    store.put(LATEST, store.get(f"models/{three[0]}/manifest.json"))
    with pytest.raises(IntegrityError, match="is signed, but is not a champion pointer"):
        read_latest(store, KEY)


# ---- the pointer


def test_there_is_no_champion_before_the_first(store: DirectoryStore) -> None:
    assert read_latest(store, KEY) is None


def test_every_change_counts_up_and_is_kept_with_who_when_and_why(store: DirectoryStore, three: list[str]) -> None:
    for step, version in enumerate(three):
        promote(store, version, at=NOW + timedelta(days=step), who=f"w{step}", reason=f"r{step}")
    now = latest(store)
    assert (now.version, now.sequence) == (three[2], 3)
    told = [(change.sequence, change.version, change.who, change.reason, change.at.day) for change in now.history]
    assert told == [(1, three[0], "w0", "r0", 1), (2, three[1], "w1", "r1", 2), (3, three[2], "w2", "r2", 3)]


def test_promoting_the_champion_again_changes_no_byte(store: DirectoryStore, three: list[str]) -> None:
    promote(store, three[0])
    before = store.get(LATEST)
    assert promote(store, three[0], at=NOW + timedelta(days=1)).sequence == 1
    assert store.get(LATEST) == before


def test_a_rollback_points_back_and_withdraws_in_one_write(
    store: DirectoryStore, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, three[0])
    promote(store, three[1])
    writes: list[str] = []
    real = DirectoryStore.put_if
    monkeypatch.setattr(
        DirectoryStore, "put_if", lambda self, key, data, tag: (writes.append(key), real(self, key, data, tag))[1]
    )
    promote(store, three[0], how="rollback", who="ada", reason="too many alerts", withdraw=three[1])
    now = latest(store)
    assert writes == [LATEST]
    assert (now.version, now.sequence, now.history[-1].how) == (three[0], 3, "rollback")
    assert {version: (w.who, w.reason, w.at) for version, w in now.withdrawn.items()} == {
        three[1]: ("ada", "too many alerts", NOW)
    }


@pytest.mark.parametrize("how", ["promotion", "rollback"])
def test_a_withdrawn_version_is_not_made_champion_and_the_pointer_stays_byte_for_byte(
    store: DirectoryStore, three: list[str], how: str
) -> None:
    promote(store, three[0])
    promote(store, three[1])
    promote(store, three[0], how="rollback", who="ada", reason="too many alerts", withdraw=three[1])
    before = store.get(LATEST)
    with pytest.raises(PromotionError, match=f"was withdrawn by ada: too many alerts. `fraud restore {three[1]}`"):
        promote(store, three[1], how=how)
    assert store.get(LATEST) == before


def test_a_withdrawal_outlives_later_promotions_until_it_is_restored(store: DirectoryStore, three: list[str]) -> None:
    promote(store, three[0])
    promote(store, three[1])
    promote(store, three[0], how="rollback", reason="bad", withdraw=three[1])
    promote(store, three[2])
    assert set(latest(store).withdrawn) == {three[1]}
    promote(store, three[1], how="restoration", who="ada", reason="it was the data")
    now = latest(store)
    assert (now.version, now.withdrawn, now.sequence, now.history[-1].how) == (three[1], {}, 5, "restoration")
    promote(store, three[2])
    promote(store, three[1])
    assert latest(store).version == three[1]


def test_no_version_is_made_champion_and_withdrawn_at_once(store: DirectoryStore, three: list[str]) -> None:
    with pytest.raises(PromotionError, match="champion and withdrawn at once"):
        promote(store, three[0], how="rollback", withdraw=three[0])
    assert read_latest(store, KEY) is None


def test_a_broken_bundle_is_not_made_champion(store: DirectoryStore, three: list[str]) -> None:
    promote(store, three[0])
    before = store.get(LATEST)
    store.put(f"models/{three[1]}/model.json", b"{}")
    for version in (three[1], "0" * 16, "../../etc"):
        with pytest.raises((IntegrityError, StoreError)):
            promote(store, version)
    assert store.get(LATEST) == before


@pytest.mark.parametrize(
    "forge",
    [
        lambda document: {**document, "version": "0" * 16},
        lambda document: {**document, "sequence": 99},
        lambda document: {**document, "history": []},
        lambda document: {**document, "withdrawn": {}},
        lambda document: {name: value for name, value in document.items() if name != "signature"},
        lambda document: sign(document, OTHER),
    ],
)
def test_a_forged_pointer_is_refused_and_cannot_be_built_upon(store: DirectoryStore, three: list[str], forge: Any) -> None:
    promote(store, three[0])
    promote(store, three[1], how="rollback", reason="bad", withdraw=three[0])
    forged = canonical_json(forge(json.loads(store.get(LATEST))))
    store.put(LATEST, forged)
    for act in (lambda: read_latest(store, KEY), lambda: promote(store, three[2])):
        with pytest.raises(IntegrityError, match=r"latest\.json does not carry a valid signature"):
            act()
    assert store.get(LATEST) == forged


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null"])
def test_a_pointer_that_is_no_document_is_refused(store: DirectoryStore, data: bytes) -> None:
    store.put(LATEST, data)
    with pytest.raises(IntegrityError):
        read_latest(store, KEY)


@pytest.mark.parametrize("first", [False, True])
def test_of_two_that_move_the_pointer_at_once_one_does_and_the_other_is_told(
    store: DirectoryStore, three: list[str], monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    if not first:
        promote(store, three[2])
    both_have_read, real = threading.Barrier(2), DirectoryStore.put_if

    def put_if(self: DirectoryStore, key: str, data: bytes, tag: str | None) -> None:
        both_have_read.wait(timeout=10)
        real(self, key, data, tag)

    monkeypatch.setattr(DirectoryStore, "put_if", put_if)
    moved, refused = [], []

    def move(version: str) -> None:
        try:
            moved.append(promote(store, version).version)
        except PromotionError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=move, args=(version,)) for version in three[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(moved), len(refused)) == (1, 1)
    assert "moved the pointer at the same moment; look and try again" in refused[0]
    now = latest(store)
    assert (now.version, now.sequence) == (moved[0], 1 if first else 2)


def test_a_change_between_the_look_at_the_pointer_and_its_write_is_not_lost(
    store: DirectoryStore, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, three[0])
    real = DirectoryStore.get_tagged

    def somebody_else_is_faster(self: DirectoryStore, key: str) -> tuple[bytes, str] | None:
        found = real(self, key)
        monkeypatch.undo()
        promote(self, three[1], how="rollback", who="ada", reason="bad", withdraw=three[0])
        return found

    monkeypatch.setattr(DirectoryStore, "get_tagged", somebody_else_is_faster)
    with pytest.raises(PromotionError, match="look and try again"):
        promote(store, three[2])
    now = latest(store)
    assert (now.version, now.sequence, set(now.withdrawn)) == (three[1], 2, {three[0]})


def test_a_retry_after_a_lost_answer_is_a_success(
    store: DirectoryStore, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DirectoryStore.put_if

    def answer_is_lost_and_the_client_tries_again(self: DirectoryStore, key: str, data: bytes, tag: str | None) -> None:
        real(self, key, data, tag)
        real(self, key, data, tag)

    monkeypatch.setattr(DirectoryStore, "put_if", answer_is_lost_and_the_client_tries_again)
    assert promote(store, three[0]).version == three[0]
    assert latest(store).sequence == 1
