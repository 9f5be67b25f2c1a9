"""Handlers as Gradio calls them. Each is an endpoint that anybody may call by its name, so each asks who is calling."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from fraud_core.errors import FraudError
from fraud_core.stores.users import Role, User
from fraud_ui.services import Desk
from fraud_ui.wording import alert

Endpoint = Callable[..., Any]


def endpoint(desk: Desk, handler: Callable[..., Any], role: Role = "analyst") -> Endpoint:
    """A handler (user, *values) -> outputs, behind the check of who is calling.

    What a person can act on is shown as a sentence, and nothing on the page is changed.
    """

    def checked(request: gr.Request, *values: Any) -> Any:
        try:
            return handler(person(desk, request, role), *values)
        except FraudError as error:
            raise told(error) from error

    return checked


def streaming(desk: Desk, handler: Callable[..., Iterator[Any]], role: Role = "analyst") -> Endpoint:
    """The same for a handler that gives its outputs again and again."""

    def checked(request: gr.Request, *values: Any) -> Iterator[Any]:
        try:
            yield from handler(person(desk, request, role), *values)
        except FraudError as error:
            raise told(error) from error

    return checked


def repeated(desk: Desk, handler: Callable[[User], str], role: Role = "analyst") -> Endpoint:
    """The same for a handler that the page calls by itself, every few seconds: it is told in place, not in a pop-up each time."""

    def checked(request: gr.Request) -> str:
        try:
            return handler(person(desk, request, role))
        except FraudError as error:
            return alert(str(error))

    return checked


def person(desk: Desk, request: gr.Request, role: Role) -> User:
    """Who is calling. Gradio calls the id of the visit a user name (see `server.create_app`)."""
    return desk.person(request.username, role)


def told(error: FraudError) -> gr.Error:
    """An error as the page shows it, until it is closed."""
    return gr.Error(str(error), duration=None, print_exception=False, title="This did not work")
