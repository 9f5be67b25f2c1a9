"""Newer champion: looked for before a payment is refused by the declaration of the one that this process has loaded.

Processes load a champion one after the other, each when it looks at the pointer. A caller who was answered by the first may send
what that one declares to the last. So whatever is refused for what a declaration says is checked by the newest one first.
"""

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request

from fraud_api.http.problems import Refused
from fraud_core.fields.declaration import Amounts
from fraud_core.fields.declared import ALIASES, Declared
from fraud_core.models.follower import LoadedModel, ModelFollower
from fraud_core.transactions.refusals import FieldProblem
from fraud_core.transactions.transaction import FIELDS, Transaction

T = TypeVar("T")
SPACING = 0.2  # seconds between two looks at the pointer, however many payments are refused
_DEMANDED = frozenset(field.alias or name for name, field in Transaction.model_fields.items() if field.is_required())


class NewerChampion:
    """Looks at the pointer for one event loop, one look at a time.

    Args:
        follower: follows the pointer.
    """

    def __init__(self, follower: ModelFollower) -> None:
        self._follower = follower
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._looked = -SPACING

    async def than(self, served: LoadedModel) -> LoadedModel | None:
        """The champion that has taken this one's place; None: there is none."""
        if self._follower.served is served:
            # Who asks while a look is under way waits for the next: the pointer may have changed since this one began.
            if self._next is None:
                self._next = asyncio.create_task(self._look())
            await asyncio.shield(self._next)
        newest = self._follower.served
        return None if newest is served else newest

    async def checked(self, request: Request, served: LoadedModel, check: Callable[[LoadedModel], T]) -> tuple[LoadedModel, T]:
        """What a check by the declaration of a model gives, and the model: the newest, where the one given would refuse it.

        Raises:
            Refused: so does the newest.
        """
        try:
            return served, check(served)
        except Refused as refusal:
            is_declared_otherwise = refusal.status_code == HTTPStatus.UNPROCESSABLE_ENTITY and follows_declaration(
                refusal.errors, served.accepts
            )
            newer = await self.than(served) if is_declared_otherwise else None
            if newer is None:
                raise
            request.scope["state"]["model_version"] = newer.version
            return newer, check(newer)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(max(0.0, self._looked + SPACING - loop.time()))
            self._next = None
            await asyncio.to_thread(self._follower.poll)
            self._looked = loop.time()


def follows_declaration(problems: Sequence[FieldProblem], declared: Declared) -> bool:
    """Whether another declaration might not have these problems."""
    return any(
        problem.field not in FIELDS
        or declared.overridden(ALIASES.get(problem.field, problem.field)) is not None
        or (problem.field == "amount" and declared.amounts != Amounts())
        or (problem.reason == "is missing" and problem.field not in _DEMANDED)
        for problem in problems
    )
