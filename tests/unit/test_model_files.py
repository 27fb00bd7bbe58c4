"""Where the file of a network may come from: what is read, what is downloaded, and what is never shown."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.networks import repeating

from reel_modal.config import ModelSource
from reel_modal.errors import ConfigError, InvalidModelError, RequestError
from reel_modal.upscaling import model_files
from reel_modal.upscaling.model import UpscaleModel, check_registered, model_at

DATA = repeating(1).to_bytes()
SHA256 = hashlib.sha256(DATA).hexdigest()
PASSWORD = "hunter2"  # noqa: S105 - what no message may hold


class Server:
    """An HTTP server on the loopback interface that answers by path."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers["Host"]))
                outer.answers[self.path.partition("?")[0]](self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self, path: str, body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(body) if length is None else length))
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.http.shutdown()
            self.http.server_close()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as running:
        running.serve("/net.onnx", DATA)
        yield running


def load(url: str, cache: Path, *, sha256: str = SHA256, private: bool = True) -> UpscaleModel:
    return UpscaleModel.load(url, sha256=sha256, cache=cache, allow_private_addresses=private)


def refusal(url: str, cache: Path, **options: object) -> str:
    with pytest.raises(InvalidModelError) as caught:
        load(url, cache, **options)  # type: ignore[arg-type]
    assert PASSWORD not in str(caught.value)
    assert not cache.exists()
    return str(caught.value)


def test_url_is_downloaded_once_and_checked(server: Server, tmp_path: Path) -> None:
    first = load(f"{server.url}/net.onnx?sig={PASSWORD}", tmp_path)
    server.answers.clear()
    again = load(f"{server.url}/net.onnx", tmp_path)
    assert first.sha256 == again.sha256 == SHA256
    assert first.manifest.name == "net"
    assert [path.name for path in tmp_path.iterdir()] == [f"{SHA256}.onnx"]
    assert server.asked == [(f"/net.onnx?sig={PASSWORD}", f"127.0.0.1:{server.port}")]


def test_damaged_copy_in_the_cache_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    kept = tmp_path / f"{SHA256}.onnx"
    kept.write_bytes(DATA[:-3])
    assert load(f"{server.url}/net.onnx", tmp_path).sha256 == SHA256
    assert kept.read_bytes() == DATA


