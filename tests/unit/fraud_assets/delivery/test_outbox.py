"""The outbox: in order, signed, and kept until it was delivered."""

import subprocess
import sys
from pathlib import Path

import pytest

from fraud_assets.delivery.outbox import Outbox, held
from fraud_core.signing.keys import Key

KEY = Key(b"k" * 32)


def test_messages_come_out_in_the_order_in_which_they_came_until_they_are_done(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box", KEY)
    for number in range(5):
        box.put({"number": number})
    again = Outbox(tmp_path / "box", KEY)
    entries, wrong = again.read()
    assert wrong == ""
    assert [entry.body["number"] for entry in entries] == [0, 1, 2, 3, 4]
    again.done(entries[0])
    again.done(entries[0])
    assert [entry.body["number"] for entry in box.read()[0]] == [1, 2, 3, 4]
    assert len(box) == 4


@pytest.mark.parametrize("forged", [b'{"number": 7}', b"no json", b""])
def test_a_message_that_somebody_else_wrote_is_not_taken_and_holds_up_no_other(tmp_path: Path, forged: bytes) -> None:
    box = Outbox(tmp_path, KEY)
    (tmp_path / "00000000000000000001-aaaaaaaa.json").write_bytes(forged)
    box.put({"number": 1})
    entries, wrong = box.read()
    assert [entry.body["number"] for entry in entries] == [1]
    assert "00000000000000000001-aaaaaaaa.json" in wrong
    assert len(box) == 2


def test_what_a_crash_left_half_written_is_no_message(tmp_path: Path) -> None:
    (tmp_path / ".00000000000000000001-aaaaaaaa.json").write_bytes(b'{"num')
    assert Outbox(tmp_path, KEY).read() == ([], "")


def test_a_lock_is_one_process_and_ends_with_it(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from fraud_assets.delivery.outbox import held\n"
    program += "with held(Path(sys.argv[1]), 0) as alone: print(alone)"
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with held(tmp_path / "lock", 0) as alone:
        assert alone
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
