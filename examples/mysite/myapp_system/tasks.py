from umbel import shared_task
from umbel.utils.log import get_task_logger

logger = get_task_logger(__name__)


@shared_task
def login_log_task(username):
    logger.info("login %s", username)
    return {"ok": True, "username": username}
