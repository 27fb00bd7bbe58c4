"""Receipts: JSON sidecars that make outputs idempotent, with the job's result and the version of its input.

A receipt is a small JSON object in the folder `receipts` next to the output, named after the request's hash. It is
valid only while the output's size, first and last bytes match its fingerprint; so a store needs only read and write
operations. It is written before the output, so that a published output always has a receipt. The output also has the
request's hash in a tag, which stays with the file; the tag is used if the receipt is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final

from reel_modal._support.scratch import scratch_dir
from reel_modal.errors import InvalidMediaError, ObjectNotFoundError, RequestError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.media import probe
from reel_modal.media.open import opened
from reel_modal.schema import Degradation, RenderResult
from reel_modal.schema._fields import Record, declared, record
from reel_modal.schema._kinds import json_object, string
from reel_modal.schema.keys import receipt_key
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result
from reel_modal.storage import Storage

__all__ = ["Receipt", "StoredReceipt", "as_requested", "find_published_result"]

_log = logging.getLogger(__name__)

_FORMAT: Final = "1"
_END_BYTES: Final = 1 << 16
_TAG: Final = "reel_modal_request"
_NOT_KNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """Content of a valid receipt.

    Attributes:
        result: Result of the job that made the output.
        source_version: Version of the input when the job ran, as `ObjectInfo.version`.
    """

    result: Result
    source_version: str


@record
class _ReceiptFields(Record):
    """JSON fields of a receipt.

    Attributes:
        format: Version of this format.
        fingerprint: Fingerprint of the output.
        source_version: Version of the input.
        result: Result of the job.
    """

    _noun = "receipt"

    format: str = declared(converter=string())
    fingerprint: str = declared(converter=string())
    source_version: str = declared(converter=string())
    result: Mapping[str, object] = declared(converter=json_object())


class Receipt:
    """The receipt of one request's output.

    Args:
        storage: Store of the output and the receipt.
        output_key: Storage key of the output.
        request_hash: Hash of the request.
        function: The function, which reads the result.
    """

    def __init__(self, storage: Storage, output_key: str, request_hash: str, function: AnyFunction) -> None:
        self._storage = storage
        self._output_key = output_key
        self._request_hash = request_hash
        self._function = function
        self.key: str = receipt_key(output_key, request_hash)

    def write(self, result: Result, output: Path, source_version: str) -> None:
        """Write the receipt for the finished file `output`, before the file is published.

        Raises:
            StorageError: The receipt could not be written.
        """
        with output.open("rb") as file:
            fingerprint = _fingerprint(file)
        receipt = _ReceiptFields(
            format=_FORMAT, fingerprint=fingerprint, source_version=source_version, result=result.to_dict()
        )
        self._storage.write_bytes(self.key, json.dumps(receipt.to_dict()).encode())

    def find(self) -> StoredReceipt | None:
        """Return the stored receipt; None if it is missing or not valid, or if the output is missing or has changed.

        Raises:
            StorageError: The store could not be read.
        """
        try:
            raw = self._storage.read_bytes(self.key)
            receipt = _ReceiptFields.parse(raw.decode("utf-8", "replace"))
            if receipt.format != _FORMAT or self._output_fingerprint() != receipt.fingerprint:
                return None
            result = self._function.parse_result(receipt.result)
        except ObjectNotFoundError:
            return None
        except RequestError as error:
            _log.warning("%s is not a valid receipt, so it is ignored: %s", self.key, error)
            return None
        return StoredReceipt(result, receipt.source_version)

    def tags(self, source_version: str) -> dict[str, str]:
        """Return the tags to write to the output: the hashes of the request and of the input's version.

        The version is hashed because a published video may be public.
        """
        return {_TAG: f"{self._request_hash} {hashlib.sha256(source_version.encode()).hexdigest()}"}

    def result_from_tags(self, source_version: str) -> RenderResult | None:
        """Return a result from the tags of the output, if its receipt is missing.

        None if the receipt exists, if the output is missing or unreadable, or if the output was made from another
        request or another version of the input.

        Raises:
            StorageError: The store could not be read.
        """
        if self._exists(self.key):
            return None
        try:
            with scratch_dir() as folder:
                output = self._storage.open(self._output_key, folder)
                with output.file() as data, opened(output.path, data, packets_only=True) as container:
                    tags = {key.lower(): value for key, value in container.metadata.items()}
                if tags.get(_TAG) != self.tags(source_version)[_TAG]:
                    return None
                with output.file() as data:
                    media = probe(output.path, data=data)
        except (ObjectNotFoundError, InvalidMediaError):
            return None
        return RenderResult(
            job_id=_NOT_KNOWN,
            function=self._function.name,
            output_key=self._output_key,
            frames=media.frame_count_header or media.expected_frames or 0,
            size=media.size,
            fps=media.fps,
            duration_seconds=media.duration_seconds or Fraction(0),
            bytes=output.info.bytes,
            engine=_NOT_KNOWN,
            encoder=_NOT_KNOWN,
            seconds_by_phase={},
            degraded=(
                Degradation("record_lost", "the receipt of this output is missing, so its degradations are unknown"),
            ),
            reused_from=_NOT_KNOWN,
        )

    def output_exists(self) -> bool:
        """Return whether an object exists under the output's key.

        Raises:
            StorageError: The store could not be read.
        """
        return self._exists(self._output_key)

    def _exists(self, key: str) -> bool:
        try:
            self._storage.stat(key)
        except ObjectNotFoundError:
            return False
        return True

    def _output_fingerprint(self) -> str:
        with (
            scratch_dir() as folder,
            self._storage.open(self._output_key, folder).file() as file,
        ):
            return _fingerprint(file)


def find_published_result(function: AnyFunction, request: Request[Any], store_url: str) -> dict[str, object] | None:
    """Return the result of the job of `request`, as the job sends it, if its output is published; else None.

    Raises:
        ConfigError: The store cannot be used from this machine.
        StorageError: The store could not be read.
    """
    storage = Storage.from_url(store_url)
    stored = Receipt(storage, request.stored_keys()[1], request.request_hash(), function).find()
    if stored is None or stored.result.job_id != request.job_id:
        return None
    return as_requested(stored.result, request).to_dict()


def as_requested(result: Result, request: Request[Any]) -> Result:
    """Return `result` with the output key and the storage key of `request`."""
    return replace(result, output_key=request.output_key, stored_key=request.stored_keys()[1])


def _fingerprint(file: BinaryIO) -> str:
    """Return a hash of the file's size and of both its ends; one of them contains the index of all frames."""
    size = file.seek(0, os.SEEK_END)
    digest = hashlib.sha256(str(size).encode())
    for first in (0, max(0, size - _END_BYTES)):
        file.seek(first)
        digest.update(file.read(_END_BYTES))
    return digest.hexdigest()
