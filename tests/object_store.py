"""A real S3 server for the tests: SeaweedFS on the loopback interface, with a proxy that simulates network faults."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

BUCKET = "reels-test"
ACCESS_KEY = "AKIALOOPBACK"
SECRET_KEY = "planted-secret-5f1c7e0b"  # noqa: S105 - must never be shown in a log, error, event or result

_WAIT_SECONDS = 60.0


class ObjectStore:
    """One SeaweedFS process: master, volumes, filer and the S3 gateway.

    Args:
        folder: Directory of its data and log.
        options: Additional options of the server.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = self.filer_port = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(3):  # a free port may be taken before the server binds it
            self._start()
            try:
                if self._wait_until_ready():
                    return self
            except BaseException:  # interrupted during the wait
                self.__exit__()
                raise
            self.__exit__()
        raise AssertionError(f"the object store does not start: {self.log.read_text(errors='replace')[-2000:]}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()  # a regular exit takes half a minute, and the data are not needed
            self._process.wait()
        for path in self._sockets:
            path.unlink(missing_ok=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def url(self, prefix: str = "", *, port: int | None = None) -> str:
        """Return a storage URL of the bucket, through the proxy at `port` if given."""
        return f"s3://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{port or self.port}&region=us-east-1"

    def unfinished_uploads(self) -> list[str]:
        """Return the parts of unfinished multipart uploads."""
        return self.files_in(".uploads")

    def files_in(self, folder: str) -> list[str]:
        """List a folder of the bucket with the server's filer API."""
        listing = f"http://127.0.0.1:{self.filer_port}/buckets/{BUCKET}/{folder}/?limit=1000"
        answer = httpx.get(listing, headers={"Accept": "application/json"})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        entries = answer.raise_for_status().json()["Entries"] or []
        return [str(entry["FullPath"]) for entry in entries]

    def _start(self) -> None:
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        key = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [{"name": "tests", "credentials": [key], "actions": rights}]}))
        names = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.port, self.filer_port = ports["s3"], ports["filer"]
        self._sockets = [Path(f"/tmp/seaweedfs-{name}-{port}.sock") for name, port in self._named(ports)]  # noqa: S108
        numbered = [
            f"-{name.replace('.', '.port.') if '.' in name else name + '.port'}={ports[name]}" for name in names
        ]
        command = [
            *(Path(sys.executable).with_name("weed"), "-logtostderr=true", "server", f"-dir={self.folder}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", *numbered, "-filer", "-s3", f"-s3.config={config}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-iam=false", "-s3.iam=false"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=50", *self._options),
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    @staticmethod
    def _named(ports: dict[str, int]) -> list[tuple[str, int]]:
        return [
            *((f"{name.partition('.')[0]}-grpc", port) for name, port in ports.items() if name.endswith(".grpc")),
            *((name, port) for name, port in ports.items() if "." not in name),
        ]

    def _wait_until_ready(self) -> bool:
        """Wait until the server stores an object: its parts connect to each other a few seconds after they listen."""
        from obstore import put
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        assert self._process is not None
        store = S3Store(
            BUCKET,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        deadline = time.monotonic() + _WAIT_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(BaseError):
                put(store, "ready", b"ready", use_multipart=False)
                return True
            time.sleep(0.1)
        return False


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Network:
    """A proxy between a client and the server that simulates network faults.

    Attributes:
        bytes_per_second: Limit for each connection and direction; None disables it.
        cut_after_bytes: Response bytes after which a connection is lost; None disables it.
        cuts: Number of connections that may still be lost.
        silent: Whether all data are held back.
        silent_from: Text of a request from which on the network becomes silent; None disables it.
        flip_at: Byte of each connection's requests that is changed; None disables it.
    """

    bytes_per_second: float | None = None
    cut_after_bytes: int | None = None
    cuts: int = 0
    silent: bool = False
    silent_from: bytes | None = None
    flip_at: int | None = None
    port: int = 0
    passed: int = 0
    _open: list[socket.socket] = field(default_factory=list)

    @contextmanager
    def to(self, port: int) -> Iterator[Self]:
        """Forward connections to the server at `port`."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()
        try:
            yield self
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for one in self._open:
                _end(one)

    def _accept(self, listener: socket.socket, port: int) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                self._open += [client, server]
                for source, target, answers in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, target, answers), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        passed = seen = 0
        with suppress(OSError):
            while data := source.recv(16384):
                if not answers and self.silent_from is not None and self.silent_from in data.lower():
                    self.silent = True
                while self.silent:
                    time.sleep(0.05)
                if answers and self.cut_after_bytes is not None and self.cuts > 0:
                    passed += len(data)
                    if passed > self.cut_after_bytes:
                        self.cuts -= 1
                        break
                if not answers and self.flip_at is not None and seen <= self.flip_at < seen + len(data):
                    at = self.flip_at - seen
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                seen += len(data)
                target.sendall(data)
                self.passed += len(data)
                if self.bytes_per_second is not None:
                    time.sleep(len(data) / self.bytes_per_second)
        _end(source)
        _end(target)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
