"""Case page: what was typed, checked by the API's own rules; its score with every reason; and what if it were otherwise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import ValidationError

from fraud_core.decisions.log import DecisionRecord
from fraud_core.errors import FraudError
from fraud_core.fields.declaration import noun_of
from fraud_core.fields.declared import ALIASES, Declared
from fraud_core.history.lookup import HistoryLookup
from fraud_core.models.explain import Reason
from fraud_core.models.follower import LoadedModel
from fraud_core.models.scorer import Scorer
from fraud_core.review.retest import Starting, score_again
from fraud_core.scoring.score import Examined, Scored, examined, from_values, score_together
from fraud_core.transactions.decision import Decision
from fraud_core.transactions.declared_type import changed as with_changes
from fraud_core.transactions.declared_type import example_of
from fraud_core.transactions.refusals import FieldProblem, wrong_fields
from fraud_core.transactions.told_fields import ToldField, told_fields
from fraud_core.transactions.transaction import Transaction
from fraud_core.units.geography import EARTH_RADIUS_METRES
from fraud_ui.kit import charts
from fraud_ui.kit.charts import Axis, Chart, Line
from fraud_ui.kit.wording import DECISIONS, alert, escaped, kilometres, money, note, percent, signed, table, threshold

SHOWN_REASONS = 8  # the weaker ones are told together
WHEN = "%Y-%m-%dT%H:%M:%S"  # as browsers write it


@dataclass(frozen=True)
class Form:
    """What stands in the form: text and numbers as typed, None or empty where nothing is. `when` is in the analyst's zone.

    `own` are the rows of the fields that the model declares (see `own_rows`)."""

    when: str | None = None
    amount: float | None = None
    category: str | None = None
    merchant: str | None = None
    card: str | None = None
    birth_date: str | None = None
    city_population: float | None = None
    home_latitude: float | None = None
    home_longitude: float | None = None
    merchant_latitude: float | None = None
    merchant_longitude: float | None = None
    own: Sequence[Sequence[str]] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """The fields in order."""
        return tuple(getattr(self, field.name) for field in fields(self))


LABELS: Mapping[str, str] = {
    "when": "When",
    "amount": "Amount",
    "category": "Category",
    "merchant": "Merchant",
    "card": "Card number or token",
    "birth_date": "Birth date of the cardholder",
    "city_population": "Inhabitants of the home town",
    "home_latitude": "Home: latitude",
    "home_longitude": "Home: longitude",
    "merchant_latitude": "Merchant: latitude",
    "merchant_longitude": "Merchant: longitude",
}

OWN_HEADER = ("Field", "Value", "What it may be")


def label_of(name: str, declared: Declared) -> str:
    """What a field is called on the page: by its declared meaning, with its name where that is another."""
    if (field := declared.own.get(name)) is None:
        return LABELS.get(_IN_FORM.get(name, name), name)
    words = noun_of(name, field)
    words = words[:1].upper() + words[1:]
    return words if words.lower().replace(" ", "_") == name.lower() else f"{words} ({name})"


def own_rows(served: LoadedModel | None, values: Mapping[str, Any] | None = None) -> list[list[str]]:
    """The fields that the model declares beside the standard ones, as rows of label, value and what it may be: the required ones
    first, then what the model looks at, then what only people and rules see.

    Args:
        served: the model.
        values: by field; None: an example in those that are required.
    """
    if served is None or not served.scorer.declared.given:
        return []
    declared = served.scorer.declared
    example = example_of(declared)
    given = {name: example[name] for name, field in declared.given.items() if field.required} if values is None else values
    told = [field for field in told_fields(declared, declared) if field.name in declared.given]
    told.sort(key=lambda field: (not field.required, field.name not in _looked_at(served)))
    return [[label_of(field.name, declared), _typed(given.get(field.name)), _described(field, served)] for field in told]


def _looked_at(served: LoadedModel) -> frozenset[str]:
    """The own fields that something the model sees is made of, be it by way of a derived one or of the past."""
    scorer = served.scorer
    found = {name for feature in scorer.features for name in (*feature.needs, *feature.reads)}
    for name, field in reversed(list(scorer.declared.derived.items())):
        if name in found and field.derivation is not None:
            found.update(field.derivation.needs)
    return frozenset(found)


def _described(field: ToldField, served: LoadedModel) -> str:
    """What may stand in a field, and what is made of it."""
    low, high = field.lowest, field.highest
    bounds = " ".join(f"{word} {one:g}" for word, one in (("from", low), ("to", high)) if one is not None)
    values = () if field.values is None else ("yes", "no", *field.values) if field.kind == "flag" else field.values
    what = {"number": "a number", "time": "a time with its offset, or a day", "flag": "yes or no"}.get(field.kind, "")
    parts = (
        "required" if field.required else "",
        f"{', '.join(values[:8])}{' ...' if len(values) > 8 else ''}" if values else " ".join((what, bounds)).strip(),
        f"in {field.unit}" if field.unit else "",
        "never stored or shown" if field.personal else "",
        "" if field.name in _looked_at(served) else "the model does not look at it",
    )
    return "; ".join(part for part in parts if part)


def _typed(value: Any) -> str:
    """A value as it is typed."""
    return "" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def own_values(rows: Sequence[Sequence[str]], declared: Declared) -> dict[str, str]:
    """What was typed into rows of own fields, by the fields' names; also where they were written for another model."""
    names = {label_of(name, declared): name for name in declared.given} | {name: name for name in declared.given}
    typed = {names[str(row[0])]: str(row[1] or "").strip() for row in rows if len(row) > 1 and str(row[0]) in names}
    return {name: text for name, text in typed.items() if text}


