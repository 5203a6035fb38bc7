"""Names that Celery's users import from `celery.utils.log`; they are made in `umbel.logs`."""

from umbel.logs import ColorFormatter, LoggingProxy, TaskFormatter, get_logger, get_task_logger, mlevel

__all__ = ["ColorFormatter", "LoggingProxy", "TaskFormatter", "get_logger", "get_task_logger", "mlevel"]
