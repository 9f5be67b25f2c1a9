"""Wrapper of Gradio handlers. Each is an endpoint that anybody may call by its name, so each asks who is calling."""

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool

from fraud_core.access.users import Role, User
from fraud_core.errors import FraudError
from fraud_ui.kit.wording import alert, without_values
from fraud_ui.services import Desk
from fraud_ui.uploads import paths_in

logger = logging.getLogger(__name__)
Endpoint = Callable[..., Any]


class Page(gr.Blocks):
    """The page of a desk. Whatever happens in a handler, or before or after it, becomes a sentence, and is measured.

    Gradio sends every call of every handler through `process_api`; so no handler can be forgotten.

    Args:
        desk: whose files may be named in a call, and whose metrics are kept.
        options: as `gr.Blocks` takes them.
    """

    def __init__(self, desk: Desk, **options: Any) -> None:
        super().__init__(**options)
        self._desk = desk

    async def process_api(
        self, block_fn: Any, inputs: list[Any], state: Any = None, request: Any = None, *more: Any, **named: Any
    ) -> dict[str, Any]:
        """One call, as Gradio has it.

        Raises:
            gr.Error: what went wrong, in a sentence.
        """
        function = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        name = _name_of(function)
        begun = time.perf_counter()
        try:
            # A handler that gives its outputs bit by bit is called for each bit; the file may be read and removed by then.
            if named.get("iterator") is None and (paths := list(paths_in(inputs))):
                await run_in_threadpool(self._see_own, request, paths)
            if len(inputs) == len(function.inputs):
                inputs = [_or_nan(one, value) for one, value in zip(function.inputs, inputs, strict=True)]
            return await super().process_api(block_fn, inputs, state, request, *more, **named)
        except gr.Error as error:
            error.print_exception = False  # Gradio's own hold what was typed
            raise
        except FraudError as error:
            raise told(str(error)) from None
        except Exception as error:
            raise told(unexpected(self._desk, name, error)) from None
        finally:
            self._desk.metrics.took(name, time.perf_counter() - begun)

    def _see_own(self, request: gr.Request, paths: list[str]) -> None:
        user = person(self._desk, request, "analyst")
        for path in paths:
            self._desk.files.own(user.name, path)

    def names(self) -> list[str]:
        """The names of all handlers."""
        return [_name_of(one) for one in self.fns.values() if one.fn is not None]


def endpoint(desk: Desk, handler: Callable[..., Any], role: Role = "analyst") -> Endpoint:
    """A handler (user, *values) -> outputs, behind the check of who is calling."""

    def checked(request: gr.Request, *values: Any) -> Any:
        return handler(person(desk, request, role), *values)

    return checked


def bind(
    desk: Desk,
    event: Callable[..., Any],
    handler: Callable[..., Any],
    given: list[Any] | None,
    shown: list[Any],
    name: str,
    *,
    role: Role = "analyst",
    progress: str = "hidden",
    **options: Any,
) -> Any:
    """Have an event of the page call a handler (desk, user, *given) -> shown, as the endpoint of this name."""
    checked = endpoint(desk, partial(handler, desk), role)
    return event(checked, given, shown, api_name=name, show_progress=progress, **options)


def streaming(desk: Desk, handler: Callable[..., Iterator[Any]], role: Role = "analyst") -> Endpoint:
    """The same for a handler that gives its outputs again and again, as long as whoever called may be here."""

    def checked(request: gr.Request, *values: Any) -> Iterator[Any]:
        for outputs in handler(person(desk, request, role), *values):
            person(desk, request, role)
            yield outputs

    return checked


def repeated(desk: Desk, handler: Callable[[User], str], name: str, role: Role = "analyst") -> Endpoint:
    """The same for a handler that the page calls by itself, every few seconds: it is told in place, not in a pop-up each time.

    Args:
        name: of the endpoint, for the metrics.
    """

    def checked(request: gr.Request) -> str:
        try:
            return handler(person(desk, request, role))
        except FraudError as error:
            return alert(str(error))
        except Exception as error:
            return alert(unexpected(desk, name, error))

    return checked


def person(desk: Desk, request: gr.Request, role: Role) -> User:
    """Who is calling. Gradio calls the id of the visit a user name (see `server.create_app`)."""
    return desk.person(request.username, role)


def told(sentence: str) -> gr.Error:
    """An error as the page shows it, until it is closed."""
    return gr.Error(sentence, duration=None, print_exception=False, title="This did not work")


def unexpected(desk: Desk, handler: str, error: Exception) -> str:
    """Count and log what should not have happened, without a value of a payment; returns the sentence with the id of the log."""
    identity = secrets.token_hex(6)
    desk.metrics.failed(handler)
    logger.error("handler %s failed, error %s: %s", handler, identity, without_values(error))
    return (
        "Something went wrong here that should not have, and it was not your doing. "
        f"The log of the desk has it as error {identity}; tell whoever runs the desk."
    )


def _or_nan(component: Any, value: Any) -> Any:
    """A value as it came; NaN of a slider whose number was deleted, since Gradio cannot compare None with the ends."""
    return math.nan if value is None and isinstance(component, gr.Slider) else value


def _name_of(function: Any) -> str:
    return str(function.api_name or "unnamed")
