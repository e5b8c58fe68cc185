"""Which addresses are reached, and that the one checked is the one connected to."""

from __future__ import annotations

import datetime
import ipaddress
import random
import socket
import ssl
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from curation.fetch import client as fetch_client
from curation.fetch import host_of
from curation.fetch.network import is_public
from tests.curation.fetch.asking import ask
from tests.fetch_server import FetchServer

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.9.9.9",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"]


def test_addresses() -> None:
    assert [text for text in PRIVATE if is_public(ipaddress.ip_address(text))] == []
    assert [text for text in PUBLIC if not is_public(ipaddress.ip_address(text))] == []


def test_nothing_is_public_that_the_standard_library_calls_otherwise() -> None:
    draw = random.Random(5)
    found = 0
    for _ in range(20_000):
        four = ipaddress.IPv4Address(draw.getrandbits(32))
        six = ipaddress.IPv6Address(draw.getrandbits(128) >> draw.choice((0, 2, 3, 8, 64)))
        for address in (four, six):
            if is_public(address):
                found += 1
                assert address.is_global, address
                assert not (address.is_multicast or address.is_reserved or address.is_link_local)
    assert found > 10_000


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "017700000001", "0"],
)
def test_no_spelling_of_loopback_gets_through(server: FetchServer, host: str) -> None:
    before = len(server.log.connections)
    (row,) = ask([f"http://{host}:{server.port}/good"])
    assert row["reason"] == "fetch_private_address"
    assert len(server.log.connections) == before


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "fetch_bad_url"),
        ("", "fetch_bad_url"),
        ("file:///etc/passwd", "fetch_bad_url"),
        ("ftp://example.org/x.jpg", "fetch_bad_url"),
        ("data:image/png;base64,AAAA", "fetch_bad_url"),
        ("//example.org/x.jpg", "fetch_bad_url"),
        ("http://", "fetch_bad_url"),
        ("http://user:secret@example.org/", "fetch_bad_url"),
        ("http://secret@example.org/", "fetch_bad_url"),
        ("http://example.org:25/", "fetch_bad_url"),
        ("http://example.org:99999/", "fetch_bad_url"),
        ("http://example.org/\r\nX-Evil: 1", "fetch_bad_url"),
        ("http://example.org/" + "a" * 9000, "fetch_bad_url"),
        ("http://a..b/", "fetch_dns"),
        ("http://" + "a" * 70 + ".example/", "fetch_dns"),
        ("http://no-such-name.invalid/", "fetch_dns"),
    ],
)
def test_urls_that_are_not_fetched(url: str | None, reason: str) -> None:
    (row,) = ask([url], retries=0)
    assert (row["reason"], row["attempts"]) == (reason, 0)
    assert "secret" not in str(row)
    if reason == "fetch_bad_url":
        assert host_of(url) == ""


def test_the_host_that_limits_count_for() -> None:
    assert host_of("https://www.example.org/") == host_of("http://example.org/") == "example.org"
    assert host_of("HTTP://Example.ORG.:8080/a#b") == "example.org"
    assert host_of("https://bücher.example/") == "xn--bcher-kva.example"
    assert host_of("http://[2606:4700::1111]:8080/") == "2606:4700::1111"


class Redirected(httpcore.AnyIOBackend):
    """Notes where a connection would go and makes it to the test's server."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.asked = port, []

    async def connect_tcp(self, host: str, port: int, *args: Any, **more: Any) -> Any:
        self.asked.append((host, port))
        return await super().connect_tcp("127.0.0.1", self.port, *args, **more)


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: list[str]) -> list[str]:
    """Make DNS give these answers, one after another, the last for ever; return who asked."""
    asked: list[str] = []

    def getaddrinfo(host: str, *args: Any, **more: Any) -> list:
        found = addresses[min(len(asked), len(addresses) - 1)]
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in found]

    monkeypatch.setattr("curation.fetch.network.socket.getaddrinfo", getaddrinfo)
    return asked


def test_the_address_checked_is_the_one_connected_to(
    server: FetchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that changes to loopback after the check gains nothing; the name itself is sent."""
    asked = answers(monkeypatch, ["10.0.0.1", "93.184.216.34"], ["127.0.0.1"])
    sockets = Redirected(server.port)
    monkeypatch.setattr("curation.fetch.network.httpcore.AnyIOBackend", lambda: sockets)
    (row,) = ask(["http://rebinding.example:8080/good"])
    assert row["reason"] == ""
    assert asked == ["rebinding.example"]
    assert set(sockets.asked) == {("93.184.216.34", 8080)}
    assert {s.headers["host"] for s in server.log.of("rebinding")} == {"rebinding.example:8080"}


def test_a_name_with_private_addresses_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ["10.0.0.1", "169.254.169.254"])
    (row,) = ask(["http://inside.example/x.jpg"])
    assert row["reason"] == "fetch_private_address"
    assert "169.254.169.254" in row["error"]


def test_permission_is_for_one_host_and_port(server: FetchServer) -> None:
    allowed = (f"a.localhost:{server.port + 1}", f"b.localhost:{server.port}")
    urls = [server.url("a", "/good"), server.url("b", "/good")]
    assert [row["reason"] for row in ask(urls, allow_private=allowed)] == [
        "fetch_private_address",
        "",
    ]


def test_proxies_of_the_environment_are_not_used(
    server: FetchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (row,) = ask([server.url("direct", "/good")], allow_private=server.allow("direct"))
    assert row["reason"] == ""


def test_a_closed_port(server: FetchServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place = f"closed.localhost:{closed.getsockname()[1]}"
    (row,) = ask([f"http://{place}/x.jpg"], retries=0, allow_private=(place,))
    assert row["reason"] == "fetch_connect"


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a self-signed certificate for ``name``, and a client's that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    trusting = ssl.create_default_context(cafile=str(pem))
    return context, trusting


def test_tls_names_the_host_and_checks_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusting = certificate(tmp_path, "safe.localhost")
    names: list[str | None] = []
    context.sni_callback = lambda socket, name, context: names.append(name)
    with FetchServer(context) as server:
        urls = [server.url("safe", "/good"), server.url("fake", "/good")]
        allowed = server.allow("safe", "fake")
        untrusted = ask(urls[:1], allow_private=allowed)
        monkeypatch.setattr(fetch_client.httpx, "create_ssl_context", lambda **more: trusting)
        rows = ask(urls, allow_private=allowed)
    assert [row["reason"] for row in untrusted] == ["fetch_tls"]
    assert [row["reason"] for row in rows] == ["", "fetch_tls"]
    assert set(names) == {"safe.localhost", "fake.localhost"}
