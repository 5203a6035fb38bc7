"""Refusing wrong arguments at the call, where the traceback shows who made the mistake."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Arity"]

SLOW_KINDS = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY})


@dataclass(frozen=True, slots=True)
class Arity:
    """The signature of a task's function, prepared for a quick answer to the usual call."""

    signature: inspect.Signature
    plain: bool  # nothing but parameters that may be given by position
    least: int  # with so many arguments by position, and no others, it can be called
    most: int
    required: tuple[str, ...]
    names: tuple[str, ...]
    by_position_only: frozenset[str]

    @classmethod
    def of(cls, function: Callable[..., Any], *, skip_first: bool) -> Arity | None:
        """Read the signature of *function*, without its `self` if *skip_first*; None if it has none to read."""
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return None
        parameters = list(signature.parameters.values())[1 if skip_first else 0 :]
        plain = not any(each.kind in SLOW_KINDS for each in parameters)
        required = tuple(each.name for each in parameters if each.default is each.empty)
        return cls(
            signature=signature.replace(parameters=parameters),
            plain=plain,
            least=len(required) if plain else 1,
            most=len(parameters) if plain else 0,
            required=required,
            names=tuple(each.name for each in parameters),
            by_position_only=frozenset(each.name for each in parameters if each.kind is each.POSITIONAL_ONLY),
        )

    def check(self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that the function would refuse.

        Raises:
            TypeError: as calling the function would.
        """
        count = len(args)
        if self.plain and kwargs and count <= len(self.names) and not self.by_position_only:
            given = kwargs.keys()
            if given <= set(self.names[count:]) and given >= set(self.required[count:]):
                return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{task}{self.signature} cannot be called so: {exc}") from None
