"""Times by calendar fields, as in a crontab: pure functions of a pattern, a moment and a time zone.

`grammar` reads the text of a field, `pattern` finds the next time that a clock on the wall would show, `changes` says when that is, also
on days on which the clock is changed, and `words` says a pattern in English. The schedules that users write are in `umbel.schedules`.
"""

from __future__ import annotations

from umbel.cron.changes import next_after, on_the_wall
from umbel.cron.grammar import ParseException, crontab_parser
from umbel.cron.pattern import Pattern, Spec, expand
from umbel.cron.words import in_words

__all__ = ["ParseException", "Pattern", "Spec", "crontab_parser", "expand", "in_words", "next_after", "on_the_wall"]
