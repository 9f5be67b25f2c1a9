"""Decision on a payment: approve, review or decline."""

from typing import Literal

Decision = Literal["approve", "review", "decline"]