def _own_typed(form: Form, declared: Declared) -> dict[str, Any]:
    """What was typed for own fields."""
    sent: dict[str, Any] = dict(own_values(form.own, declared))
    for name, text in sent.items():  # a truth value is one, whatever texts a file has for it
        if declared.given[name].kind == "flag":
            sent[name] = {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)
    return sent


_IN_FORM = {"amount_cents": "amount", "timestamp": "when"}  # columns that the form calls otherwise


class WrongFormError(FraudError):
    """Something in the form cannot be a payment; `problems` name every wrong field by its label."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(f"{problem.field} {problem.reason}" for problem in problems))
        self.problems = tuple(problems)


def typed_payment(
    form: Form, zone: ZoneInfo, reading: dict[str, Any] | None = None, of: type[Transaction] = Transaction
) -> Transaction:
    """The payment that was typed.

    Raises:
        WrongFormError: something in it is wrong or missing.
    """
    sent = {field.name: getattr(form, field.name) for field in fields(form) if field.name != "own"}
    sent = {name: value.strip() if isinstance(value, str) else value for name, value in sent.items()}
    sent = {name: value for name, value in sent.items() if value not in (None, "")}
    sent |= _own_typed(form, of.model_declared)
    population = sent.get("city_population")
    if isinstance(population, float) and population.is_integer():
        sent["city_population"] = int(population)
    problems = []
    if "when" in sent:
        try:
            sent["timestamp"] = _instant(str(sent.pop("when")), zone)
        except ValueError:
            problems.append(FieldProblem(field=LABELS["when"], reason="is not a time; write it as 2024-06-21 14:05:00"))
    try:
        payment = from_values(sent, reading, of)
    except ValidationError as error:
        found = [p for p in wrong_fields(error) if not (problems and p.field == "timestamp")]
        problems += [FieldProblem(field=_label(p.field, of.model_declared), reason=p.reason) for p in found]
        raise WrongFormError(problems) from None
    return payment


def logged_form(record: DecisionRecord, zone: ZoneInfo, served: LoadedModel | None = None) -> Form:
    """A logged payment as the form shows it; what the log does not keep is empty."""
    known = record.transaction
    return Form(
        when=known.timestamp.astimezone(zone).strftime(WHEN),
        amount=known.amount_cents / 100,
        category=known.category,
        merchant=known.merchant,
        city_population=known.city_population,
        merchant_latitude=known.merchant_latitude,
        merchant_longitude=known.merchant_longitude,
        own=own_rows(served, None if served is None else _in_base(known.own, served.scorer.declared)),
    )


def _in_base(own: Mapping[str, Any], declared: Declared) -> dict[str, Any]:
    """Own fields of a logged payment, whose amount is in the base currency, whichever it was made in."""
    amounts = declared.amounts
    return {**own, amounts.by: amounts.base} if amounts.by else dict(own)


def logged_payment(record: DecisionRecord, of: type[Transaction] = Transaction) -> Transaction:
    """A logged payment, as far as the log keeps it. It was checked when it came in."""
    columns = record.transaction._asdict()
    logged = columns.pop("own")
    logged = _in_base(logged, of.model_declared)
    own: dict[str, Any] = {name: logged.get(name) for name in of.model_declared.own}
    for name, value in own.items():
        if value is not None and of.model_declared.own[name].kind == "time":
            own[name] = datetime.fromisoformat(value)
    return of.model_construct(**columns, **own)


def as_logged(payment: Transaction, form: Form, starting: Starting, zone: ZoneInfo) -> Transaction:
    """A payment of a form that was filled by `logged_form`, with what a form does not show: where its time is the one that was
    filled in, the logged one to the microsecond, for the two hours in which a clock is set back are the same in a form; and what
    was derived of something that the log does not keep, where nothing that it follows from was changed."""
    filled = logged_form(starting.record, zone).when
    if datetime.fromisoformat(str(form.when)) == datetime.fromisoformat(str(filled)):
        payment = with_changes(payment, {"timestamp": starting.transaction.timestamp})
    before, now = starting.transaction.__dict__, dict(payment.__dict__)
    for name, field in payment.model_declared.derived.items():
        assert field.derivation is not None
        needs = [ALIASES.get(one, one) for one in field.derivation.needs]
        if all(now[one] == before[one] for one in needs):
            now[name] = before[name]
    return payment.model_copy(update=now)


def _instant(text: str, zone: ZoneInfo) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=zone)


def _label(field: str, declared: Declared) -> str:
    return LABELS.get("when" if field == "timestamp" else field) or label_of(field, declared)


def wrong_form(error: WrongFormError) -> str:
    """What is wrong with the form, in the result's place."""
    lines = [f"{problem.field} {problem.reason}." for problem in error.problems]
    return alert("This cannot be scored yet. Correct it and test again; what you typed is still there.", lines)


