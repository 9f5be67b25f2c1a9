"""Layout and handlers of the desk. What is shown is made by other modules."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import gradio as gr

from fraud_core.access.users import User
from fraud_core.decisions.log import DecisionRecord
from fraud_core.errors import FraudError, StoreError
from fraud_core.evaluation.model_card import ModelCard
from fraud_core.evaluation.report import Moved
from fraud_core.features.encoder import MISSING_CATEGORY
from fraud_core.labels.resolve import Outcome
from fraud_core.models.follower import LoadedModel
from fraud_core.review.queue import OUTCOMES, Case, CaseError
from fraud_core.review.retest import Starting
from fraud_core.signing.card_numbers import holds_card_number
from fraud_core.transactions.transaction import Transaction
from fraud_ui.endpoints import Page, bind, repeated, streaming
from fraud_ui.kit.wording import alert, escaped, note
from fraud_ui.services import Desk
from fraud_ui.uploads import KEPT_SECONDS
from fraud_ui.views import case, files, models, review
from fraud_ui.views.case import LABELS, Form, Sliders, WrongFormError

STATUS_SECONDS = 10.0
NOTHING: Any = ""  # in a field for a number
THEIR_ZONE = "() => Intl.DateTimeFormat().resolvedOptions().timeZone"
FIELDS = tuple(field.name for field in fields(Form))


def build_ui(desk: Desk) -> Page:
    """The page, with an endpoint for everything that can be done on it."""
    page = Page(desk, title="Fraud desk", analytics_enabled=False, fill_width=True, delete_cache=(600, int(KEPT_SECONDS)))
    with page:
        zone = gr.State("UTC")
        their_zone = gr.Textbox(visible=False)
        header = gr.HTML('<div class="head"><h1>Fraud desk</h1></div>', elem_id="header")
        with gr.Tabs():
            with gr.Tab("Test a case"):
                form = _case_tab(desk, zone)
            with gr.Tab("Score a file"):
                _file_tab(desk, zone)
            with gr.Tab("Review queue") as review_tab:
                _review_tab(desk, zone, review_tab)
            with gr.Tab("Model and data") as model_tab:
                _model_tab(desk, zone, model_tab)
        bind(
            desk,
            page.load,
            _arrive,
            [their_zone],
            [zone, header, form["when"]],
            "arrive",
            js=THEIR_ZONE,
        )
        # The head changes where another model serves, also while the page is open.
        bind(desk, header.change, _follow_fields, [form["own"]], [form["category"], form["own"]], "follow_fields")
        gr.Timer(STATUS_SECONDS).tick(
            repeated(desk, partial(status, desk), "status"), None, [header], api_name="status", show_progress="hidden"
        )
    for name in page.names():
        desk.metrics.expect(name)
    return page


# --- the head of the page -------------------------------------------------------------------------------------------------------


def status(desk: Desk, user: User) -> str:
    """Which version scores, what keeps a newer one away, and who is signed in."""
    following = desk.follower.status
    served = following.served
    if served is None:
        model = "<strong>No model yet.</strong> Nothing can be scored before the pipeline has made a champion."
    else:
        change = served.latest.history[-1] if served.latest.history else None
        since = f", champion since {change.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if change else ""
        model = f"Version <code>{escaped(served.version)}</code>{since}"
    person = f'<span class="who">{escaped(user.name)} ({escaped(user.role)})</span>'
    if desk.users is not None:
        person += '<form method="post" action="/sign-out"><button class="plain">Sign out</button></form>'
    kept = "The newest model cannot be followed; the one above goes on scoring."
    problem = "" if following.problem is None else alert(kept, [following.problem])
    return f'<div class="head"><h1>Fraud desk</h1><span>{model}</span>{person}</div>{problem}'


def _arrive(desk: Desk, user: User, zone_name: str) -> tuple[Any, ...]:
    zone = zone_of(zone_name)
    when = gr.Textbox(label=f"{LABELS['when']} ({zone.key})", value=datetime.now(zone).strftime(case.WHEN))
    return zone.key, status(desk, user), when


def _follow_fields(desk: Desk, user: User, own: Sequence[Sequence[str]]) -> tuple[Any, ...]:
    """The names and the own fields that the present model knows; what was typed for a field that it has, too, stays."""
    served = desk.follower.served
    columns = served.scorer.bundle.encoder.columns if served else ()
    named = next((column.categories or {} for column in columns if column.feature == "category"), {})
    known = sorted(set(named) - {MISSING_CATEGORY})
    typed = case.own_values(own, served.scorer.declared) if served else {}
    return gr.Dropdown(choices=known), _own(case.own_rows(served, typed or None))


def _own(rows: Sequence[Sequence[str]]) -> gr.Dataframe:
    """The table of the model's own fields; gone where it has none."""
    return gr.Dataframe(value=[list(row) for row in rows], visible=bool(rows))


