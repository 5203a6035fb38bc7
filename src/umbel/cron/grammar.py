"""The text of one field of a crontab, such as `*/5`, `9-17`, `mon-fri` or `1,15,20-25/2`."""

from __future__ import annotations

from typing import ClassVar, Final

__all__ = ["NAMES", "ParseException", "crontab_parser"]

NAMES: Final = {
    **{name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))},
    **{
        name: number
        for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1)
    },
}


class ParseException(Exception):  # noqa: N818 - Celery's name
    """The text of a field is incomplete."""


class crontab_parser:  # noqa: N801 - Celery's name
    """Reads the text of a field that has *max_* values, of which *min_* is the first.

    Names of weekdays and months are read by their first three letters, in any field, as in Celery. A range may wrap (`fri-mon`, `50-10`),
    and a step counts along the wrapped range.
    """

    ParseException: ClassVar[type[ParseException]] = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.min_, self.max_ = min_, max_ + min_ - 1

    def parse(self, spec: str) -> set[int]:
        """Return the values that *spec* names.

        Raises:
            ParseException: a part is empty, or a number is negative.
            ValueError: a part is not of this grammar, or out of range.
        """
        return {value for part in spec.split(",") for value in self._part(part.strip())}

    def _part(self, part: str) -> list[int]:
        if not part:
            raise ParseException(f"empty part: write a value, a range or * (allowed: {self._allowed()})")
        span, slash, step = part.partition("/")
        if span == "*":
            values = list(range(self.min_, self.max_ + 1))
        elif "-" in span:
            values = self._range(span)
        elif slash:
            raise ValueError(f"{part!r}: a step follows a range or *, as in {span}-{self.max_}/{step}.")
        else:
            values = [self._number(span)]
        return values[:: self._step(step)] if slash else values

    def _range(self, span: str) -> list[int]:
        first, _, last = span.partition("-")
        if not first:
            raise ParseException(f"negative numbers not supported: {span!r} (allowed: {self._allowed()})")
        begin, end = self._number(first), self._number(last)
        if begin <= end:
            return list(range(begin, end + 1))
        return [*range(begin, self.max_ + 1), *range(self.min_, end + 1)]

    def _number(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            found = NAMES.get(text[:3].lower())
            if found is None:
                raise ValueError(f"{text!r} is neither a number nor the name of a weekday or month. Allowed: {self._allowed()}.") from None
            value = found
        if not self.min_ <= value <= self.max_:
            hint = " Sunday is 0, or sun." if (value, self.min_, self.max_) == (7, 0, 6) else ""
            raise ValueError(f"{text!r} is out of range. Allowed: {self._allowed()}.{hint}")
        return value

    def _step(self, text: str) -> int:
        if not text or text.startswith("-"):
            raise ParseException(f"empty filter: a step is a number from 1, not {text!r}")
        try:
            step = int(text)
        except ValueError:
            raise ValueError(f"A step is a number from 1, not {text!r}.") from None
        if step < 1:
            raise ValueError(f"A step is a number from 1, not {text!r}.")
        return step

    def _allowed(self) -> str:
        return f"{self.min_}-{self.max_}"