# --- examples -------------------------------------------------------------------------------------------------------------------


_HOME = Form(birth_date="1974-05-17", city_population=1_628_706, home_latitude=40.7306, home_longitude=-73.9866)
EXAMPLES = {  # name -> what is other than at home, and the hour and minute in the source's zone
    "A plain purchase": ((17, 20), 46.35, "grocery_pos", "Corner Market", (40.7412, -73.9897)),
    "Card testing": ((4, 2), 1.07, "misc_net", "Sticker Shop", (41.1306, -74.4866)),
    "An account takeover at night": ((2, 41), 1_149.0, "shopping_net", "Gadget Outlet", (41.4993, -81.6944)),
    "A far-away purchase": ((13, 15), 289.9, "shopping_pos", "Pier Boutique", (34.0195, -118.4912)),
}


def examples(now: datetime, zone: ZoneInfo, shown_in: ZoneInfo, served: LoadedModel | None = None) -> dict[str, Form]:
    """Ready cases, of yesterday in the source's zone, with times as the analyst's zone shows them; own fields that the model
    demands have an example's values."""
    yesterday = now.astimezone(zone) - timedelta(days=1)
    return {
        name: replace(
            _HOME,
            when=yesterday.replace(hour=hour, minute=minute, second=0).astimezone(shown_in).strftime(WHEN),
            amount=amount,
            category=category,
            merchant=merchant,
            card=f"token-example-{number}",
            merchant_latitude=latitude,
            merchant_longitude=longitude,
            own=own_rows(served),
        )
        for number, (name, ((hour, minute), amount, category, merchant, (latitude, longitude))) in enumerate(EXAMPLES.items(), 1)
    }


# --- the score and its reasons --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tested:
    """A case that was scored, by one model."""

    served: LoadedModel
    payment: Transaction
    examined: Examined
    starting: Starting | None = None

    @property
    def scorer(self) -> Scorer:
        """The model that scored it: the one without history where its past could not be read."""
        scorer = self.served.scorer
        return scorer.without_history or scorer if self.examined.degraded else scorer

    @property
    def reasons(self) -> list[Reason]:
        """All that contributed anything, strongest first."""
        found = self.examined
        return found.explainer.reasons(found.values, found.contributions, len(found.contributions))


def tested(served: LoadedModel, payment: Transaction, lookup: HistoryLookup, starting: Starting | None) -> Tested:
    """Score a case as of its own time; one that was made of a logged payment, as that was decided. Nothing is recorded."""
    return Tested(served, payment, examined(served, _scored(served, [payment], lookup, starting), 0), starting)