def to(place: str) -> str:
    """JavaScript that takes the keyboard's focus there; head.html makes these places able to have it."""
    return f"() => setTimeout(() => document.getElementById('{place}')?.focus())"


def zone_of(name: str | None) -> ZoneInfo:
    """The time zone of this name, as a browser gave it; UTC where there is none such."""
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")


# --- test a case ----------------------------------------------------------------------------------------------------------------


def _case_tab(desk: Desk, zone: gr.State) -> dict[str, Any]:
    on, typed, loaded = partial(bind, desk), gr.State(None), gr.State("")
    with gr.Row(elem_classes="examples"):
        chosen = [gr.Button(name, size="sm") for name in case.EXAMPLES]
    with gr.Row():
        with gr.Column(scale=2, min_width=340):
            form = _form()
            test = gr.Button("Test this case", variant="primary")
        with gr.Column(scale=3, min_width=420):
            with gr.Accordion("Load a payment from the decision log", open=False), gr.Row():
                identity = gr.Textbox(label="Transaction id", max_lines=1)
                load = gr.Button("Load")
            result = gr.HTML(note("Fill in the form or take an example, then test. No test is recorded."), elem_id="result")
    with gr.Column(visible=False) as what_if:
        gr.HTML("<h2>What if it were otherwise?</h2>")
        with gr.Row():
            amount = gr.Slider(0, 2_000, step=0.01, label="Amount (currency units)")
            hour = gr.Slider(0, 23, step=1, label="Hour of the day")
            distance = gr.Slider(0, 500, step=0.1, label="Distance from home (km)")
        number = gr.Dropdown([], value=None, label="Another number", info="Draws how the score moves with it.", visible=False)
        curves = gr.HTML(elem_id="curves")

    inputs = [form[name] for name in FIELDS]
    sliders = [amount, hour, distance]
    for button, name in zip(chosen, case.EXAMPLES, strict=True):
        endpoint_name = "example_" + name.lower().replace(" ", "_").replace("-", "_")
        on(button.click, partial(_example, name=name), [zone], [*inputs, loaded], endpoint_name)
    on(load.click, _load, [identity, zone], [*inputs, loaded, result], "load_case")
    on(
        test.click,
        _test,
        [loaded, zone, *inputs],
        [result, typed, what_if, *sliders, number, curves],
        "test_case",
        progress="minimal",
    )
    for slider in sliders:
        on(
            slider.input,
            _what_if,
            [typed, *sliders, number],
            [curves],
            f"what_if_{str(slider.label).split()[0].lower()}",
            trigger_mode="always_last",
        )
    on(number.input, _what_if, [typed, *sliders, number], [curves], "what_if_number", trigger_mode="always_last")
    return form


def _form() -> dict[str, Any]:
    """The fields by name."""
    when = gr.Textbox(label=LABELS["when"], max_lines=1, elem_id="when")
    with gr.Row():
        amount = _number(label=LABELS["amount"], info="Currency units, at most two decimals.")
        category = gr.Dropdown(
            [], value=None, label=LABELS["category"], allow_custom_value=True, info="As in training; others can be typed."
        )
    with gr.Row():
        merchant = gr.Textbox(label=LABELS["merchant"], max_lines=1)
        card = gr.Textbox(label=LABELS["card"], max_lines=1, info="Only looks up its past; never stored.")
    with gr.Row():
        birth_date = gr.Textbox(label=LABELS["birth_date"], max_lines=1, elem_id="birth_date")
        population = _number(label=LABELS["city_population"])
    places: dict[str, Any] = {}
    for side in ("home", "merchant"):
        with gr.Row():
            places[f"{side}_latitude"] = _number(label=LABELS[f"{side}_latitude"], info="Degrees, north positive.")
            places[f"{side}_longitude"] = _number(label=LABELS[f"{side}_longitude"], info="Degrees, east positive.")
    own = gr.Dataframe(
        headers=list(case.OWN_HEADER),
        datatype="str",
        type="array",
        column_count=len(case.OWN_HEADER),
        static_columns=[0, 2],
        column_widths=["34%", "30%", "36%"],
        wrap=True,
        label="This installation's own fields: write into Value",
        visible=False,
        elem_id="own",
    )
    first = {"when": when, "amount": amount, "category": category, "merchant": merchant, "card": card, "birth_date": birth_date}
    return first | {"city_population": population} | places | {"own": own}


