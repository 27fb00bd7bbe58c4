"""Values that are too large for a message, over HTTP, as Modal keeps them in object storage."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from aiohttp import web
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .model import new_id


@dataclass(slots=True)
class Blobs:
    """The stored blobs, their HTTP server, and the RPCs that return its URLs."""

    contents: dict[str, bytes] = field(default_factory=dict)
    _url: str = ""
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([web.put("/{blob_id}", self._put), web.get("/{blob_id}", self._get)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self._url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def blob_create(self, _request: api_pb2.BlobCreateRequest) -> api_pb2.BlobCreateResponse:
        blob_id = new_id("bl")
        urls = api_pb2.UploadUrlList(items=[f"{self._url}/{blob_id}"])
        return api_pb2.BlobCreateResponse(blob_id=blob_id, blob_ids=[blob_id], upload_urls=urls)

    async def blob_get(self, request: api_pb2.BlobGetRequest) -> api_pb2.BlobGetResponse:
        if request.blob_id not in self.contents:
            raise GRPCError(Status.NOT_FOUND, f"no blob {request.blob_id}")
        return api_pb2.BlobGetResponse(download_url=f"{self._url}/{request.blob_id}")

    async def _put(self, request: web.Request) -> web.Response:
        content = await request.read()
        digest = hashlib.md5(content, usedforsecurity=False)
        expected = request.headers.get("Content-MD5")
        if expected is not None and base64.b64decode(expected) != digest.digest():
            return web.Response(status=400, text="The Content-MD5 you specified did not match what we received.")
        self.contents[request.match_info["blob_id"]] = content
        return web.Response(headers={"ETag": f'"{digest.hexdigest()}"'})

    async def _get(self, request: web.Request) -> web.Response:
        content = self.contents.get(request.match_info["blob_id"])
        return web.Response(status=404) if content is None else web.Response(body=content)
