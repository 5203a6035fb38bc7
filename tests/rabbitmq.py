"""A RabbitMQ of a test's own, which may be stopped, killed, frozen, and told what to do by its administrator."""

import os
import signal
import subprocess
from pathlib import Path

from tests.processes import wait_for
from tests.servers import RABBITMQ, Program, answers, find_binary, free_port

CTL = Program(name="rabbitmqctl", binary="/usr/lib/rabbitmq/bin/rabbitmqctl", debian_package="rabbitmq-server")


class PrivateRabbit:
    """Its files stay over a restart."""

    def __init__(self, folder: Path, *, conf: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        (folder / "rabbitmq.conf").write_text(f"log.console.level = warning\n{conf}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._environment = {**os.environ, **RABBITMQ.environment(self.folder, self.port)}
        with (self.folder / "server.log").open("ab") as out:
            self._process = subprocess.Popen(
                [find_binary(RABBITMQ) or RABBITMQ.binary],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        wait_for(lambda: answers(RABBITMQ, self.port), RABBITMQ.patience)

    def ctl(self, *words: str) -> str:
        """Run one of its administrator's commands."""
        done = subprocess.run(
            [find_binary(CTL) or CTL.binary, "-q", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def signal(self, number: int) -> None:
        """Send a signal to the shell that started it and to the server."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it as a power failure would."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait(10)

    close = kill


def delete_queues(url: str, *queues: str) -> None:
    """Delete queues, with what is put away beside them."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(url[:-1] + "%2F" if url.endswith("//") else url))
    channel = connection.channel()
    for queue in queues:
        for name in (queue, f"{queue}.umbel.dead", f"{queue}.umbel.parked"):
            channel.queue_delete(name)
    connection.close()