def _scored(served: LoadedModel, payments: Sequence[Transaction], lookup: HistoryLookup, starting: Starting | None) -> Scored:
    if starting is None:
        return score_together(served.scorer, payments, lookup)
    return score_again(starting, served.scorer, payments, lookup)


def compared(case: Tested) -> str:
    """What a case that was made of a logged payment is compared with; empty for any other."""
    if case.starting is None:
        return ""
    record = case.starting.record
    declared = case.payment.model_declared
    changed = [label_of(name, declared) for name in sorted(case.starting.changed(case.payment))]
    how = "Nothing was changed. "
    if changed:
        how = f"Changed: {', '.join(changed)}; what is made of that was computed anew, the past as history knows it now. "
    kept = (
        "The features that were logged with the decision stand for what the log does not keep (card, birth date, home), and for "
        "the past of card and merchant as it was then."
    )
    return (
        f"<p>Compared with the logged decision on <code>{escaped(record.transaction_id)}</code>: {percent(record.probability)} "
        f"then, {percent(case.examined.probability)} in this test, by the same version. {escaped(how + kept)}</p>"
    )


def decision_in_words(decision: Decision, probability: float, scorer: Scorer) -> str:
    """What happens to a payment, and why."""
    review, decline = scorer.thresholds.review, scorer.thresholds.decline
    fraud = f"The probability of fraud is {percent(probability)}"
    match decision:
        case "approve":
            return f"{fraud}, below the {threshold(review)} from which analysts look. The payment goes through."
        case "review":
            upper = f" and below the {threshold(decline)} from which payments are declined" if decline <= 1 else ""
            return f"{fraud}, at or above the {threshold(review)} from which analysts look{upper}. An analyst should look at it."
        case "decline":
            return f"{fraud}, at or above the {threshold(decline)} from which payments are declined. The payment is refused."


def result(case: Tested) -> str:
    """The result of a test: the scale, the decision, the reasons and the place."""
    found, scorer = case.examined, case.scorer
    missing = "The history store cannot be reached, so this was scored without the past of card and merchant."
    parts = [
        f'<h2 class="decision {found.decision}">{DECISIONS[found.decision]}</h2>',
        f"<p>{escaped(decision_in_words(found.decision, found.probability, scorer))}</p>",
        compared(case),
        note(missing) if found.degraded else "",
        charts.gauge(found.probability, scorer.thresholds),
        f'<p class="quiet">Exactly <code>{found.probability!r}</code>, by version <code>{escaped(case.served.version)}</code>. '
        "A test is not recorded anywhere.</p>",
        reasons(case.reasons, found.explainer.unit, found.base, found.total),
        place(case.payment),
    ]
    return "".join(parts)


def reasons(found: Sequence[Reason], unit: str, base: float | None = None, total: float | None = None) -> str:
    """The reasons as a signed bar chart: right raises the risk, left lowers it, each with its sentence."""
    told = [(reason.sentence, reason.contribution) for reason in found[:SHOWN_REASONS]]
    if others := found[SHOWN_REASONS:]:
        told.append((f"{len(others)} other reasons together.", sum(reason.contribution for reason in others)))
    most = max((abs(part) for _, part in told), default=0.0) or 1.0
    rows = []
    for sentence, part in told:
        share = 50 * abs(part) / most
        side, start = ("raises", 50.0) if part > 0 else ("lowers", 50.0 - share)
        bar = f'<span class="bar {side}" style="left:{start:.1f}%;width:{share:.1f}%"></span>'
        track = f'<span class="track" aria-hidden="true">{bar}<span class="middle"></span></span>'
        rows.append((escaped(sentence), track, f"<b>{signed(part)}</b>"))
    ends = ""
    if base is not None and total is not None:
        ends = (
            f'<p class="quiet">In {escaped(unit)}: {signed(base)} is expected before anything is known of a payment; '
            f"with all reasons it is {signed(total)}.</p>"
        )
    if not rows:
        return ends
    chart = table("Why: what raises the risk and what lowers it", ("Reason", "Lowers | raises", "Part"), rows, (2,))
    return f'<div class="reasons">{chart}</div>{ends}'


def place(payment: Transaction) -> str:
    """A sketch of where the merchant is, seen from home; empty where one of the two is not known."""
    spot = _offset(payment)
    if spot is None:
        return ""
    east, north = spot
    distance = math.hypot(east, north)
    return charts.sketch(east, north, f"The merchant is {kilometres(distance)} from home.") + (
        f'<p class="quiet">The merchant is {kilometres(distance)} from home.</p>'
    )


