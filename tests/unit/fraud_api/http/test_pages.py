"""The API's documentation as a page, and what clients of all kinds may send."""

import re
from typing import Any

from fraud_core.transactions.transaction import EXAMPLE


def test_whoever_opens_the_api_in_a_browser_finds_swagger_ui_and_loads_nothing_from_elsewhere(
    call: Any, installation: Any
) -> None:
    api = call(installation.settings, asks_for_keys=True)
    assert api.get("/").headers["location"] == "/docs"
    page = api.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)""", page.text)
    assert set(loaded) == {"/docs/swagger-ui.js", "/docs/swagger-ui.css", "/docs/favicon.png", "/openapi.json"}
    assert {path: api.get(path).status_code for path in loaded} == dict.fromkeys(loaded, 200)


def test_a_slash_at_the_end_of_a_path_changes_nothing(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings)
    assert api.post("/v1/score/", json=EXAMPLE).status_code == 200
    assert api.get("/healthz/").status_code == 200


def test_health_is_told_to_those_who_ask_with_head(call: Any, installation: Any) -> None:
    api = call(installation.settings)
    assert {path: api.runner.run(api.http.head(path)).status_code for path in ("/healthz", "/readyz")} == {
        "/healthz": 200,
        "/readyz": 503,
    }


def test_operation_ids_are_stable_names(call: Any, installation: Any) -> None:
    document = call(installation.settings).get("/openapi.json").json()
    assert {one["operationId"] for operations in document["paths"].values() for one in operations.values()} == {
        "score",
        "refund",
        "score_batch",
        "score_file",
        "label",
        "model",
        "all_models",
        "reload",
        "healthz",
        "readyz",
    }
