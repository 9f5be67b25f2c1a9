"""Judge a partition by the drift gate, or overrule its verdict, and record what was decided."""

from datetime import UTC, datetime

from fraud_assets.delivery import delivery
from fraud_assets.installation import Installation
from fraud_assets.runtime.alibi import chosen_detector
from fraud_core import gate
from fraud_core.errors import PartitionError
from fraud_core.gate import Decision, Judgement, Verdict
from fraud_core.gate.labels import decide_on_labels
from fraud_core.storage.artifacts import Pointer
from fraud_core.training_data.transform import source_features


def judge_partition(installation: Installation, key: str) -> Judgement:
    """The gate's judgement of a materialized partition; nothing is recorded.

    Raises:
        GateRefusalError: the rules of the gate were changed, which nobody has confirmed.
        IntegrityError: a sample is missing or was changed.
    """
    source, artifacts, rules = installation.source, installation.artifacts, installation.rules(record=True)
    contents = {partition: pointer.content for partition, pointer in installation.transformed().items()}
    past = gate.load_past(artifacts.store, artifacts.signing_key, key, contents, source.drift, rules, installation.heads)
    return gate.judge(
        partition=key,
        content=contents[key],
        frame=artifacts.scan("transformed", key).collect(),
        features=source_features(source),
        past=past,
        position=gate.position(source, key),
        settings=source.drift,
        seed=installation.settings.seed,
        detector=chosen_detector(installation.settings.drift_detector),
        now=datetime.now(UTC),
        rules=rules,
    )


def decide_partition(installation: Installation, key: str, *, accept: bool, who: str, reason: str) -> Verdict:
    """Record a person's decision on a partition's present content.

    Raises:
        GateRefusalError: the reason has no words, or the partition was not judged yet.
        PartitionError: it was not materialized.
    """
    pointer = require_materialized(installation, key)
    decide = gate.accept if accept else gate.refuse
    store, signing_key = installation.artifacts.store, installation.artifacts.signing_key
    now, content = datetime.now(UTC), pointer.content
    present = gate.read_verdict(store, signing_key, key)
    if accept and present is not None and present.content == content and present.is_accepted:
        gate.require_reason(key, "accept", reason)
        decision = Decision(action="accept", who=who, reason=reason, at=now)
        if decide_on_labels(store, signing_key, key, content, decision, installation.heads) is not None:
            return present  # its labels were what held it
    verdict = decide(store, signing_key, key, content, who=who, reason=reason, now=now, heads=installation.heads)
    delivery.note_verdict(installation, verdict, installation.tell)
    return verdict


def require_materialized(installation: Installation, key: str) -> Pointer:
    """What a partition holds that a person decides on.

    Raises:
        PartitionError: it was not materialized.
    """
    pointer = installation.artifacts.pointer("transformed", key)
    if pointer is None:
        raise PartitionError(f"transformed {key} was not materialized, so there is nothing to decide on.")
    return pointer