def _number(label: str, info: str | None = None) -> gr.Number:
    """A field for a number, or for none. Gradio's page turns a missing value into 0, but leaves an empty text alone."""
    return gr.Number(label=label, info=info, value=NOTHING)


def _example(desk: Desk, user: User, zone_name: str, *, name: str) -> tuple[Any, ...]:
    served = desk.follower.served
    shown_in = zone_of(zone_name)
    zone = served.scorer.zone if served else shown_in
    return *case.examples(datetime.now(UTC), zone, shown_in, served)[name].values, ""


def _load(desk: Desk, user: User, identity: str, zone_name: str) -> tuple[Any, ...]:
    zone = zone_of(zone_name)
    one = desk.queue.openable(user, (identity or "").strip())
    shown = _case(desk, one, zone)  # first: what cannot be shown fills no form
    form = case.logged_form(one.record, zone, desk.version(one.record.model_version))
    return *form.values, one.record.transaction_id, shown + note(_what_a_test_is(desk, one.record))


def _what_a_test_is(desk: Desk, record: DecisionRecord) -> str:
    without = "The log keeps neither card nor birth date nor home. "
    if record.features is None:
        return without + (
            "Nor were the features of this payment logged, as is so for most that were approved: a test of it lacks what is not "
            "typed, and gives another score than the logged one."
        )
    if (served := desk.version(record.model_version)) is None or served.version != record.model_version:
        return without + "The version that decided is not at hand any more: a test by the present one gives another score."
    return without + (
        "The features that were logged with the decision stand for them, and for the past as it was then: tested as it is, the "
        "payment gets the logged score, by the version that decided. What you change or add is computed anew."
    )


def _starting(desk: Desk, user: User, loaded: str) -> tuple[LoadedModel, Starting] | None:
    """The version that decided on the payment that was loaded, and where a test of it starts; None: nothing was loaded of which
    more is known than what is typed."""
    if not loaded:
        return None
    record = desk.queue.openable(user, loaded).record
    served = desk.version(record.model_version)
    if record.features is None or served is None or served.version != record.model_version:
        return None
    return served, Starting(record, case.logged_payment(record, served.payment()))


def _past(desk: Desk, user: User, payment: Transaction, zone: ZoneInfo) -> str:
    """What the card of a typed case did lately; a log that cannot be read does not keep the score away."""
    card = desk.lookup.card(payment)
    if card is None:
        return ""
    if card in user.cards:
        return note("This is a card of your own; its past is not shown to you.")
    try:
        records = desk.past(card)
        return review.past(records, desk.labels.of([record.transaction_id for record in records]), zone)
    except StoreError as error:
        return note(f"The card's past cannot be shown. {error}")


def _test(desk: Desk, user: User, loaded: str, zone_name: str, *typed: Any) -> tuple[Any, ...]:
    zone = zone_of(zone_name)
    form = Form(*typed)
    served, starting = _starting(desk, user, loaded) or (desk.served(), None)
    try:
        payment = case.typed_payment(form, zone, served.scorer.reading, served.payment())
    except WrongFormError as error:
        return case.wrong_form(error), None, gr.Column(visible=False), *[gr.skip()] * 5
    if starting is not None:
        payment = case.as_logged(payment, form, starting, zone)
    tested = case.tested(served, payment, desk.lookup, starting)
    at = case.sliders_of(payment, served.scorer.zone)
    numbers = [(case.label_of(name, served.scorer.declared), name) for name in case.numbers_of(served)]
    return (
        case.result(tested) + _past(desk, user, payment, zone),
        (payment, loaded),
        gr.Column(visible=True),
        gr.Slider(value=at.amount, maximum=max(2_000.0, 3 * at.amount)),
        gr.Slider(value=at.hour, label=f"Hour of the day ({served.scorer.zone.key})"),
        gr.Slider(value=at.distance or 0, maximum=max(500.0, 2 * (at.distance or 0)), interactive=at.distance is not None),
        gr.Dropdown(choices=numbers, value=None, visible=bool(numbers)),
        case.what_if(served, payment, at, desk.lookup, starting),
    )