# --- what if --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sliders:
    """What a case is changed to. `distance` is None where home or merchant is not known."""

    amount: float  # currency units
    hour: int  # of the source's local day
    distance: float | None  # kilometres from home, in the direction of the merchant


def sliders_of(payment: Transaction, zone: ZoneInfo) -> Sliders:
    """Where the sliders stand for a case as it was typed."""
    spot = _offset(payment)
    distance = None if spot is None else round(math.hypot(*spot) / 1_000, 1)
    return Sliders(payment.amount_cents / 100, payment.timestamp.astimezone(zone).hour, distance)


def changed(payment: Transaction, sliders: Sliders, zone: ZoneInfo) -> Transaction:
    """The case with other values. A value that was not moved stays as it was typed, to the last digit."""
    before = sliders_of(payment, zone)
    changes: dict[str, Any] = {}
    if sliders.amount != before.amount:
        changes["amount_cents"] = round(100 * sliders.amount)
    if sliders.hour != before.hour:
        changes["timestamp"] = payment.timestamp.astimezone(zone).replace(hour=sliders.hour)
    if sliders.distance is not None and sliders.distance != before.distance:
        changes["merchant_latitude"], changes["merchant_longitude"] = _moved(payment, 1_000 * sliders.distance)
    return with_changes(payment, changes)


def numbers_of(served: LoadedModel) -> list[str]:
    """The numbers beside those of the sliders that a case may be changed in, by name."""
    own = [name for name, field in served.scorer.declared.given.items() if field.kind == "number" and not field.personal]
    return [*(["city_population"] if "city_population" in served.scorer.needs else []), *own]


def _range_of(served: LoadedModel, payment: Transaction, name: str) -> tuple[float, float]:
    """From where to where a number is looked at: its declared bounds, or around the value that it has."""
    field = served.scorer.declared.field(name)
    value = getattr(payment, name)
    size = max(2 * abs(value or 0.0), 100.0)
    low = field.lowest if field.lowest is not None else min(0.0, -size if (value or 0.0) < 0 else 0.0)
    high = field.highest if field.highest is not None and field.highest < 1e6 else max(size, low + 1.0)
    return low, max(high, low + 1e-9)


def what_if(
    served: LoadedModel,
    payment: Transaction,
    sliders: Sliders,
    lookup: HistoryLookup,
    starting: Starting | None = None,
    number: str | None = None,
) -> str:
    """How the score would move: a curve for each slider, the others as they stand. Nothing is recorded.

    Args:
        number: another number that is looked at (see `numbers_of`).
    """
    zone = served.scorer.zone
    most = max(2_000.0, 3 * payment.amount_cents / 100, sliders.amount)
    furthest = max(500.0, 2 * (sliders_of(payment, zone).distance or 0), sliders.distance or 0)
    amounts = sorted({round(float(a), 2) for a in np.geomspace(0.5, most, 64)} | {sliders.amount})
    distances = sorted({round(float(d), 1) for d in np.linspace(0, furthest, 64)} | {sliders.distance or 0.0})
    cases = [changed(payment, Sliders(a, sliders.hour, sliders.distance), zone) for a in amounts]
    cases += [changed(payment, Sliders(sliders.amount, hour, sliders.distance), zone) for hour in range(24)]
    if sliders.distance is not None:
        cases += [changed(payment, Sliders(sliders.amount, sliders.hour, d), zone) for d in distances]
    values: list[float] = []
    if number is not None and number in numbers_of(served):
        low, high = _range_of(served, payment, number)
        whole = number == "city_population"
        values = sorted({float(round(v)) if whole else float(v) for v in np.linspace(low, high, 64)})
        moved = changed(payment, sliders, zone)
        cases += [with_changes(moved, {number: int(v) if whole else v}) for v in values]
    scored = _scored(served, [payment, changed(payment, sliders, zone), *cases], lookup, starting)
    scorer, scores = scored.scorer, scored.probabilities.tolist()
    before, now, curve = scores[0], scores[1], scores[2:]
    money_axis = Axis("amount (currency units)", 0.5, most, _money_ticks(most), warp=lambda value: math.log(max(value, 0.5)))
    hour_axis = charts.linear(f"hour of the day ({zone.key})", 0, 23, ticks=8)
    drawn = [
        _curve("Amount", money_axis, amounts, curve, sliders.amount, now, scorer),
        _curve("Hour", hour_axis, list(range(24)), curve[len(amounts) :], sliders.hour, now, scorer),
    ]
    if sliders.distance is not None:
        axis = charts.linear("distance from home (km)", 0, furthest)
        drawn.append(_curve("Distance", axis, distances, curve[len(amounts) + 24 :], sliders.distance, now, scorer))
    if number is not None and values:
        where = len(values)
        label, unit = label_of(number, served.scorer.declared), served.scorer.declared.field(number).unit
        axis = charts.linear(f"{label[:1].lower()}{label[1:]}{f' ({unit})' if unit else ''}", values[0], values[-1])
        drawn.append(_curve(label, axis, values, curve[-where:], getattr(payment, number), now, scorer))
    far = "" if sliders.distance is None else f", {sliders.distance:,g} km from home"
    said = (
        f"<p><strong>{money(100 * sliders.amount)} at {sliders.hour:02d}:00{far}:</strong> {percent(now)}, "
        f"{DECISIONS[scorer.decide(now)].lower()}. As typed: {percent(before)}, {DECISIONS[scorer.decide(before)].lower()}.</p>"
    )
    return f'{said}<div class="charts">{"".join(drawn)}</div>'


