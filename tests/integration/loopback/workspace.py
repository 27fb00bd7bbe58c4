"""The services that all apps share: environments, images, mounts, secrets and prices."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .blobs import Blobs
from .faults import Faults
from .model import new_id

_SUCCESS = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)


@dataclass(slots=True)
class _Secret:
    id: str
    values: dict[str, str]


@dataclass(slots=True)
class _Image:
    proto: api_pb2.Image
    built: bool = False
    failure: tuple[str, tuple[str, ...]] | None = None


@dataclass(slots=True)
class Workspace:
    """State of everything that apps use by id or by name, and the RPCs that read and write it."""

    blobs: Blobs
    faults: Faults
    # The version of the image builder that the settings of the workspace name.
    builder_version: str = "2025.06"
    environments: set[str] = field(default_factory=lambda: {"main"})
    images: dict[str, _Image] = field(default_factory=dict)
    mounts: dict[str, list[api_pb2.MountFile]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    named_secrets: dict[tuple[str, str], _Secret] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    # Dollars per hour, by Modal's names.
    billing_rates: dict[str, str] = field(default_factory=dict)
    # The bill, by object and hour or day, as a test scripts it.
    bill: list[api_pb2.WorkspaceBillingReportItem] = field(default_factory=list)

    # Look-ups shared with the other services.

    def environment(self, name: str) -> str:
        """Return the name of an existing environment; empty means the default one."""
        name = name or "main"
        if name not in self.environments:
            raise GRPCError(Status.NOT_FOUND, f"Environment '{name}' not found")
        return name

    def image_commands(self, image_id: str) -> list[str]:
        """Return every Dockerfile line of an image, those of its base images first."""
        image = self.images[image_id].proto
        lines = [line for base in image.base_images for line in self.image_commands(base.image_id)]
        return [*lines, *image.dockerfile_commands]

    def image_files(self, image_id: str) -> dict[str, bytes]:
        """Return the files that the image's COPY lines name, those of its base images included."""
        image = self.images[image_id].proto
        files = {file.filename: file.data for file in image.context_files}
        for base in image.base_images:
            files |= self.image_files(base.image_id)
        return files

    def image_environment(self, image_id: str) -> dict[str, str]:
        """Return the variables set by the image's ENV lines."""
        lines = [line.removeprefix("ENV ") for line in self.image_commands(image_id) if line.startswith("ENV ")]
        pairs = [part.partition("=") for line in lines for part in shlex.split(line)]
        return {name: value for name, _, value in pairs}

    # RPCs: the workspace.

    async def client_hello(self, _request: Empty) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=self.builder_version)

    async def environment_get_or_create(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        if request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
            self.environments.add(request.deployment_name)
        name = self.environment(request.deployment_name)
        settings = api_pb2.EnvironmentSettings(image_builder_version=self.builder_version)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id=f"en-{name}", metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings)
        )

    async def environment_list(self, _request: Empty) -> api_pb2.EnvironmentListResponse:
        items = [
            api_pb2.EnvironmentListItem(
                name=name,
                environment_id=f"en-{name}",
                default=name == "main",
                image_builder_version=self.builder_version,
            )
            for name in sorted(self.environments)
        ]
        return api_pb2.EnvironmentListResponse(items=items)

    async def workspace_name_lookup(self, _request: Empty) -> api_pb2.WorkspaceNameLookupResponse:
        return api_pb2.WorkspaceNameLookupResponse(username="loopback")

    async def workspace_billing_rates(
        self, _request: api_pb2.WorkspaceBillingRatesRequest
    ) -> api_pb2.WorkspaceBillingRatesResponse:
        return api_pb2.WorkspaceBillingRatesResponse(rates=self.billing_rates)

    async def workspace_billing_report(
        self, request: api_pb2.WorkspaceBillingReportRequest
    ) -> AsyncIterator[api_pb2.WorkspaceBillingReportItem]:
        start, end = request.start_timestamp.ToSeconds(), request.end_timestamp.ToSeconds()
        for item in self.bill:
            if start <= item.interval.ToSeconds() < end:
                sent = api_pb2.WorkspaceBillingReportItem()
                sent.CopyFrom(item)
                if list(request.tag_names) != ["*"]:
                    sent.tags.clear()
                yield sent

    # RPCs: images.

    async def image_get_or_create(self, request: api_pb2.ImageGetOrCreateRequest) -> api_pb2.ImageGetOrCreateResponse:
        digest = hashlib.sha256(request.image.SerializeToString(deterministic=True)).hexdigest()
        image_id = f"im-{digest[:22]}"
        image = self.images.setdefault(image_id, _Image(request.image))
        metadata = api_pb2.ImageMetadata(image_builder_version=request.builder_version, python_version_info="3.11")
        image.failure = self.faults.build_failure
        if image.built and image.failure is None and not request.force_build:
            return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=_SUCCESS, metadata=metadata)
        return api_pb2.ImageGetOrCreateResponse(image_id=image_id)

    async def image_join_streaming(
        self, request: api_pb2.ImageJoinStreamingRequest
    ) -> AsyncIterator[api_pb2.ImageJoinStreamingResponse]:
        image = self.images[request.image_id]
        failure = image.failure
        lines = failure[1] if failure else (f"built {request.image_id}\n",)
        logs = [api_pb2.TaskLogs(data=line, file_descriptor=api_pb2.FILE_DESCRIPTOR_STDOUT) for line in lines]
        yield api_pb2.ImageJoinStreamingResponse(task_logs=logs, entry_id="1-0")
        image.built = failure is None
        failed = api_pb2.GenericResult.GENERIC_STATUS_FAILURE
        result = _SUCCESS if failure is None else api_pb2.GenericResult(status=failed, exception=failure[0])
        metadata = api_pb2.ImageMetadata(image_builder_version=self.builder_version, python_version_info="3.11")
        yield api_pb2.ImageJoinStreamingResponse(result=result, entry_id="2-0", eof=True, metadata=metadata)

    # RPCs: mounts.

    async def mount_batched_check_existence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        missing = [digest for digest in request.sha256_hex_hashes if digest not in self.files]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def mount_put_file(self, request: api_pb2.MountPutFileRequest) -> api_pb2.MountPutFileResponse:
        by_blob = request.WhichOneof("data_oneof") == "data_blob_id"
        content = self.blobs.contents[request.data_blob_id] if by_blob else request.data
        self.files[request.sha256_hex] = content
        return api_pb2.MountPutFileResponse(exists=True)

    async def mount_get_or_create(self, request: api_pb2.MountGetOrCreateRequest) -> api_pb2.MountGetOrCreateResponse:
        # The same files result in the same mount, in whatever order they were sent.
        files = sorted(request.files, key=lambda file: file.filename)
        parts = [request.deployment_name, *(f"{file.filename} {file.sha256_hex} {file.mode}" for file in files)]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        mount_id = f"mo-{digest[:22]}"
        self.mounts[mount_id] = files
        metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex=digest)
        return api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=metadata)

    # RPCs: secrets.

    async def secret_get_or_create(
        self, request: api_pb2.SecretGetOrCreateRequest
    ) -> api_pb2.SecretGetOrCreateResponse:
        environment = self.environment(request.environment_name)
        name = request.deployment_name
        secret = self.named_secrets.get((environment, name))
        if request.object_creation_type != api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            secret = self.put_secret(name, dict(request.env_dict), environment)
        if secret is None:
            raise GRPCError(Status.NOT_FOUND, f"Secret '{name}' not found in environment '{environment}'")
        if missing := sorted(set(request.required_keys) - set(secret.values)):
            raise GRPCError(Status.FAILED_PRECONDITION, f"Secret is missing key(s): {', '.join(missing)}")
        metadata = api_pb2.SecretMetadata(name=name, environment_name=environment, keys=sorted(secret.values))
        return api_pb2.SecretGetOrCreateResponse(secret_id=secret.id, metadata=metadata)

    async def secret_list(self, request: api_pb2.SecretListRequest) -> api_pb2.SecretListResponse:
        environment = self.environment(request.environment_name)
        items = [
            api_pb2.SecretListItem(
                label=name,
                secret_id=secret.id,
                environment_name=environment,
                metadata=api_pb2.SecretMetadata(name=name),
            )
            for (where, name), secret in self.named_secrets.items()
            if where == environment
        ]
        return api_pb2.SecretListResponse(items=items, environment_name=environment)

    def put_secret(self, name: str, values: dict[str, str], environment: str) -> _Secret:
        """Store a secret. Without a name it belongs to the requesting app; a changed named one keeps its id."""
        existing = self.named_secrets.get((environment, name)) if name else None
        secret = _Secret(new_id("st") if existing is None else existing.id, values)
        self.secrets[secret.id] = values
        if name:
            self.named_secrets[environment, name] = secret
        return secret
