"""Names that Celery's users import from `celery.utils`; nothing inside umbel imports them from here."""

from functools import cached_property

from umbel.ids import gethostname, nodename, nodesplit, uuid
from umbel.utils.functional import noop
from umbel.utils.imports import instantiate, qualname, symbol_by_name

__all__ = [
    "cached_property", "gen_unique_id", "get_full_cls_name", "gethostname", "instantiate", "nodename", "nodesplit", "noop", "qualname",
    "symbol_by_name", "uuid",
]  # fmt: skip

gen_unique_id = uuid
get_full_cls_name = qualname