def _curve(
    name: str, axis: Axis, xs: Sequence[float], scores: Sequence[float], x: float | None, now: float, scorer: Scorer
) -> str:
    points = list(zip(xs, scores, strict=False))
    low, high = min(s for _, s in points), max(s for _, s in points)
    return Chart(
        title=f"Probability of fraud by {name[:1].lower()}{name[1:]}",
        summary=f"From {percent(low)} to {percent(high)}; {percent(now)} as it stands.",
        x=axis,
        y=charts.probability_axis("probability of fraud"),
        lines=[Line("probability", points)],
        across=[
            (at, f"{name} threshold", name)
            for name, at in (("review", scorer.thresholds.review), ("decline", scorer.thresholds.decline))
            if at <= 1
        ],
        here=[] if x is None else [((x, now), f"{percent(now)} here")],
        width=420,
        height=270,
    ).svg()


def _money_ticks(most: float) -> list[float]:
    return [tick for tick in (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000) if tick <= most]


# --- places on the sphere -------------------------------------------------------------------------------------------------------


def _degrees(payment: Transaction) -> tuple[float, float, float, float] | None:
    found = (payment.home_latitude, payment.home_longitude, payment.merchant_latitude, payment.merchant_longitude)
    return None if None in found else found  # type: ignore[return-value]


def _offset(payment: Transaction) -> tuple[float, float] | None:
    """Metres east and north of home: the great-circle distance in the direction in which the way begins."""
    degrees = _degrees(payment)
    if degrees is None:
        return None
    distance, bearing = _way(*map(math.radians, degrees))
    return distance * math.sin(bearing), distance * math.cos(bearing)


def _way(latitude: float, longitude: float, to_latitude: float, to_longitude: float) -> tuple[float, float]:
    """Haversine distance in metres, and the initial bearing in radians from north over east."""
    apart = to_longitude - longitude
    chord = math.sin((to_latitude - latitude) / 2) ** 2 + math.cos(latitude) * math.cos(to_latitude) * math.sin(apart / 2) ** 2
    east = math.sin(apart) * math.cos(to_latitude)
    north = math.cos(latitude) * math.sin(to_latitude) - math.sin(latitude) * math.cos(to_latitude) * math.cos(apart)
    return 2 * EARTH_RADIUS_METRES * math.asin(math.sqrt(min(chord, 1.0))), math.atan2(east, north)


def _moved(payment: Transaction, metres: float) -> tuple[float, float]:
    """Latitude and longitude so far from home, in the direction of the merchant."""
    degrees = _degrees(payment)
    assert degrees is not None
    latitude, longitude, *_ = map(math.radians, degrees)
    _, bearing = _way(*map(math.radians, degrees))
    angle = metres / EARTH_RADIUS_METRES
    to_latitude = math.asin(math.sin(latitude) * math.cos(angle) + math.cos(latitude) * math.sin(angle) * math.cos(bearing))
    turn = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(latitude), math.cos(angle) - math.sin(latitude) * math.sin(to_latitude)
    )
    to_longitude = (math.degrees(longitude + turn) + 180) % 360 - 180
    return math.degrees(to_latitude), to_longitude
