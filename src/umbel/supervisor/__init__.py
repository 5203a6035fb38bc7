"""Workers as child processes of one process that keeps them alive, and what a daemon needs."""

from umbel.supervisor.supervisor import Supervisor

__all__ = ["Supervisor"]
