"""The rules of the gate: what decides, as the source's TOML declares it; recorded in the store, signed, changed only by a person.

    drift/rules.json    the rules in force, and every change of them: what, who, why, when

Whoever edits the TOML could otherwise let anything pass without a trace: more bootstrap partitions, a later first one, features
that are not looked at. Every verdict is bound to the rules it was judged by.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fraud_core.errors import GateRefusalError
from fraud_core.gate.verdict import FOLDER, Decision, has_words
from fraud_core.signing.keys import Key, canonical_json
from fraud_core.sources.source import Source
from fraud_core.storage.documents import Counted, Found, SignedDocument
from fraud_core.storage.heads import Heads
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


class Rules(Counted):
    """The rules in force. `history` holds the changes so far, newest last; the first is the record of the first start."""

    format: Literal[1] = 1
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
        "columns": sorted(_judged(source, name) for name in (*source.columns.canonical, *source.declared.own)),
        "label": None if source.columns.label is None else source.columns.label.model_dump(mode="json"),
        "excluded_features": sorted(source.excluded_features),
        "history": source.history.enabled,
        "history_days": source.history_days,
        "quality.quarantined_share": source.quality.quarantined_share,
        **{f"drift.{name}": value for name, value in source.drift.model_dump(mode="json").items()},
    }
    return dict(sorted(values.items()))


def _judged(source: Source, name: str) -> str:
    """A field, with how its drift is judged where the source says that it does not block."""
    field = source.declared.fields.get(name)
    return name if field is None or field.drift == "blocks" else f"{name} ({field.drift})"


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
    document = _rules_of(store, key, heads)
    rules = document.follow()
    if rules is None:
        _require_first(store)
        present = declared(source)
        decision = Decision(action="confirm", who="pipeline", reason=FIRST, at=now)
        first = Rules(sequence=1, rules=present, history=(RulesChange(sha256=_hash(present), changes=(), decision=decision),))
        # Another process may come first.
        rules = document.update(lambda found: found.document or first) if record else first
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
    present = declared(source)

    def confirmed(rules: Rules) -> Rules:
        changed = changes(rules.rules, present)
        if not changed:
            raise GateRefusalError("The source's TOML declares the rules that are in force; there is nothing to confirm.")
        decision = Decision(action="confirm", who=who, reason=reason, at=now)
        change = RulesChange(sha256=_hash(present), changes=changed, decision=decision)
        return rules.model_copy(update={"rules": present, "history": (*rules.history, change)})

    return _change(_rules_of(store, key, heads), confirmed).history[-1].changes


def take_as_restored(store: ObjectStore, key: Key, *, who: str, reason: str, now: datetime, heads: Heads) -> str:
    """A person says that the store was restored from a backup: what was seen of it before is forgotten; recorded with the rules.

    Raises:
        GateRefusalError: the reason has no words, or no rules are recorded in the store.
        StoreConflictError: somebody else changed them at the same moment.
    """
    if not has_words(reason):
        raise GateRefusalError("To take the store as it is, give a reason in words.")

    def restored(rules: Rules) -> Rules:
        said = f"the store was restored to change {rules.sequence} of the rules; what was seen of it before is forgotten"
        decision = Decision(action="confirm", who=who, reason=reason, at=now)
        change = RulesChange(sha256=rules.sha256, changes=(said,), decision=decision)
        return rules.model_copy(update={"history": (*rules.history, change)})

    document = _rules_of(store, key, heads)
    _change(document, restored)
    forgotten = heads.forget()
    document.follow()
    return f"What was seen of {forgotten} signed documents is forgotten; they are followed from what the store holds now."


def _rules_of(store: ObjectStore, key: Key, heads: Heads | None) -> SignedDocument[Rules]:
    return SignedDocument(
        Rules,
        RULES,
        store,
        key,
        heads,
        what="The record of the gate's rules",
        repair="Restore it from a backup; nothing is judged before.",
        renew="Nothing is judged before it is restored; if the whole store was restored from a backup: "
        '`fraud confirm --restored --reason "..."`.',
        error=GateRefusalError,
        indent=1,
    )


def _change(document: SignedDocument[Rules], change: Callable[[Rules], Rules]) -> Rules:
    """A person's change of the rules that lie in the store, be they the newest that were seen or not."""

    def changed(found: Found[Rules]) -> Rules:
        if found.problem is not None:
            raise GateRefusalError(found.problem)
        if found.document is None:
            raise GateRefusalError(
                f"No rules of the gate are recorded yet in {document.store.uri(RULES)}; they are at the first partition that is "
                "judged. If they were, restore them, too."
            )
        return change(found.document)

    return document.update(changed, attempts=1)


def _require_first(store: ObjectStore) -> None:
    """See that this is a first start indeed, and that the record was not removed."""
    if any(name.endswith(".json") and json.loads(store.get(name)).get("rules") for name in store.list(FOLDER)):
        raise GateRefusalError(
            f"{store.uri(RULES)} is gone, the record of the rules that partitions were judged by; restore it from a backup."
        )


def _hash(rules: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(rules)).hexdigest()


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
