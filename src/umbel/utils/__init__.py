"""Names that Celery's users import from `celery.utils`; nothing inside umbel imports them from here."""

from umbel.ids import gethostname, nodename, nodesplit, uuid

__all__ = ["gen_unique_id", "gethostname", "nodename", "nodesplit", "uuid"]

gen_unique_id = uuid