def _what_if(
    desk: Desk,
    user: User,
    typed: tuple[Transaction, str] | None,
    amount: float,
    hour: float,
    distance: float,
    number: str | None = None,
) -> str:
    if typed is None:
        return note("Test a case first; the sliders then start from it.")
    payment, loaded = typed
    served, starting = _starting(desk, user, loaded) or (desk.served(), None)
    was = case.sliders_of(payment, served.scorer.zone)  # holds where the number beside a slider was deleted
    at = Sliders(
        amount=was.amount if math.isnan(amount) else float(amount),
        hour=was.hour if math.isnan(hour) else int(hour),
        distance=was.distance if was.distance is None or math.isnan(distance) else float(distance),
    )
    return case.what_if(served, payment, at, desk.lookup, starting, number)


# --- score a file ---------------------------------------------------------------------------------------------------------------


def _file_tab(desk: Desk, zone: gr.State) -> None:
    gr.HTML(
        "<p>A CSV or Parquet file with the canonical column names and a header, up to "
        f"{files.MOST_ROWS:,} rows. Only <code>timestamp</code> (with its offset from UTC) and <code>amount</code> are needed; "
        "whatever else the model looks at counts as missing where it is not. The file is deleted as soon as it was read.</p>"
    )
    job = gr.State("")
    chosen = gr.File(label="File to score", file_types=[".csv", ".parquet"], height=140)
    with gr.Row():
        score = gr.Button("Score this file", variant="primary")
        cancel = gr.Button("Cancel", variant="stop", interactive=False)
    progress = gr.HTML(elem_id="progress")
    download = gr.DownloadButton("Download all rows as CSV", visible=False)
    summary = gr.HTML(elem_id="summary")
    scored = score.click(
        streaming(desk, partial(_score_file, desk)),
        [chosen, zone],
        [progress, summary, download, chosen, score, cancel, job],
        api_name="score_file",
        show_progress="hidden",
        concurrency_limit=None,
    )
    scored.then(None, js=to("progress"))
    bind(desk, cancel.click, _cancel, [job], [progress], "cancel_file")


def _score_file(desk: Desk, user: User, path: str | None, zone_name: str) -> Iterator[tuple[Any, ...]]:
    if path is None:
        raise files.UnfitFileError("Choose a file first.")
    job = desk.jobs.start(user.name, Path(path), desk.served())
    began = time.monotonic()
    busy = gr.Button(interactive=False), gr.Button(interactive=True)
    free = gr.Button(interactive=True), gr.Button(interactive=False)
    hidden = gr.DownloadButton(visible=False)
    while not job.ended:
        yield files.progress_bar(job.progress, began), "", hidden, gr.skip(), *busy, job.id
        job.wait(0.3)
    if job.progress.state != "done":
        yield files.failed(job), "", hidden, None, *free, ""
        return
    rows = job.rows()
    told = files.summary(rows, job.served.scorer, desk.settings, zone_of(zone_name), job.served.version)
    made = desk.files.to_take_away(user.name, "scored.csv")
    files.write_csv(rows, made)
    taken = gr.DownloadButton(value=str(made), visible=True)
    yield note(f"Done in {time.monotonic() - began:.1f} s."), told, taken, None, *free, ""


def _cancel(desk: Desk, user: User, identity: str) -> str:
    desk.jobs.cancel(user.name, identity)
    return note("Cancelling.")


# --- review queue ---------------------------------------------------------------------------------------------------------------


def _review_tab(desk: Desk, zone: gr.State, tab: gr.Tab) -> None:
    on, held = partial(bind, desk), gr.State("")
    figures = gr.HTML(elem_id="figures")
    with gr.Row():
        take = gr.Button("Take the next case", variant="primary")
        back = gr.Button("Put it back", interactive=False)
        refresh = gr.Button("Look again")
    shown = gr.HTML(note("Take the next case: it is yours until you label it or put it back."), elem_id="case")
    words = gr.Textbox(label="Note", lines=2, info="Why; it stays with the label.")
    with gr.Row():
        said = {
            outcome: gr.Button(f"This is {outcome}" if outcome != "unsure" else "I am unsure", interactive=False)
            for outcome in OUTCOMES
        }
    waiting = gr.HTML(elem_id="waiting")
    with gr.Accordion("Overrule a label (leads)", open=False):
        identity = gr.Textbox(label="Transaction id to overrule", max_lines=1)
        outcome = gr.Radio(list(OUTCOMES), label="It was")
        reason = gr.Textbox(label="Why", lines=2)
        overrule = gr.Button("Overrule")

    overview = [figures, waiting]
    buttons = [back, *said.values()]
    everything = [held, shown, *buttons, *overview]
    on(tab.select, _open_queue, [held, zone], everything, "open_queue")
    on(refresh.click, _queue, [zone], overview, "read_queue")
    taken = on(take.click, _take, [zone], everything, "take_case", progress="minimal")
    given_back = on(back.click, _put_back, [held, zone], everything, "put_back")
    labelled = [
        on(
            button.click,
            partial(_label, outcome=one),
            [held, words, zone],
            [held, shown, words, *buttons, *overview],
            f"label_{one}",
            progress="minimal",
        )
        for one, button in said.items()
    ]
    # The button that was pressed may be disabled now, which would leave the keyboard at the page's head.
    for done in (taken, given_back, *labelled):
        done.success(None, js=to("case"))
    on(
        overrule.click,
        _overrule,
        [identity, outcome, reason, zone],
        [identity, reason, *overview],
        "overrule",
        role="lead",
        progress="minimal",
    )