def test_cache_that_cannot_be_written_is_logged(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert load(f"{server.url}/net.onnx", tmp_path / "file" / "cache").sha256 == SHA256
    assert "is not kept in" in caplog.text


def test_other_file_at_a_url_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    message = refusal(f"{server.url}/net.onnx", tmp_path / "cache", sha256="ab" * 32)
    assert f"does not have the sha256 '{'ab' * 32}'" in message
    assert SHA256 not in message


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"],  # noqa: S104 - a target
)
def test_private_address_is_refused_before_anything_is_sent(server: Server, tmp_path: Path, host: str) -> None:
    message = refusal(f"http://{host}:{server.port}/net.onnx?sig={PASSWORD}", tmp_path / "cache", private=False)
    assert "leads to an address that is private, loopback or link-local; set allow_private_addresses" in message
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a00:1::", "ff02::1"),
    ],
)
def test_name_that_resolves_to_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    # A name server of the attacker's: the first answer is public, the second is not.
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443)) for each in ("93.184.216.34", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it connects"))
    assert "private, loopback or link-local" in refusal("https://models.example.org/n", tmp_path / "c", private=False)


def test_connection_goes_to_the_address_that_was_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resolve, names = socket.getaddrinfo, []

    def rebinding(host: str, *more: object, **options: int) -> object:
        if host != "models.example.org":
            return resolve(host, *more, **options)  # type: ignore[arg-type]
        names.append(host)
        return resolve("127.0.0.1" if len(names) == 1 else "192.0.2.1", *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    load(f"http://models.example.org:{server.port}/net.onnx", tmp_path)
    assert len(names) == 1
    assert server.asked == [("/net.onnx", f"models.example.org:{server.port}")]


def test_redirect_within_the_host_is_followed(server: Server, tmp_path: Path) -> None:
    server.serve("/a", b"", status=302, Location="/b")
    server.serve("/b", b"", status=308, Location=f"{server.url}/net.onnx")
    assert load(f"{server.url}/a", tmp_path).sha256 == SHA256


@pytest.mark.parametrize(
    "target", ["http://localhost:{port}/net.onnx", "https://127.0.0.1:{port}/net.onnx", "http://127.0.0.1:1/net.onnx"]
)
def test_redirect_to_another_host_is_refused(server: Server, tmp_path: Path, target: str) -> None:
    server.serve("/a", b"", status=302, Location=target.format(port=server.port) + f"?sig={PASSWORD}")
    assert "redirects to another host" in refusal(f"{server.url}/a", tmp_path / "cache")


@pytest.mark.parametrize(
    ("target", "words"),
    [("/a", "redirects more than 3 times"), ("file:///etc/passwd", "another host"), ("/\x7f", "not valid")],
)
def test_redirect_that_leads_nowhere_is_refused(server: Server, tmp_path: Path, target: str, words: str) -> None:
    server.serve("/a", b"", status=301, Location=target)
    assert words in refusal(f"{server.url}/a", tmp_path / "cache")
    assert len(server.asked) <= 4


def test_status_of_a_failed_download_is_named_without_the_url(server: Server, tmp_path: Path) -> None:
    server.serve("/none", PASSWORD.encode(), status=403)
    message = refusal(f"{server.url}/none?sig={PASSWORD}", tmp_path / "cache")
    assert message == f"the model at http://127.0.0.1:{server.port}/… could not be downloaded: HTTP status 403"


def test_file_that_says_it_is_too_large_is_refused_unread(server: Server, tmp_path: Path) -> None:
    server.serve("/large", b"", length=model_files.LARGEST_BYTES + 1)
    assert "at most 134217728 are accepted" in refusal(f"{server.url}/large", tmp_path / "cache")


def test_file_that_does_not_say_it_is_too_large_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "LARGEST_BYTES", 1000)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):  # the client has closed the connection
            while True:
                handler.wfile.write(bytes(1 << 16))

    server.answers["/endless"] = endless
    assert "more than 1000 bytes" in refusal(f"{server.url}/endless", tmp_path / "cache")


def test_download_that_breaks_off_says_so(server: Server, tmp_path: Path) -> None:
    server.serve("/short", DATA[:100], length=len(DATA))
    assert f"{len(DATA) - 100} bytes are missing" in refusal(f"{server.url}/short", tmp_path / "cache")


@pytest.mark.parametrize("in_headers", [True, False])
def test_download_that_trickles_ends(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_headers: bool
) -> None:
    monkeypatch.setattr(model_files, "_DOWNLOAD_SECONDS", 1.0)
    ended = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"" if in_headers else b"\r\n"))
        try:
            while not ended.wait(0.1):
                handler.wfile.write(b"x")
        except OSError:
            return

    server.answers["/slow"] = trickle
    started = time.monotonic()
    try:
        message = refusal(f"{server.url}/slow", tmp_path / "cache")
    finally:
        ended.set()
    assert time.monotonic() - started < 10
    assert "did not arrive within 1 s" in message


def test_port_that_nothing_listens_on_is_named_as_such(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/net.onnx?sig={PASSWORD}"
        assert "could not be downloaded: Connection refused" in refusal(url, tmp_path / "cache")


def test_answer_that_is_not_http_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers["/raw"] = lambda handler: handler.wfile.write(f"{PASSWORD}\r\n\r\n".encode()) and None
    assert "could not be downloaded: BadStatusLine" in refusal(f"{server.url}/raw", tmp_path / "cache")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate of the server")
def test_https_checks_the_certificate_against_the_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [str(shutil.which("openssl")), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    url = f"https://localhost:{server.port}/net.onnx"
    assert load(url, tmp_path / "kept").sha256 == SHA256
    assert server.asked == [("/net.onnx", f"localhost:{server.port}")]
    assert "certificate" in refusal(url.replace("localhost", "127.0.0.1"), tmp_path / "cache")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"https://user:{PASSWORD}@example.invalid/net.onnx", "a user or a password"),
        (f"https://example.invalid/{PASSWORD}\n", "characters that a URL cannot have"),
        ("https://", "not a valid URL"),
        ("HTTPS://:0/net.onnx", "not a valid URL"),
    ],
)
def test_url_that_is_not_one_is_refused(tmp_path: Path, url: str, words: str) -> None:
    assert words in refusal(url, tmp_path / "cache")


