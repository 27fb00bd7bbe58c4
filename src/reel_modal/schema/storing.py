"""Whose objects a request names, and what becomes of an output that is there: the part that every request has.

Pure; it must not know any store. The one place where a user's prefix is put before a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias, get_args

from reel_modal.errors import InvalidKeyError
from reel_modal.parsing import Record, one_of
from reel_modal.schema.reading import build

__all__ = ["Existing", "Scope", "StoreOptions", "store_key"]

Scope: TypeAlias = Literal["user", "global"]
"""Whose an object is: one user's, below `users/` and the user's id, or everybody's, anywhere else in the store."""

Existing: TypeAlias = Literal["replace", "reuse", "refuse"]
"""What is done where there is an output already."""

_USERS: Final = "users"


def store_key(key: str, scope: Scope, user_id: str) -> str:
    """Return where in the store the object is that a request calls `key`.

    Args:
        key: As in a request.
        scope: Whose it is.
        user_id: Of the request.

    Raises:
        InvalidKeyError: The user's id is no plain name, or a global key reaches into users' objects.

    Example:
        >>> store_key("reels/1.mp4", "user", "7")
        'users/7/reels/1.mp4'
        >>> store_key("games/final.mp4", "global", "7")
        'games/final.mp4'
    """
    if scope == "global":
        if key.partition("/")[0] == _USERS:
            raise InvalidKeyError(f"key {key!r} is below {_USERS}/, so it is no global one; use the scope 'user'")
        return key
    if "/" in user_id:
        raise InvalidKeyError(f"user_id {user_id!r} has a slash, so it cannot be a part of a key")
    return f"{_USERS}/{user_id}/{key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Whose objects a request names, and what becomes of an output that is there.

    Attributes:
        input_scope: Of the input's key: `user` puts `users/<user_id>/` before it, `global` nothing.
        output_scope: Of the output's key.
        existing: Where there is an output already, `replace` renders and replaces it; `reuse` returns it where it
            was made by the same request from the same input, and else replaces it; `refuse` returns it in that case
            too, and refuses in any other, before anything is rendered.
    """

    input_scope: Scope = "user"
    output_scope: Scope = "user"
    existing: Existing = "replace"

    def __post_init__(self) -> None:
        for name in ("input_scope", "output_scope"):
            one_of(*get_args(Scope))(getattr(self, name), name)
        one_of(*get_args(Existing))(self.existing, "existing")

    @classmethod
    def read(cls, raw: object, path: str) -> Self:
        """Read one from the JSON of a request; `path` is where it stands there."""
        record = Record(raw, path)
        default = cls()
        options = {
            name: record.take_or(getattr(default, name), one_of(*get_args(words)), name)
            for name, words in (("input_scope", Scope), ("output_scope", Scope), ("existing", Existing))
        }
        record.finish()
        return build(cls, path, options)

    def to_dict(self) -> dict[str, object]:
        """Return the options for JSON."""
        return {"input_scope": self.input_scope, "output_scope": self.output_scope, "existing": self.existing}