def _queue(desk: Desk, user: User, zone_name: str) -> tuple[str, str]:
    zone, now = zone_of(zone_name), datetime.now(UTC)
    figures = desk.queue.figures(user, now, zone)
    waiting = desk.queue.waiting(user, now, review.SHOWN)
    return review.figures(figures), review.waiting(waiting, figures.waiting, desk.queue.held(now), user, zone)


def _open_queue(desk: Desk, user: User, held: str, zone_name: str) -> tuple[Any, ...]:
    """The queue, and the case that this person holds already: a page that was loaded anew does not know of it."""
    mine = [identity for identity, who in desk.queue.held(datetime.now(UTC)).items() if who == user.name]
    if held in mine or (not held and not mine):
        return *[gr.skip()] * (3 + len(OUTCOMES)), *_queue(desk, user, zone_name)
    record = desk.queue.decisions.find(mine[0]) if mine else None
    if record is None:
        gone = note("You do not hold a case any more. Take the next one.")
        return "", gone, *_buttons(False), *_queue(desk, user, zone_name)
    one = Case(record, desk.labels.of([record.transaction_id])[record.transaction_id])
    return record.transaction_id, _case(desk, one, zone_of(zone_name)), *_buttons(True), *_queue(desk, user, zone_name)


def _take(desk: Desk, user: User, zone_name: str) -> tuple[Any, ...]:
    taken = desk.queue.take(user, datetime.now(UTC), partial(_case, desk, zone=zone_of(zone_name)))
    shown = taken.shown or note("Nothing waits for you that nobody else holds and that could be shown.")
    desk.metrics.could_not_show(len(taken.unshown))
    told = review.unshown(taken.unshown)
    return taken.identity, told + shown, *_buttons(bool(taken.identity)), *_queue(desk, user, zone_name)


def _put_back(desk: Desk, user: User, held: str, zone_name: str) -> tuple[Any, ...]:
    desk.queue.put_back(user, held)
    return "", note("Put back; somebody else may take it now."), *_buttons(False), *_queue(desk, user, zone_name)


def _label(desk: Desk, user: User, held: str, words: str, zone_name: str, *, outcome: Outcome) -> tuple[Any, ...]:
    _see_no_card_number(words)
    desk.queue.label(user, held, outcome, words or "", datetime.now(UTC))
    told = "A lead will look at it." if outcome == "unsure" else "The next training knows it."
    done = note(f"{held} is labelled {outcome}. {told}")
    try:
        following, shown, *rest = _take(desk, user, zone_name)
    except FraudError as error:  # the label stands all the same
        return "", done + alert(str(error)), "", *_buttons(False), gr.skip(), gr.skip()
    return following, done + shown, "", *rest


def _overrule(desk: Desk, user: User, identity: str, outcome: str | None, reason: str, zone_name: str) -> tuple[Any, ...]:
    _see_no_card_number(reason)
    desk.queue.overrule(user, (identity or "").strip(), outcome or "", reason or "", datetime.now(UTC))
    return "", "", *_queue(desk, user, zone_name)


def _see_no_card_number(words: str | None) -> None:
    """Labels with their notes go to training and to other systems, where a card number must not.

    Raises:
        CaseError: the text holds one.
    """
    if holds_card_number(words or ""):
        raise CaseError(
            "What you wrote holds what looks like a card number. Take it out, or leave only its last four digits; "
            "nothing is saved yet."
        )


def _case(desk: Desk, one: Case, zone: ZoneInfo) -> str:
    record = one.record
    served = desk.version(record.model_version)
    past = ""
    if record.card is not None:
        records = desk.past(record.card)
        labels = desk.labels.of([other.transaction_id for other in records])
        past = review.past(records, labels, zone, but=record.transaction_id)
    return review.render_case(one, zone, served, review.recorded_reasons(record, served), past)


