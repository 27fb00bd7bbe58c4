"""Whose objects a request names, and what becomes of an output that exists: the part that every request has."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import choice
from reel_modal.schema.keys import Scope, store_key

__all__ = ["Existing", "Scope", "StoreOptions", "store_key"]

Existing: TypeAlias = Literal["replace", "reuse", "refuse"]
"""What is done where there is an output already."""

_SCOPE: Final[Kind[Scope, Scope]] = choice(Scope)
_EXISTING: Final[Kind[Existing, Existing]] = choice(Existing)


@record
class StoreOptions(Record):
    """Whose objects a request names, and what becomes of an output that is there.

    Attributes:
        input_scope: Of the input's key: `user` puts `users/<user_id>/` before it, `global` nothing.
        output_scope: Of the output's key.
        existing: Where there is an output already, `replace` renders and replaces it; `reuse` returns it where it
            was made by the same request from the same input, and else replaces it; `refuse` returns it in that case
            too, and refuses in any other, before anything is rendered.
    """

    input_scope: Scope = declared(converter=_SCOPE, default="user")
    output_scope: Scope = declared(converter=_SCOPE, default="user")
    existing: Existing = declared(converter=_EXISTING, default="replace")
