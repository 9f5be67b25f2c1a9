"""Typed module for an installation's own payments: a class whose keywords are the fields that its model declares."""

import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

_TYPES = {
    "number": "float | Decimal | int",
    "category": "str | int",
    "flag": "bool",
    "time": "datetime | date",
    "id": "str | int",
}
_STANDARD = {
    "timestamp": "datetime",
    "amount": "Decimal | int | str",
    "transaction_id": "str",
    "card": "str",
    "merchant": "str",
    "category": "str",
    "birth_date": "date",
    "home_latitude": "float",
    "home_longitude": "float",
    "merchant_latitude": "float",
    "merchant_longitude": "float",
    "city_population": "int",
}


def typed_module(source: str, version: str, fields: Iterable[Mapping[str, Any]]) -> str:
    """The module as text.

    Args:
        source: name of the data source.
        version: of the model that declares the fields.
        fields: `fields` of GET /v1/model.
    """
    given = [field for field in fields if field["derived_from"] is None and _is_name(field["name"])]
    given.sort(key=lambda field: not field["required"])  # the required ones first
    own = [field["name"] for field in given if field["name"] not in _STANDARD]
    arguments = [_argument(field) for field in given]
    lines = [
        f'"""Payments of {_plain(source)}, as model {_plain(version)} declares them; written by `fraud client-types`."""',
        "",
        *_imports(arguments),
        "import fraud_client.types",
        "",
        "",
        "class Transaction(fraud_client.types.Transaction):",
        '    """One payment. What is None counts as missing.',
        "",
        "    Args:",
        *(f"        {field['name']}: {_words(field)}" for field in given),
        '    """',
        "",
        "    def __init__(",
        "        self,",
        "        *,",
        *(f"        {argument}," for argument in arguments),
        "    ) -> None:",
        "        super().__init__(",
        *(f"            {field['name']}={field['name']}," for field in given if field["name"] in _STANDARD),
        *(f"            {name}={name}," for name in own),
        "        )",
        "",
    ]
    return "\n".join(lines)


def _imports(arguments: Iterable[str]) -> list[str]:
    """The imports that the types in these arguments need, as linters have them in order."""
    named = {name for argument in arguments for name in re.findall(r"[A-Za-z]+", argument.partition(":")[2].partition("=")[0])}
    modules = {"datetime": ("date", "datetime"), "decimal": ("Decimal",), "typing": ("Literal",)}
    used = {module: [name for name in names if name in named] for module, names in modules.items()}
    return [*(f"from {module} import {', '.join(names)}" for module, names in used.items() if names), ""]


def _is_name(name: str) -> bool:
    """Whether Python can call something so; what it cannot is left out, and goes into `own`."""
    return name.isidentifier() and not keyword.iskeyword(name)


def _argument(field: Mapping[str, Any]) -> str:
    kind = _STANDARD.get(field["name"]) or _TYPES[field["kind"]]
    if field["kind"] == "category" and field["values"]:
        kind = f"Literal[{', '.join(map(repr, field['values']))}]"
    return f"{field['name']}: {kind}" if field["required"] else f"{field['name']}: {kind} | None = None"


def _words(field: Mapping[str, Any]) -> str:
    unit = f", in {field['unit']}" if field["unit"] else ""
    bounds = [f"{word} {field[key]:g}" for word, key in (("from", "lowest"), ("to", "highest")) if field[key] is not None]
    personal = "; hashed on arrival or not kept" if field["personal"] else ""
    return _plain(f"{field['meaning']}{unit}{', ' if bounds else ''}{' '.join(bounds)}{personal}.")


def _plain(words: str) -> str:
    """Words as they may stand in a docstring."""
    return " ".join(words.replace("\\", "/").replace('"', "'").split())