def _buttons(active: bool) -> list[gr.Button]:
    """Put back, and one for each outcome."""
    return [gr.Button(interactive=active) for _ in range(1 + len(OUTCOMES))]


# --- model and data -------------------------------------------------------------------------------------------------------------


def _model_tab(desk: Desk, zone: gr.State, tab: gr.Tab) -> None:
    on = partial(bind, desk)
    refresh = gr.Button("Read again", size="sm")
    with gr.Row():
        version = gr.Dropdown([], label="Version", interactive=True)
        against = gr.Dropdown([], label="Against", interactive=True)
    card = gr.HTML(elem_id="card")
    gr.HTML("<h2>Cost against threshold</h2>")
    with gr.Row():
        moved = gr.Radio(["review", "decline"], value="review", label="Threshold to move")
        line = gr.Slider(0.01, 99.99, value=5, step=0.01, label="Movable line (% probability of fraud)")
    cost = gr.HTML(elem_id="cost")
    gr.HTML("<h2>Champion against challenger</h2>")
    compared = gr.HTML(elem_id="compared")
    gr.HTML("<h2>Versions</h2>")
    history = gr.HTML(elem_id="history")
    gr.HTML("<h2>Partitions</h2>")
    partitions = gr.HTML(elem_id="partitions")
    partition = gr.Dropdown([], label="Partition to look into", interactive=True)
    drift = gr.HTML(elem_id="drift")

    everything = [version, against, card, cost, compared, history, partitions, partition, drift]
    for trigger, name in ((tab.select, "open_models"), (refresh.click, "read_models")):
        on(trigger, _models, [zone, moved, line], everything, name, progress="minimal")
    on(
        version.input,
        _version,
        [zone, version, against, moved, line],
        [card, cost, compared],
        "choose_version",
        progress="minimal",
    )
    on(against.input, _compare, [version, against], [compared], "choose_other", progress="minimal")
    for component, name in ((moved, "move_which"), (line, "move_line")):
        on(component.input, _cost, [version, moved, line], [cost], name, trigger_mode="always_last")
    on(partition.input, _partition, [partition], [drift], "choose_partition", progress="minimal")


def _models(desk: Desk, user: User, zone_name: str, moved: Moved, line: float) -> tuple[Any, ...]:
    zone = zone_of(zone_name)
    latest, names = desk.catalogue.latest(), desk.catalogue.names()
    verdicts = desk.catalogue.verdicts()
    judged = [key for key, verdict in reversed(verdicts.items()) if verdict is not None]
    shown = names[0] if names else None
    other = names[1] if len(names) > 1 else None
    nothing = note("There is no version yet; the pipeline makes the first.")
    about = _version(desk, user, zone_name, shown, other, moved, line) if shown else (nothing, "", "")
    return (
        gr.Dropdown(choices=names, value=shown),
        gr.Dropdown(choices=names, value=other),
        *about,
        models.history(latest, zone),
        models.partitions(verdicts, zone),
        gr.Dropdown(choices=judged, value=judged[0] if judged else None),
        models.drift_table(verdicts[judged[0]] if judged else None),
    )


def _version(
    desk: Desk, user: User, zone_name: str, name: str, other: str | None, moved: Moved, line: float
) -> tuple[str, str, str]:
    version = desk.catalogue.version(name)
    return (
        models.card(version, zone_of(zone_name)),
        _cost_chart(version.card, moved, line),
        _compare(desk, user, name, other),
    )


def _compare(desk: Desk, user: User, name: str | None, other: str | None) -> str:
    if not name or not other or name == other:
        return note("There is no other version to compare with." if not other else "Choose two versions to compare.")
    return models.comparison(desk.catalogue.version(name), desk.catalogue.version(other))


def _cost(desk: Desk, user: User, name: str | None, moved: Moved, line: float) -> str:
    return _cost_chart(desk.catalogue.version(name).card if name else None, moved, line)


def _cost_chart(card: ModelCard | None, moved: Moved, line: float) -> str:
    if math.isnan(line):  # the number beside the slider was deleted
        return note("Say where the line is to stand, in % probability of fraud.")
    return models.cost_chart(card, moved, line / 100)


def _partition(desk: Desk, user: User, key: str | None) -> str:
    return models.drift_table(desk.catalogue.verdicts().get(key or ""))
