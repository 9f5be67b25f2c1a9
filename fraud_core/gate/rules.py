"""The rules of the gate: what decides, as the source's TOML declares it; recorded in the store, signed, changed only by a person.

    drift/rules.json    the rules in force, and every change of them: what, who, why, when

Whoever edits the TOML could otherwise let anything pass without a trace: more bootstrap partitions, a later first one, features
that are not looked at. Every verdict is bound to the rules it was judged by.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fraud_core.errors import GateRefusalError, IntegrityError, StoreConflictError
from fraud_core.gate.verdict import FOLDER, Decision, has_words
from fraud_core.signing.documents import open_document, signature_of, signed_document
from fraud_core.signing.keys import Key, canonical_json
from fraud_core.sources.source import Source
from fraud_core.storage.heads import Head, Heads
from fraud_core.storage.objects import ObjectStore

RULES = f"{FOLDER}/rules.json"
FIRST = "recorded at the first start"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RulesChange(_Model):
    """One change of the rules: from what to what, in words, and whose decision it was. `sha256` is the hash of those after it."""

    sha256: str
    changes: tuple[str, ...]
    decision: Decision


class Rules(_Model):
    """The rules in force. `history` holds the changes so far, newest last; the first is the record of the first start."""

    format: Literal[1] = 1
    sequence: int
    rules: dict[str, Any]
    history: tuple[RulesChange, ...]

    @property
    def sha256(self) -> str:
        """Hash of the rules, to which verdicts are bound."""
        return self.history[-1].sha256

    @property
    def confirmed(self) -> Decision | None:
        """Who let them be changed to what they are; None where they are those of the first start."""
        return self.history[-1].decision if len(self.history) > 1 else None

    def holds(self, bound: str) -> bool:
        """Whether a verdict bound to rules was judged by those in force. What is bound to none is older than the first."""
        return (bound or self.history[0].sha256) == self.sha256


def declared(source: Source) -> dict[str, Any]:
    """The rules that the source's TOML declares: name -> value, as JSON has it."""
    values = {
        "first": source.first,
        "cadence": source.cadence.value,
        "timezone": source.timezone,
        "columns": sorted(source.columns.canonical),
        "label": None if source.columns.label is None else source.columns.label.model_dump(mode="json"),
        "excluded_features": sorted(source.excluded_features),
        "history": source.history.enabled,
        "history_days": source.history_days,
        "quality.quarantined_share": source.quality.quarantined_share,
        **{f"drift.{name}": value for name, value in source.drift.model_dump(mode="json").items()},
    }
    return dict(sorted(values.items()))


