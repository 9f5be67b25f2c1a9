"""What keys promise: made once, readable by their owner alone, never told; and nothing that was changed verifies."""

import copy
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_core.errors import IntegrityError, SettingsError
from fraud_core.settings import Settings
from fraud_core.signing import keys
from fraud_core.signing.keys import Key, canonical_json, open_signed, sign, verify

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)
HEX = "ab" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.text().filter(lambda name: name != "signature"), JSON, max_size=6)


def settings(home: Path, **given: Any) -> Settings:
    return Settings(home=home, _env_file=None, **given)


# ---- where keys come from


def test_a_key_is_made_on_first_use_for_its_owner_alone_and_stays(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    first = keys.card_key(settings(home))
    path = home / "keys" / "card.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert keys.card_key(settings(home)) == first
    assert {file.name for file in path.parent.iterdir()} == {"card.key", ".gitignore"}


def test_the_two_keys_of_an_installation_and_those_of_two_installations_differ(tmp_path: Path) -> None:
    made = [make(settings(tmp_path / home)) for home in ("a", "b") for make in (keys.card_key, keys.signing_key)]
    assert len({key.secret for key in made}) == 4


def test_a_key_that_is_given_is_used_and_none_is_made(tmp_path: Path) -> None:
    given_keys = settings(tmp_path, card_key=HEX, signing_key=f" {HEX}\n")
    assert keys.card_key(given_keys).secret == keys.signing_key(given_keys).secret == bytes.fromhex(HEX)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["abc", "zz" * 32, "ab" * 31, "ab" * 33, "correct horse battery staple"])
def test_a_malformed_key_is_refused_by_the_name_of_its_setting_and_not_repeated(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(SettingsError, match="FRAUD_CARD_KEY must be 64 hex digits") as caught:
        keys.card_key(settings(tmp_path, card_key=wrong))
    assert wrong not in str(caught.value)


def test_a_damaged_key_file_is_refused_by_its_path_and_not_replaced(tmp_path: Path) -> None:
    keys.card_key(settings(tmp_path))
    path = tmp_path / "keys" / "card.key"
    path.write_text("half")
    with pytest.raises(SettingsError, match=str(path)):
        keys.card_key(settings(tmp_path))
    assert path.read_text() == "half"


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from fraud_core.settings import Settings; from fraud_core.signing import keys\n"
        "home = Path(sys.argv[1]); print('ready', flush=True); sys.stdin.readline()\n"
        "print(keys.signing_key(Settings(home=home, _env_file=None)).secret.hex())"
    )
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(4)
    ]
    for process in racing:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = {process.communicate()[0].strip() for process in racing}
    assert found == {(tmp_path / "keys" / "signing.key").read_text()}


def test_a_key_is_not_told_by_its_name_or_its_repr() -> None:
    assert repr(KEY) == f"Key(id={KEY.id})"
    assert KEY.secret.hex()[:8] not in KEY.id
    assert KEY.id != OTHER.id
    assert KEY.id not in {KEY.digest(message).hex()[:12] for message in (b"", b"fraud key id\x00", KEY.secret)}


# ---- signatures


@given(DOCUMENTS)
def test_what_was_signed_verifies_after_a_round_trip_through_json(document: dict[str, Any]) -> None:
    data = canonical_json(sign(document, KEY))
    assert open_signed(data, KEY, "it") == json.loads(canonical_json(document))


@given(DOCUMENTS, st.data())
def test_no_changed_member_verifies(document: dict[str, Any], data: st.DataObject) -> None:
    signed = sign({"member": 1, **document}, KEY)
    changed = copy.deepcopy(signed)
    name = data.draw(st.sampled_from(sorted(changed)))
    changed[name] = data.draw(JSON.filter(lambda value: json.dumps(value) != json.dumps(signed[name])))
    with pytest.raises(IntegrityError, match="does not carry a valid signature"):
        verify(changed, KEY, "it")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda signed: {**signed, "more": 1},
        lambda signed: {name: value for name, value in signed.items() if name != "b"},
        lambda signed: {name: value for name, value in signed.items() if name != "signature"},
        lambda signed: {**signed, "signature": None},
        lambda signed: {**signed, "signature": ""},
        lambda signed: {**signed, "signature": signed["signature"][:-1]},
        lambda signed: {**signed, "signature": signed["signature"].upper()},
        lambda signed: {**signed, "signature": "é" * 64},
        lambda signed: {**signed, "a": float("nan")},
        lambda signed: {**signed, "a": "\ud800"},
        lambda signed: {**signed, "a": True},
        lambda signed: {**signed, "a": 1.0},
        lambda signed: sign(signed, OTHER),
    ],
)
def test_a_document_that_was_changed_or_signed_by_another_is_refused(spoil: Any) -> None:
    signed = sign({"a": 1, "b": [1, 2]}, KEY)
    assert verify(signed, KEY, "it") == {"a": 1, "b": [1, 2]}
    with pytest.raises(IntegrityError, match=f"latest.json .* FRAUD_SIGNING_KEY .* {KEY.id}"):
        verify(spoil(signed), KEY, "latest.json")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[]", b"1", b'"x"', b"null", b"[" * 100_000, b'{"a": NaN, "signature": "x"}']
)
def test_bytes_that_are_no_signed_document_are_an_integrity_error(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"latest\.json"):
        open_signed(data, KEY, "latest.json")


@given(DOCUMENTS)
def test_the_bytes_of_a_document_do_not_depend_on_the_order_of_its_members(document: dict[str, Any]) -> None:
    assert canonical_json(dict(reversed(document.items()))) == canonical_json(document)
