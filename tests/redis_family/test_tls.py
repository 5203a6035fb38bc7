"""TLS with an authority of the test's own: who is trusted, who is not, and what the errors say."""

import contextlib
import json
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("redis")

import redis
from tests.faults.conftest import faults_on
from tests.processes import wait_for
from tests.redis_family import processes

from umbel import Celery
from umbel.drivers import open_backend, open_broker
from umbel.exceptions import BackendUnavailable, BrokerUnavailable, ImproperlyConfigured
from umbel.testing.conformance.base import item
from umbel.worker.keeper import Keeper

pytestmark = [
    pytest.mark.redis,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl"),
]


FILES = {"cert": "server.pem", "key": "server.key", "ca-cert": "authority.pem"}


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=30)


def authority(folder: Path, name: str) -> None:
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem"),
    )  # fmt: skip


def certificate(folder: Path, name: str, *, by: str, names: str = "IP:127.0.0.1,DNS:localhost") -> None:
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={names}\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", str(folder / f"{name}.key"), "-out", str(request))
    openssl(
        "x509", "-req", "-in", str(request), "-days", "2", "-extfile", str(extensions), "-CAcreateserial",
        "-CA", str(folder / f"{by}.pem"), "-CAkey", str(folder / f"{by}.key"), "-out", str(folder / f"{name}.pem"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("papers")
    for name in ("authority", "stranger"):
        authority(folder, name)
    for name in ("server", "client"):
        certificate(folder, name, by="authority")
    return folder


def trusting(papers: Path, by: str = "authority") -> dict[str, str]:
    return {"ssl_ca_certs": str(papers / f"{by}.pem")}


def known(papers: Path) -> dict[str, str]:
    return {**trusting(papers), "ssl_certfile": str(papers / "client.pem"), "ssl_keyfile": str(papers / "client.key")}


def serves(papers: Path, folder: Path, *, clients: str):
    options = (
        "--tls-cert-file",
        papers / "server.pem",
        "--tls-key-file",
        papers / "server.key",
        "--tls-ca-cert-file",
        papers / "authority.pem",
    )
    return processes.running(folder, *map(str, options), "--tls-auth-clients", clients, ssl=True, **known(papers))


@pytest.fixture(scope="module")
def server(papers, tmp_path_factory):
    """It wants no certificate of a client."""
    with serves(papers, tmp_path_factory.mktemp("tls"), clients="no") as server:
        yield server


@pytest.fixture(scope="module")
def strict(papers, tmp_path_factory):
    """It wants a certificate of every client."""
    with serves(papers, tmp_path_factory.mktemp("strict"), clients="yes") as server:
        yield server


def publishes(url, **options):
    with contextlib.closing(open_broker(url, options=options)) as broker:
        broker.publish([item("q", "a")])


@pytest.mark.parametrize("word", ["required", "CERT_REQUIRED", "optional", "CERT_OPTIONAL"])
def test_a_server_whose_authority_is_named_in_the_url_is_trusted(server, papers, word):
    publishes(f"rediss://127.0.0.1:{server.port}/0?ssl_cert_reqs={word}&ssl_ca_certs={papers}/authority.pem")


@pytest.mark.parametrize("word", ["none", "CERT_NONE"])
def test_a_server_is_not_verified_if_the_url_says_so(server, word):
    publishes(f"rediss://127.0.0.1:{server.port}?ssl_cert_reqs={word}")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("how", ["required", ssl.CERT_REQUIRED, 2])
def test_the_settings_that_celery_has_for_tls_are_heard(strict, papers, scheme, how):
    url, asked = f"{scheme}://127.0.0.1:{strict.port}/0", {**known(papers), "ssl_cert_reqs": how}
    app = Celery("tls", broker=url, backend=url, broker_use_ssl=asked, redis_backend_use_ssl=asked)
    with contextlib.closing(app):
        app.broker.open()
        app.backend.open()
        assert app.broker.settles_with(app.backend)


def test_true_is_enough_where_the_system_trusts_the_authority(server, papers, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(papers / "authority.pem"))
    publishes(f"redis://127.0.0.1:{server.port}/0", ssl=True)


@pytest.mark.parametrize("options", [{}, {"by": "stranger"}])
def test_a_server_of_an_authority_that_is_not_trusted_is_refused_with_what_to_do(server, papers, options):
    given = trusting(papers, **options) if options else {}
    with pytest.raises(BrokerUnavailable, match=r"CERTIFICATE_VERIFY_FAILED.*as ssl_ca_certs") as caught:
        publishes(f"rediss://127.0.0.1:{server.port}", **given)
    assert caught.value.unreachable
    backend = open_backend(f"rediss://127.0.0.1:{server.port}", options=given)
    with contextlib.closing(backend), pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        backend.get(["a"])


def test_a_client_without_a_certificate_is_told_what_is_missing(strict, papers):
    with pytest.raises(BrokerUnavailable, match=r"wants a certificate of its clients \(ssl_certfile"):
        publishes(f"rediss://127.0.0.1:{strict.port}", **trusting(papers))


def test_a_server_that_speaks_tls_does_not_answer_a_client_that_does_not(server):
    with pytest.raises(BrokerUnavailable, match=r"speaks TLS \(rediss://\)"):
        publishes(f"redis://127.0.0.1:{server.port}")


def test_a_file_that_is_not_there_is_named(server):
    with pytest.raises(ImproperlyConfigured, match=r"/nowhere/ca\.pem"):
        publishes(f"rediss://127.0.0.1:{server.port}", ssl_ca_certs="/nowhere/ca.pem")


@pytest.mark.parametrize(
    ("asked", "said"), [({"ca_certs": "x"}, "has ca_certs.*ssl_ca_certs"), ({"ssl_cert_reqs": "maybe"}, "'maybe'.*required")]
)
def test_options_that_redis_does_not_take_are_refused_with_those_that_it_takes(asked, said):
    with pytest.raises(ImproperlyConfigured, match=said):
        open_broker("rediss://127.0.0.1", options={"ssl": asked})


def test_a_worker_works_with_tls(strict, papers, tmp_path):
    url = f"rediss://127.0.0.1:{strict.port}/0"
    faults = faults_on(url, url, tmp_path)
    faults.env["LEDGER_SETTINGS"] = json.dumps({"broker_use_ssl": known(papers), "redis_backend_use_ssl": known(papers)})
    with faults.worker("-c", "1") as worker:
        assert faults.script("from faults_app import *; print(work.delay(1).get(timeout=60))").strip() == "1"
        worker.send(15)
        assert worker.exit_code() == 0, worker.tail()


def test_the_keeper_of_a_solo_worker_renews_with_tls(strict, papers):
    url, options = f"redis://127.0.0.1:{strict.port}/0", {"ssl": {**known(papers), "ssl_cert_reqs": ssl.CERT_REQUIRED}}
    with contextlib.closing(open_broker(url, options=options)) as broker:
        broker.join("kept", ["q"], lease=0.1)
        ends = strict.ask("ZSCORE", "{q}.owners", "kept")
        keeper = Keeper(url, options, ["q"], lease=60, renewal=0.1, base_dir=None)
        try:
            keeper.keep("kept")
            wait_for(lambda: strict.ask("ZSCORE", "{q}.owners", "kept") > ends + 10_000, 10)
        finally:
            keeper.close()


def test_a_cluster_speaks_tls_too(papers, tmp_path):
    files = [text for kind, name in FILES.items() for text in (f"--tls-{kind}-file", str(papers / name))]
    with processes.cluster(tmp_path, *files, "--tls-cluster", "yes", masters=1, ssl=True, **known(papers)) as cluster:
        cluster.scheme = "rediss+cluster"
        with contextlib.closing(open_broker(cluster.url, options={"ssl": known(papers)})) as broker:
            broker.publish([item(f"q{n}", "a") for n in range(9)])
            assert [each.ready for each in broker.depth([f"q{n}" for n in range(9)]).values()] == [1] * 9


@pytest.mark.parametrize(("url", "asked"), [("rediss+sentinel://127.0.0.1", {}), ("sentinel://127.0.0.1", {"ssl": True})])
def test_the_master_that_sentinels_name_may_speak_tls(url, asked):
    with contextlib.closing(open_broker(url, options={"master_name": "mymaster", **asked})) as broker:
        assert isinstance(broker._client._make(), redis.SSLConnection)