def changes(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> tuple[str, ...]:
    """What is declared otherwise than it is recorded, in words. A rule that the record does not know is younger than it."""
    return tuple(
        f"{name} was {_said(recorded[name])} and is {_said(value)}"
        for name, value in present.items()
        if name in recorded and recorded[name] != value
    )


def rules_in_force(
    store: ObjectStore, key: Key, source: Source, now: datetime, heads: Heads | None = None, *, record: bool = True
) -> Rules:
    """The rules by which partitions are judged. At the first start those of the TOML are recorded without a question.

    Args:
        record: whether to record them where none are, as whoever judges does; who only asks does not.

    Raises:
        GateRefusalError: the TOML declares others, which nobody has confirmed; or the record is missing, is not the newest that
            was seen, or was changed by hand.
    """
    found = store.get_tagged(RULES)
    if found is None:
        _require_first(store, key, heads)
        present = declared(source)
        decision = Decision(action="confirm", who="pipeline", reason=FIRST, at=now)
        change = RulesChange(sha256=_hash(present), changes=(), decision=decision)
        first = Rules(sequence=1, rules=present, history=(change,))
        if not record:
            return first
        try:
            return _write(store, key, first, None, heads)
        except StoreConflictError:  # another process came first
            found = store.get_tagged(RULES)
            assert found is not None
    rules = _parse(found[0], key, store)
    if heads is not None and heads.older({RULES: _head(found[0], rules)}):
        raise GateRefusalError(
            f"{store.uri(RULES)} is change {rules.sequence} of the gate's rules, and change {heads.sequence(RULES)} was seen "
            "before: an old record was put back, and nothing is judged by it. If the store was restored from a backup: "
            '`fraud confirm --restored --reason "..."`.'
        )
    changed = changes(rules.rules, declared(source))
    if changed:
        raise GateRefusalError(
            f"The source's TOML changes what the gate decides by: {'; '.join(changed)}. Nothing is judged or trained until "
            'a person confirms that: `fraud confirm --reason "..."`, or in Dagster the job confirm_rules. Or take it back.'
        )
    return rules


def confirm(
    store: ObjectStore, key: Key, source: Source, *, who: str, reason: str, now: datetime, heads: Heads | None = None
) -> tuple[str, ...]:
    """A person lets the rules be those that the TOML declares; returns what has changed, in words. All is judged anew then.

    Raises:
        GateRefusalError: the reason has no words, nothing has changed, or there is no record to change.
        StoreConflictError: somebody else changed them at the same moment.
    """
    if not has_words(reason):
        raise GateRefusalError("To confirm the rules of the gate, give a reason in words: whoever reads a verdict will see it.")
    found = store.get_tagged(RULES)
    if found is None:
        raise GateRefusalError("No rules of the gate are recorded yet; they are at the first partition that is judged.")
    rules, present = _parse(found[0], key, store), declared(source)
    changed = changes(rules.rules, present)
    if not changed:
        raise GateRefusalError("The source's TOML declares the rules that are in force; there is nothing to confirm.")
    decision = Decision(action="confirm", who=who, reason=reason, at=now)
    change = RulesChange(sha256=_hash(present), changes=changed, decision=decision)
    seen = 0 if heads is None else heads.sequence(RULES)
    after = Rules(sequence=max(rules.sequence, seen) + 1, rules=present, history=(*rules.history, change))
    _write(store, key, after, found[1], heads)
    return changed


def take_as_restored(store: ObjectStore, key: Key, *, who: str, reason: str, now: datetime, heads: Heads) -> str:
    """A person says that the store was restored from a backup: what was seen of it before is forgotten; recorded with the rules.

    Raises:
        GateRefusalError: the reason has no words, or no rules are recorded in the store.
        StoreConflictError: somebody else changed them at the same moment.
    """
    if not has_words(reason):
        raise GateRefusalError("To take the store as it is, give a reason in words.")
    found = store.get_tagged(RULES)
    if found is None:
        raise GateRefusalError(f"{store.uri(RULES)} is not there; restore it, too.")
    rules = _parse(found[0], key, store)
    said = f"the store was restored to change {rules.sequence} of the rules; what was seen of it before is forgotten"
    decision = Decision(action="confirm", who=who, reason=reason, at=now)
    change = RulesChange(sha256=rules.sha256, changes=(said,), decision=decision)
    sequence = max(rules.sequence, heads.sequence(RULES)) + 1
    forgotten = heads.forget()
    _write(store, key, rules.model_copy(update={"sequence": sequence, "history": (*rules.history, change)}), found[1], heads)
    return f"What was seen of {forgotten} signed documents is forgotten; they are followed from what the store holds now."


def _require_first(store: ObjectStore, key: Key, heads: Heads | None) -> None:
    """See that this is a first start indeed, and that the record was not removed."""
    removed = heads is not None and heads.sequence(RULES) > 0
    for name in () if removed else store.list(FOLDER):
        if name.endswith(".json") and json.loads(store.get(name)).get("rules"):
            removed = True
            break
    if removed:
        raise GateRefusalError(
            f"{store.uri(RULES)} is gone, the record of the rules that partitions were judged by; restore it from a backup."
        )


def _write(store: ObjectStore, key: Key, rules: Rules, tag: str | None, heads: Heads | None) -> Rules:
    data = signed_document(rules, key, indent=1)
    store.put_if(RULES, data, tag)
    if heads is not None:
        heads.older({RULES: _head(data, rules)})
    return rules


def _head(data: bytes, rules: Rules) -> Head:
    return Head(rules.sequence, signature_of(data))


def _parse(data: bytes, key: Key, store: ObjectStore) -> Rules:
    try:
        return open_document(Rules, data, key, store.uri(RULES))
    except IntegrityError as error:
        raise GateRefusalError(f"{error} Restore it from a backup; nothing is judged before.") from error


def _hash(rules: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(rules)).hexdigest()


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