def test_url_without_a_valid_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="needs the sha256"):
        UpscaleModel.load(f"https://example.invalid/{PASSWORD}")
    assert "not a valid SHA-256" in refusal("https://example.invalid/n", tmp_path / "c", sha256="../../etc/passwd")


def on_disk(path: Path, **options: object) -> str:
    with pytest.raises(InvalidModelError) as caught:
        UpscaleModel.load(path, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_path_with_another_hash_does_not_tell_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(DATA)
    message = on_disk(path, sha256="0" * 64)
    assert f"does not have the sha256 '{'0' * 64}'" in message
    assert SHA256 not in message


def test_file_that_is_not_a_network_does_not_tell_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text(f"root:{PASSWORD}:0:0\n")
    assert PASSWORD not in on_disk(path)


def test_path_that_is_not_found_names_the_networks() -> None:
    assert "or one of small-x2, small-x4, large-x2, large-x4" in on_disk(Path("enormous-x16"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    link = tmp_path / "link"
    link.symlink_to(fifo)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    with listening:
        started = time.monotonic()
        for path in (fifo, link, tmp_path, tmp_path / "socket", Path("/dev/zero")):
            assert "not a regular file" in on_disk(path)
        assert time.monotonic() - started < 1


def test_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse file: it takes no room
    started = time.monotonic()
    assert "has 1099511627776 bytes; at most 134217728 are accepted" in on_disk(path)
    assert time.monotonic() - started < 1


def test_path_with_a_null_character_is_refused() -> None:
    assert "is not found" in on_disk(Path("a\0b"))


@pytest.mark.parametrize("name", [None, "small", "large", "small-x2", "large-x4", "face"])
def test_registered_names_are_accepted(name: str | None) -> None:
    check_registered(name, None, {"face": ModelSource("/face.onnx", SHA256)})


@pytest.mark.parametrize(
    "name", ["huge", "Face", "face.onnx", "/etc/passwd", "https://example.org/n.onnx", "../face", "", "small-x3"]
)
def test_other_names_are_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(RequestError, match=r"known are small, large, .*, face") as caught:
        check_registered(name, None, {"face": ModelSource("/face.onnx", SHA256)})
    assert caught.value.path == "model"


def test_registered_hash_must_be_the_one_of_the_request() -> None:
    registered = {"face": ModelSource("/face.onnx", SHA256)}
    check_registered("face", SHA256.upper(), registered)
    with pytest.raises(RequestError) as caught:
        check_registered("face", "ab" * 32, registered)
    assert caught.value.path == "model_sha256"
    assert SHA256 not in str(caught.value)


def test_registered_path_and_url_are_loaded(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(DATA)
    assert UpscaleModel.load_registered("face", ModelSource(str(path), SHA256)).manifest.name == "face"
    source = ModelSource(f"{server.url}/net.onnx", SHA256, allow_private_addresses=True)
    assert UpscaleModel.load_registered("face", source, cache=tmp_path).manifest.name == "face"
    with pytest.raises(InvalidModelError, match="'face' does not have the sha256"):
        UpscaleModel.load_registered("face", ModelSource(str(path), "ab" * 32))


def test_file_of_the_command_line_gets_a_name_and_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "mein Netz (2).onnx"
    path.write_bytes(DATA)
    name, source = model_at(str(path), sha256=None, allow_private_addresses=False)
    assert (name, source) == ("given-mein-Netz-2-", ModelSource(str(path), SHA256))
    name, source = model_at("https://example.org/x.onnx?y", sha256=SHA256, allow_private_addresses=True)
    assert (name, source.allow_private_addresses) == ("given-x", True)


def test_url_of_the_command_line_needs_a_hash() -> None:
    with pytest.raises(RequestError) as caught:
        model_at(f"https://example.org/{PASSWORD}", sha256=None, allow_private_addresses=False)
    assert (caught.value.path, PASSWORD in str(caught.value)) == ("model_sha256", False)
    with pytest.raises(ConfigError, match="not a valid SHA-256"):
        model_at("https://example.org/x", sha256="ab", allow_private_addresses=False)
