"""Fifty promotions, ten rollbacks, corruption and a lost store under constant load: no failed request, no mixed answer."""

import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from fraud_core.fields.declared import Declared
from fraud_core.models.registry import LATEST
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.score import inputs_of
from fraud_core.signing.keys import Key, canonical_json, sign
from fraud_core.storage.database import open_database
from fraud_core.storage.heads import Heads
from fraud_core.transactions.transaction import EXAMPLE, Transaction
from tests.api_server import NAMELESS, Load, Servers, eventually, problem_of, version_of

pytestmark = pytest.mark.integration

Record = Callable[[str, dict[str, Any]], None]
FILES = ("manifest.json", "encoder.json", "model.treelite")
VERSIONS = 6
POLL_SECONDS = 0.1


def test_no_request_fails_and_no_answer_mixes_models(servers: Servers, installation: Any, full: bool, record: Record) -> None:
    promotions, rollbacks, away_seconds, load_seconds = (50, 10, 20.0, 60.0) if full else (10, 2, 1.0, 0.0)
    store = installation.store
    heads = Heads(open_database(installation.settings), store.url)  # as the pipeline promotes: above whatever was seen
    expected = {}
    for number in range(VERSIONS):
        bundle = installation.bundle(number)
        expected[bundle.version] = float(Scorer(bundle).score_inputs(inputs_of([Transaction.model_validate(EXAMPLE)]))[0])
    assert len(set(expected.values())) == VERSIONS
    installation.promote(0)
    server = servers.start(installation.settings)
    eventually(lambda: version_of(server.url))
    # since when each version was the champion; what is never promoted must never be served
    champions: list[tuple[float, str]] = [(0.0, installation.bundle(0).version)]

    def promote(number: int) -> None:
        champions.append((time.monotonic(), installation.bundle(number).version))
        version = installation.promote(number, heads)
        eventually(lambda: version_of(server.url) == version)

    begin = time.monotonic()
    with Load(server.url).running() as load:
        for at in range(promotions):
            promote(1 + at % 3)
        for at in range(rollbacks):
            promote(1 + (promotions + at + 1) % 3)
        refusals = 0
        good = store.get(LATEST)
        for pointer in _pointers_that_must_not_be_followed(installation, good):
            store.put(LATEST, pointer)
            eventually(lambda: problem_of(server.url) == "IntegrityError")
            store.put(LATEST, good)
            eventually(lambda: problem_of(server.url) is None)
            refusals += 1
        away = store.root.with_name("away")
        store.root.rename(away)
        eventually(lambda: problem_of(server.url) is not None)
        time.sleep(away_seconds)
        away.rename(store.root)
        eventually(lambda: problem_of(server.url) is None)
        promote(4)  # it still follows
        time.sleep(max(0.0, load_seconds - (time.monotonic() - begin)))

    assert load.failed == []
    assert len(load.told) > 100
    spans = [*pairwise(champions), (champions[-1], (float("inf"), ""))]
    for sent, answered, version, probability in load.told:
        assert probability == expected[version], "an answer mixed two models"
        # A worker may serve the one before until it has looked again and loaded: the caller below waits for that each time.
        assert any(
            v == version and since <= answered and sent <= until + 30 * POLL_SECONDS for (since, v), (until, _) in spans
        ), "an answer by a model that was not champion then"
    record(
        "api_reload",
        {
            "seconds": round(time.monotonic() - begin),
            "requests": len(load.told),
            "failed": len(load.failed),
            "promotions": promotions,
            "rollbacks": rollbacks,
            "pointers_and_bundles_refused": refusals,
            "store_away_seconds": away_seconds,
        },
    )


DEVICE: dict[str, Any] = {"device": {"kind": "id"}}
BASKET: dict[str, Any] = {"basket": {"kind": "number"}, "channel": {"kind": "category", "values": ["web", "app"]}}


def test_two_workers_take_what_the_newest_champion_declares_before_they_have_it(servers: Servers, installation: Any) -> None:
    """Callers send a newer champion's fields, or leave out an older one's, from the moment at which it is pointed to."""
    heads = Heads(open_database(installation.settings), installation.store.url)
    both, more = {"device": "d-1"}, {"device": "d-1", "basket": 2.5, "channel": "app"}
    demanded = {"device": {"kind": "id", "required": True}}
    steps = [
        ({**DEVICE, **BASKET}, more),  # added
        (DEVICE, both),  # removed, and no longer sent
        ({**DEVICE, **BASKET}, more),
        (DEVICE, more),  # removed, and still sent
        (demanded, both),
        ({}, {}),  # demanded by the one before, and no longer sent
    ]
    installation.promote(0, declared=Declared.model_validate({"fields": DEVICE}))
    # A worker looks every two seconds by itself; in the meantime it hears of a champion from payments alone.
    server = servers.start(installation.settings, FRAUD_API_WORKERS="2", FRAUD_POLL_SECONDS="2")
    eventually(lambda: version_of(server.url))
    with Load(server.url, NAMELESS | both).running(4) as load:
        eventually(lambda: len(load.told) > 20)
        for number, (declared, sent) in enumerate(steps, start=1):
            version = installation.promote(number, heads, Declared.model_validate({"fields": declared}))
            load.payment = NAMELESS | sent
            seen = len(load.told)
            eventually(lambda: len(load.told) > seen + 100 and {one[2] for one in load.told[-60:]} == {version})  # noqa: B023
    assert load.failed == []


def _pointers_that_must_not_be_followed(installation: Any, good: bytes) -> list[bytes]:
    """Pointers that are damaged, forged, or lead to a bundle with a flipped byte; the bundles are written on the way."""
    pointers = [good[: len(good) // 2], b"", b"{}", good.replace(b'"sequence":', b'"sequence":9')]
    for at in range(0, len(good), max(1, len(good) // 8)):
        pointers.append(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    document = json.loads(good)
    ahead = document | {"version": installation.bundle(5).version, "sequence": document["sequence"] + 1_000}
    pointers.append(canonical_json(sign(ahead, Key(bytes(32)))))
    for number, name in enumerate(FILES, start=10):  # bundles of their own: each is broken for good
        bundle = installation.bundle(number)
        installation.write(bundle)
        path = installation.store.local_path(f"models/{bundle.version}/{name}")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        manifest_sha256 = installation.manifest_sha256(bundle.version)
        lead = document | {
            "version": bundle.version,
            "manifest_sha256": manifest_sha256,
            "sequence": document["sequence"] + 1_000,
        }
        pointers.append(canonical_json(sign(lead, installation.key)))
    return pointers
