"""Storage options of every request: the scopes of its keys, and the handling of an existing output."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import choice
from reel_modal.schema.keys import Scope, store_key

__all__ = ["Existing", "Scope", "StoreOptions", "store_key"]

Existing: TypeAlias = Literal["replace", "reuse", "refuse"]
"""Handling of an existing output."""

_SCOPE: Final[Kind[Scope, Scope]] = choice(Scope)
_EXISTING: Final[Kind[Existing, Existing]] = choice(Existing)


@record
class StoreOptions(Record):
    """Scopes of the keys of a request, and handling of an existing output.

    Attributes:
        input_scope: Scope of the input key: `user` adds the prefix `users/<user_id>/`, `global` adds no prefix.
        output_scope: Scope of the output key, with the same values.
        existing: Handling of an existing output. `replace` renders again and replaces it. `reuse` returns it if it
            was rendered by the same request from the same input, else replaces it. `refuse` also returns it in that
            case, else fails before rendering.
    """

    input_scope: Scope = declared(converter=_SCOPE, default="user")
    output_scope: Scope = declared(converter=_SCOPE, default="user")
    existing: Existing = declared(converter=_EXISTING, default="replace")
