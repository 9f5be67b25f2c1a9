"""Signed documents: followed forward only, and changed by whoever comes first."""

from pathlib import Path
from typing import Any

import pytest

from fraud_core.errors import IntegrityError, StoreConflictError, StoreError
from fraud_core.settings import Settings
from fraud_core.signing.keys import Key
from fraud_core.storage.database import open_database
from fraud_core.storage.directory import DirectoryStore
from fraud_core.storage.documents import Counted, Found, SignedDocument
from fraud_core.storage.heads import Heads, ProcessHeads
from tests.stores import remove


class Note(Counted):
    """What the tests keep."""

    text: str
    about: str = "x"


@pytest.fixture
def heads(tmp_path: Path) -> Heads:
    return Heads(open_database(Settings(_env_file=None, home=tmp_path / "home")), "store")


@pytest.fixture(params=["database", "process", "both"])
def note(tmp_path: Path, heads: Heads, request: pytest.FixtureRequest) -> SignedDocument[Note]:
    remembered = heads if request.param == "database" else ProcessHeads(heads if request.param == "both" else None)
    store = DirectoryStore(tmp_path / "store")
    return SignedDocument(Note, "notes/x.json", store, Key(b"k" * 32), remembered, what="The note", named={"about": "x"})


def says(text: str) -> Any:
    return lambda _: Note(text=text)


def test_changes_are_counted_and_an_old_one_or_none_in_its_place_is_refused(note: SignedDocument[Note]) -> None:
    assert note.follow() is None
    assert note.update(says("one")) == Note(text="one", sequence=1)
    old = note.store.get(note.where)
    assert note.update(says("two")).sequence == 2
    assert note.follow() == note.read() == Note(text="two", sequence=2)

    note.store.put(note.where, old)
    for follow in (note.follow, lambda: note.changed(None)):
        with pytest.raises(IntegrityError, match="The note is change 1 of it, and change 2 was seen before"):
            follow()
    assert note.update(lambda found: Note(text=f"{found.document and found.document.text} again")).sequence == 3
    remove(note.store, note.where)
    with pytest.raises(IntegrityError, match="The note is gone, of which change 3 was seen"):
        note.follow()


def test_it_is_told_whether_there_is_another_one(note: SignedDocument[Note]) -> None:
    with pytest.raises(KeyError):
        note.changed(None)
    note.update(says("one"))
    found = note.changed(None)
    assert found is not None
    assert found.document == Note(text="one", sequence=1)
    assert note.changed(found.tag) is None


def test_two_who_change_it_at_once_build_on_each_other(note: SignedDocument[Note]) -> None:
    meanwhile = iter(("first",))

    def appended(found: Found[Note]) -> Note:
        for text in meanwhile:
            note.update(says(text))
        return Note(text=f"{found.document.text if found.document else 'nothing'}, second")

    assert note.update(appended).text == "first, second"
    meanwhile = iter(("third",))
    with pytest.raises(StoreConflictError):
        note.update(appended, attempts=1)


def test_a_lost_answer_to_a_write_that_was_done_is_no_conflict(
    note: SignedDocument[Note], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = note.store.put_if

    def twice(*args: Any) -> None:
        put(*args)
        put(*args)

    monkeypatch.setattr(note.store, "put_if", twice)
    assert note.update(says("one"), attempts=1).sequence == 1
    assert note.follow() == Note(text="one", sequence=1)


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"text": "one", "sequence": 9}'])
def test_what_does_not_verify_is_never_used_nor_remembered(note: SignedDocument[Note], data: bytes) -> None:
    first = note.update(says("one"))
    whole = note.store.get(note.where)
    note.store.put(note.where, data)
    with pytest.raises(IntegrityError, match="The note"):
        note.follow()
    assert not note.look().is_signed
    note.store.put(note.where, whole)
    assert note.follow() == first


def test_another_one_s_document_is_not_used_in_its_place(note: SignedDocument[Note]) -> None:
    note.update(lambda _: Note(text="one", about="y"))
    with pytest.raises(IntegrityError, match="speaks of about y"):
        note.read()


def test_a_process_goes_on_without_the_database_by_what_it_has_seen(
    tmp_path: Path, heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path / "store")
    note = SignedDocument(Note, "notes/x.json", store, Key(b"k" * 32), ProcessHeads(heads), what="The note")

    def gone(*_: Any) -> None:
        raise StoreError("The database is gone.")

    monkeypatch.setattr(heads, "behind", gone)
    note.update(says("one"))
    old = store.get(note.where)
    note.update(says("two"))
    store.put(note.where, old)
    with pytest.raises(IntegrityError, match="change 2 was seen before"):
        note.follow()
