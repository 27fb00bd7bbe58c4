"""What is known of an output, kept beside it: which request made it, from which input, and its whole result.

A record is a small JSON object in the folder `receipts` next to the output, named after the request's hash.
It counts only as long as the output's first and last bytes are those that it was written for. So it needs nothing of
a store but reading and writing, and carries the receipt as well. It is written before the output: whatever happens
after the output is there, the record is too. The output itself has the request's hash in a tag, which goes wherever
the file goes: it is asked where there is no record any more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final

from reel_modal.errors import InvalidMediaError, ObjectNotFoundError, RequestError
from reel_modal.media import probe
from reel_modal.media.untrusted import opened
from reel_modal.schema import Degradation, RenderResult
from reel_modal.schema._fields import Record, declared, record
from reel_modal.schema._kinds import nested, string
from reel_modal.schema.keys import receipt_key
from reel_modal.schema.requests import Request
from reel_modal.scratch import scratch_folder
from reel_modal.storage import Storage

__all__ = ["OutputRecord", "Rendered", "as_requested", "result_of_job"]

_log = logging.getLogger(__name__)

_FORMAT: Final = "1"
_END_BYTES: Final = 1 << 16
_TAG: Final = "reel_modal_request"
_NOT_KNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a record says.

    Attributes:
        result: Of the job that made the output.
        source_version: Of the input then, as `ObjectInfo.version`.
    """

    result: RenderResult
    source_version: str


@record
class _Receipt(Record):
    """The JSON of a record.

    Attributes:
        format: Of this object.
        fingerprint: Of the output.
        source_version: Of the input.
        result: Of the job.
    """

    _noun = "receipt"

    format: str = declared(converter=string())
    fingerprint: str = declared(converter=string())
    source_version: str = declared(converter=string())
    result: RenderResult = declared(converter=nested(RenderResult))


class OutputRecord:
    """The record of one request's output.

    Args:
        storage: Where both are.
        output_key: Of the output, as the store knows it.
        request_hash: Of the request.
    """

    def __init__(self, storage: Storage, output_key: str, request_hash: str) -> None:
        self._storage = storage
        self._output_key = output_key
        self._request_hash = request_hash
        self.key: str = receipt_key(output_key, request_hash)

    def write(self, result: RenderResult, made: Path, source_version: str) -> None:
        """Write it for the finished file `made`, which is about to be published.

        Raises:
            StorageError: It could not be put in place.
        """
        with made.open("rb") as file:
            fingerprint = _fingerprint(file)
        receipt = _Receipt(format=_FORMAT, fingerprint=fingerprint, source_version=source_version, result=result)
        self._storage.write_bytes(self.key, json.dumps(receipt.to_dict()).encode())

    def find(self) -> Rendered | None:
        """Return what it says; None where there is none, or the output is not there or is another by now.

        Raises:
            StorageError: The store could not be asked.
        """
        try:
            raw = self._storage.read_bytes(self.key)
            receipt = _Receipt.parse(raw.decode("utf-8", "replace"))
            if receipt.format != _FORMAT or self._output_fingerprint() != receipt.fingerprint:
                return None
        except ObjectNotFoundError:
            return None
        except RequestError as error:
            _log.warning("%s is no record of an output, so it is passed over: %s", self.key, error)
            return None
        return Rendered(receipt.result, receipt.source_version)

    def tags(self, source_version: str) -> dict[str, str]:
        """Return the tags that the output is to have: the hashes of the request and of the input's version.

        A hash of the version, since a published video may be anybody's to read.
        """
        return {_TAG: f"{self._request_hash} {hashlib.sha256(source_version.encode()).hexdigest()}"}

    def told_by_output(self, function: str, source_version: str) -> RenderResult | None:
        """Return what the output says of itself, where its record is gone.

        None where there is a record, or the output is not there, or it is not this request's and made from this
        version of the input.

        Raises:
            StorageError: The store could not be asked.
        """
        if self._is_there(self.key):
            return None
        try:
            with scratch_folder() as folder:
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
            function=function,
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
                Degradation("record_lost", "the record of this output is gone, and with it what was not as asked"),
            ),
            reused_from=_NOT_KNOWN,
        )

    def output_is_there(self) -> bool:
        """Return whether there is any object under the output's key.

        Raises:
            StorageError: The store could not be asked.
        """
        return self._is_there(self._output_key)

    def _is_there(self, key: str) -> bool:
        try:
            self._storage.stat(key)
        except ObjectNotFoundError:
            return False
        return True

    def _output_fingerprint(self) -> str:
        with (
            scratch_folder() as folder,
            self._storage.open(self._output_key, folder).file() as file,
        ):
            return _fingerprint(file)


def result_of_job(request: Request, store_url: str) -> dict[str, object] | None:
    """Return what the job of `request` has sent or would have sent, where its output is there; else None.

    Raises:
        ConfigError: The store cannot be used from here.
        StorageError: It could not be asked.
    """
    found = OutputRecord(Storage.from_url(store_url), request.places()[1], request.request_hash()).find()
    if found is None or found.result.job_id != request.job_id:
        return None
    return as_requested(found.result, request).to_dict()


def as_requested(result: RenderResult, request: Request) -> RenderResult:
    """Return `result` with the output's key as the request has it, and as the store knows it."""
    return replace(result, output_key=request.output_key, stored_key=request.places()[1])


def _fingerprint(file: BinaryIO) -> str:
    """Return a hash of the file's size and both its ends: the table of all frames lies at one of them."""
    size = file.seek(0, os.SEEK_END)
    said = hashlib.sha256(str(size).encode())
    for first in (0, max(0, size - _END_BYTES)):
        file.seek(first)
        said.update(file.read(_END_BYTES))
    return said.hexdigest()
