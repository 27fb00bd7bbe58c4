"""Sources of model files: paths, downloads, checksums, and secrets that must not be shown."""

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

from reel_modal._upscaling import model_files
from reel_modal._upscaling.model import UpscaleModel, check_registered, model_at
from reel_modal.errors import ConfigError, InvalidModelError, RequestError
from reel_modal.settings import ModelSource

DATA = repeating(1).SerializeToString()
SHA256 = hashlib.sha256(DATA).hexdigest()
PASSWORD = "hunter2"  # noqa: S105 - must not be in any message


class Server:
    """An HTTP server on the loopback interface with one handler per path."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.requested: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requested.append((self.path, self.headers["Host"]))
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


def download_error(url: str, cache: Path, **options: object) -> str:
    with pytest.raises(InvalidModelError) as caught:
        load(url, cache, **options)  # type: ignore[arg-type]
    assert PASSWORD not in str(caught.value)
    assert not cache.exists()
    return str(caught.value)


def test_model_url_is_downloaded_once_and_checked(server: Server, tmp_path: Path) -> None:
    first = load(f"{server.url}/net.onnx?sig={PASSWORD}", tmp_path)
    server.answers.clear()
    cached = load(f"{server.url}/net.onnx", tmp_path)
    assert first.sha256 == cached.sha256 == SHA256
    assert first.manifest.name == "net"
    assert [path.name for path in tmp_path.iterdir()] == [f"{SHA256}.onnx"]
    assert server.requested == [(f"/net.onnx?sig={PASSWORD}", f"127.0.0.1:{server.port}")]


def test_model_damaged_cached_copy_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    cached = tmp_path / f"{SHA256}.onnx"
    cached.write_bytes(DATA[:-3])
    assert load(f"{server.url}/net.onnx", tmp_path).sha256 == SHA256
    assert cached.read_bytes() == DATA


def test_model_unwritable_cache_is_logged(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert load(f"{server.url}/net.onnx", tmp_path / "file" / "cache").sha256 == SHA256
    assert "could not be stored in" in caplog.text


def test_model_url_with_other_content_is_refused(server: Server, tmp_path: Path) -> None:
    message = download_error(f"{server.url}/net.onnx", tmp_path / "cache", sha256="ab" * 32)
    assert f"does not have the sha256 '{'ab' * 32}'" in message
    assert SHA256 not in message


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"],  # noqa: S104 - a target
)
def test_model_private_address_is_refused_before_connecting(server: Server, tmp_path: Path, host: str) -> None:
    message = download_error(
        f"http://{host}:{server.port}/net.onnx?sig={PASSWORD}", tmp_path / "cache", private=False
    )
    assert "resolves to an address that is private, loopback or link-local; set allow_private_addresses" in message
    assert server.requested == []


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a00:1::", "ff02::1"),
    ],
)
def test_model_name_resolving_to_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    # As from an attacker's name server: the first address is public, the second is not.
    resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443)) for each in ("93.184.216.34", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it connects"))
    assert "private, loopback or link-local" in download_error(
        "https://models.example.org/n", tmp_path / "c", private=False
    )


def test_model_download_connects_to_the_checked_address(
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
    assert server.requested == [("/net.onnx", f"models.example.org:{server.port}")]


def test_model_redirect_within_host_is_followed(server: Server, tmp_path: Path) -> None:
    server.serve("/a", b"", status=302, Location="/b")
    server.serve("/b", b"", status=308, Location=f"{server.url}/net.onnx")
    assert load(f"{server.url}/a", tmp_path).sha256 == SHA256


@pytest.mark.parametrize(
    "target", ["http://localhost:{port}/net.onnx", "https://127.0.0.1:{port}/net.onnx", "http://127.0.0.1:1/net.onnx"]
)
def test_model_redirect_to_another_host_is_refused(server: Server, tmp_path: Path, target: str) -> None:
    server.serve("/a", b"", status=302, Location=target.format(port=server.port) + f"?sig={PASSWORD}")
    assert "redirects to another host" in download_error(f"{server.url}/a", tmp_path / "cache")


@pytest.mark.parametrize(
    ("target", "words"),
    [("/a", "redirects more than 3 times"), ("file:///etc/passwd", "another host"), ("/\x7f", "not valid")],
)
def test_model_invalid_redirect_is_refused(server: Server, tmp_path: Path, target: str, words: str) -> None:
    server.serve("/a", b"", status=301, Location=target)
    assert words in download_error(f"{server.url}/a", tmp_path / "cache")
    assert len(server.requested) <= 4


def test_model_http_error_is_named_without_the_url(server: Server, tmp_path: Path) -> None:
    server.serve("/none", PASSWORD.encode(), status=403)
    message = download_error(f"{server.url}/none?sig={PASSWORD}", tmp_path / "cache")
    assert message == f"the model at http://127.0.0.1:{server.port}/… could not be downloaded: HTTP status 403"


def test_model_declared_size_above_limit_is_refused(server: Server, tmp_path: Path) -> None:
    server.serve("/large", b"", length=model_files.LARGEST_BYTES + 1)
    assert "at most 134217728 are accepted" in download_error(f"{server.url}/large", tmp_path / "cache")


def test_model_download_above_limit_is_stopped(
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
    assert "more than 1000 bytes" in download_error(f"{server.url}/endless", tmp_path / "cache")


def test_model_truncated_download_is_refused(server: Server, tmp_path: Path) -> None:
    server.serve("/short", DATA[:100], length=len(DATA))
    assert f"{len(DATA) - 100} bytes are missing" in download_error(f"{server.url}/short", tmp_path / "cache")


@pytest.mark.parametrize("in_headers", [True, False])
def test_model_slow_download_times_out(
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
        message = download_error(f"{server.url}/slow", tmp_path / "cache")
    finally:
        ended.set()
    assert time.monotonic() - started < 10
    assert "was not downloaded within 1 s" in message


def test_model_refused_connection_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/net.onnx?sig={PASSWORD}"
        assert "could not be downloaded: Connection refused" in download_error(url, tmp_path / "cache")


def test_model_response_that_is_not_http_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers["/raw"] = lambda handler: handler.wfile.write(f"{PASSWORD}\r\n\r\n".encode()) and None
    assert "could not be downloaded: BadStatusLine" in download_error(f"{server.url}/raw", tmp_path / "cache")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate of the server")
def test_model_https_checks_the_certificate(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert server.requested == [("/net.onnx", f"localhost:{server.port}")]
    assert "certificate" in download_error(url.replace("localhost", "127.0.0.1"), tmp_path / "cache")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"https://user:{PASSWORD}@example.invalid/net.onnx", "a user or a password"),
        (f"https://example.invalid/{PASSWORD}\n", "characters that are not valid in a URL"),
        ("https://", "not a valid URL"),
        ("HTTPS://:0/net.onnx", "not a valid URL"),
    ],
)
def test_model_invalid_url_is_refused(tmp_path: Path, url: str, words: str) -> None:
    assert words in download_error(url, tmp_path / "cache")


def test_model_url_without_valid_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="needs the sha256"):
        UpscaleModel.load(f"https://example.invalid/{PASSWORD}")
    assert "not a valid SHA-256" in download_error(
        "https://example.invalid/n", tmp_path / "c", sha256="../../etc/passwd"
    )


def path_error(path: Path, **options: object) -> str:
    with pytest.raises(InvalidModelError) as caught:
        UpscaleModel.load(path, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_model_path_with_other_hash_hides_the_actual_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(DATA)
    message = path_error(path, sha256="0" * 64)
    assert f"does not have the sha256 '{'0' * 64}'" in message
    assert SHA256 not in message


def test_model_other_file_does_not_show_its_content(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text(f"root:{PASSWORD}:0:0\n")
    assert PASSWORD not in path_error(path)


def test_model_missing_path_lists_bundled_networks() -> None:
    assert "or one of small-x2, small-x4, large-x2, large-x4" in path_error(Path("enormous-x16"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_model_special_files_are_refused_immediately(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    link = tmp_path / "link"
    link.symlink_to(fifo)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    with listening:
        started = time.monotonic()
        for path in (fifo, link, tmp_path, tmp_path / "socket", Path("/dev/zero")):
            assert "not a regular file" in path_error(path)
        assert time.monotonic() - started < 1


def test_model_file_above_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse file, which uses no disk space
    started = time.monotonic()
    assert "has 1099511627776 bytes; at most 134217728 are accepted" in path_error(path)
    assert time.monotonic() - started < 1


def test_model_path_with_null_character_is_refused() -> None:
    assert "is not found" in path_error(Path("a\0b"))


@pytest.mark.parametrize(
    "name", ["huge", "Face", "face.onnx", "/etc/passwd", "https://example.org/n.onnx", "../face", "", "small-x3"]
)
def test_registered_unknown_name_lists_known_ones(name: str) -> None:
    with pytest.raises(RequestError, match=r"known are small, large, .*, face") as caught:
        check_registered(name, None, {"face": ModelSource("/face.onnx", SHA256)})
    assert caught.value.path == "model"


def test_registered_hash_must_match_the_request() -> None:
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


def test_model_at_path_has_a_name_and_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "mein Netz (2).onnx"
    path.write_bytes(DATA)
    name, source = model_at(str(path), sha256=None, allow_private_addresses=False)
    assert (name, source) == ("given-mein-Netz-2-", ModelSource(str(path), SHA256))
    name, source = model_at("https://example.org/x.onnx?y", sha256=SHA256, allow_private_addresses=True)
    assert (name, source.allow_private_addresses) == ("given-x", True)


def test_model_at_url_needs_a_hash() -> None:
    with pytest.raises(RequestError) as caught:
        model_at(f"https://example.org/{PASSWORD}", sha256=None, allow_private_addresses=False)
    assert (caught.value.path, PASSWORD in str(caught.value)) == ("model_sha256", False)
    with pytest.raises(ConfigError, match="not a valid SHA-256"):
        model_at("https://example.org/x", sha256="ab", allow_private_addresses=False)
