"""TLS to RabbitMQ, with an authority of the test's own: who is trusted, who is not, and what the errors say."""

import contextlib
import shutil
import socket

import pytest
from tests import servers
from tests.conftest import absent
from tests.processes import wait_for
from tests.rabbitmq import PrivateRabbit
from tests.redis_family.test_tls import authority, certificate

from umbel import Celery
from umbel.drivers import open_backend, open_broker
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured
from umbel.testing.conformance.base import item

pytest.importorskip("umbel.drivers.amqp")
pytestmark = [
    pytest.mark.amqp,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl"),
]


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("papers")
    for name in ("authority", "stranger"):
        authority(folder, name)
    for name in ("server", "client"):
        certificate(folder, name, by="authority")
    return folder


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


@pytest.fixture(scope="module")
def secure(papers, tmp_path_factory):
    """The URL of a RabbitMQ that speaks TLS only, and only to who shows a certificate."""
    if servers.find_binary(servers.RABBITMQ) is None:
        absent(servers.RABBITMQ)
    port = servers.free_port()
    conf = f"""
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {papers / "authority.pem"}
ssl_options.certfile = {papers / "server.pem"}
ssl_options.keyfile = {papers / "server.key"}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""
    with contextlib.closing(PrivateRabbit(tmp_path_factory.mktemp("rabbit"), conf=conf)) as server:
        server.start()
        wait_for(lambda: listens(port), 20)
        yield f"amqps://guest:guest@127.0.0.1:{port}//"


def papers_of(papers, by="authority", client="client"):
    shown = {"certfile": str(papers / f"{client}.pem"), "keyfile": str(papers / f"{client}.key")} if client else {}
    return {"ca_certs": str(papers / f"{by}.pem"), **shown}


def test_messages_and_results_pass_over_tls(secure, papers):
    app = Celery("tls", broker=secure, backend="rpc://", broker_use_ssl=papers_of(papers), broker_publish_timeout=10.0)
    app.conf.task_default_queue = "tls"
    app.task(lambda: None, name="noop")
    result = app.tasks["noop"].delay()
    assert result.state == "PENDING"
    assert app.broker.purge("tls") == 1
    app.close()


@pytest.mark.parametrize(
    ("ssl", "word"),
    [
        ({"by": "stranger"}, "CERTIFICATE_VERIFY_FAILED"),
        ({"client": None}, "(?i)certificate.required|handshake|lost|reset|closed|EOF"),
    ],
    ids=["a_stranger_signed_the_server", "the_client_shows_nothing"],
)
def test_who_is_not_trusted_is_an_error_in_time(secure, papers, ssl, word):
    broker = open_broker(secure, options={"ssl": papers_of(papers, **ssl)}, timeout=5)
    with pytest.raises(BrokerUnavailable, match=word):
        broker.publish([item("tls", "a")])
    broker.close()


def test_the_name_in_the_certificate_must_be_that_of_the_url(secure, papers):
    elsewhere = secure.replace("127.0.0.1", "127.0.0.2")
    broker = open_broker(elsewhere, options={"ssl": papers_of(papers)}, timeout=5)
    with pytest.raises(BrokerUnavailable, match="No connection to RabbitMQ"):
        broker.open()
    broker.close()


def test_without_tls_in_the_url_a_server_of_tls_is_not_reached(secure, papers):
    broker = open_broker(secure.replace("amqps", "amqp"), timeout=3)
    with pytest.raises(BrokerUnavailable):
        broker.open()
    broker.close()


def test_a_file_that_is_not_there_is_named(secure):
    with pytest.raises(ImproperlyConfigured, match="Look at ca_certs, certfile and keyfile"):
        open_backend(secure, options={"ssl": {"ca_certs": "/nowhere/ca.pem"}})
