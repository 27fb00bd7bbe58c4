"""The services that a deploy uses: environments, apps, functions, images, mounts and secrets.

FunctionCreate stores a definition, and AppPublish activates it, so an interrupted deploy keeps the previous version.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .blobs import Blobs
from .faults import Faults
from .model import App, Definition, Function, new_id

BUILDER_VERSION = "2025.06"
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


def handle_metadata(function: Function, definition: Definition) -> api_pb2.FunctionHandleMetadata:
    """Return the metadata that a client needs to call one version of a function."""
    metadata = api_pb2.FunctionHandleMetadata(app_id=function.app.id, definition_id=definition.id)
    metadata.MergeFrom(definition.metadata)
    return metadata


@dataclass(slots=True)
class Deployments:
    """State of everything that is deployed, and the RPCs that read and write it."""

    blobs: Blobs
    faults: Faults
    environments: set[str] = field(default_factory=lambda: {"main"})
    apps: dict[str, App] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    definitions: dict[str, Definition] = field(default_factory=dict)
    drafts: dict[str, api_pb2.FunctionHandleMetadata] = field(default_factory=dict)
    variants: dict[tuple[str, bytes], Function] = field(default_factory=dict)
    images: dict[str, _Image] = field(default_factory=dict)
    mounts: dict[str, list[api_pb2.MountFile]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    named_secrets: dict[tuple[str, str], _Secret] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    # Dollars per hour, by Modal's names.
    billing_rates: dict[str, str] = field(default_factory=dict)
    # Called with a function whose definition changed or whose app stopped.
    on_change: Callable[[Function], None] = lambda _function: None
    on_stop: Callable[[Function], None] = lambda _function: None

    # Look-ups shared with the other services.

    def environment(self, name: str) -> str:
        """Return the name of an existing environment; empty means the default one."""
        name = name or "main"
        if name not in self.environments:
            raise GRPCError(Status.NOT_FOUND, f"Environment '{name}' not found")
        return name

    def deployed(self, name: str, environment: str) -> App | None:
        """Return the app that is deployed under a name, or None."""
        serving = (app for app in self.apps.values() if app.state == api_pb2.APP_STATE_DEPLOYED)
        return next((app for app in serving if (app.name, app.environment) == (name, environment)), None)

    def function(self, function_id: str) -> tuple[Function, Definition]:
        """Return a function that can be called, with its live version."""
        function = self.functions.get(function_id)
        if function is None or function.live is None or function.app.state == api_pb2.APP_STATE_STOPPED:
            raise GRPCError(Status.NOT_FOUND, f"No Function with ID '{function_id}' found")
        return function, function.live

    def image_commands(self, image_id: str) -> list[str]:
        """Return every Dockerfile line of an image, those of its base images first."""
        image = self.images[image_id].proto
        lines = [line for base in image.base_images for line in self.image_commands(base.image_id)]
        return [*lines, *image.dockerfile_commands]

    def image_environment(self, image_id: str) -> dict[str, str]:
        """Return the variables set by the image's ENV lines."""
        lines = [line.removeprefix("ENV ") for line in self.image_commands(image_id) if line.startswith("ENV ")]
        pairs = [part.partition("=") for line in lines for part in shlex.split(line)]
        return {name: value for name, _, value in pairs}

    def layout(self, app: App) -> api_pb2.AppLayout:
        """Return the published functions of an app with the data to hydrate them and their dependencies."""
        layout = api_pb2.AppLayout(function_ids=app.function_ids)
        depended: set[str] = set()
        for function_id in app.function_ids.values():
            function = self.functions[function_id]
            if (live := function.live) is not None:
                layout.objects.add(object_id=function_id, function_handle_metadata=handle_metadata(function, live))
                depended |= {dependency.object_id for dependency in live.proto.object_dependencies}
        for object_id in sorted(depended - set(app.function_ids.values())):
            layout_object = layout.objects.add(object_id=object_id)
            if object_id in self.mounts:
                layout_object.mount_handle_metadata.content_checksum_sha256_hex = object_id
        return layout

    def stop(self, app: App) -> None:
        """Stop an app: its functions can no longer be called, and its inputs end."""
        app.state = api_pb2.APP_STATE_STOPPED
        for function in self.functions.values():
            if function.app is app:
                self.on_stop(function)

    def renew(self, app: App) -> App:
        """Stop an app and deploy the same definitions again, so that every id changes."""
        self.stop(app)
        renewed = App(app.name, app.environment, api_pb2.APP_STATE_DEPLOYED, tags=app.tags, deployments=1)
        self.apps[renewed.id] = renewed
        for name, function_id in app.function_ids.items():
            function = Function(renewed, name, live=self.functions[function_id].live)
            self.functions[function.id] = function
            renewed.function_ids[name] = function.id
        return renewed

    # RPCs: the workspace.

    async def client_hello(self, _request: Empty) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=BUILDER_VERSION)

    async def environment_get_or_create(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        if request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
            self.environments.add(request.deployment_name)
        name = self.environment(request.deployment_name)
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER_VERSION)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id=f"en-{name}", metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings)
        )

    async def environment_list(self, _request: Empty) -> api_pb2.EnvironmentListResponse:
        items = [
            api_pb2.EnvironmentListItem(
                name=name, environment_id=f"en-{name}", default=name == "main", image_builder_version=BUILDER_VERSION
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

    # RPCs: apps.

    async def app_get_by_deployment_name(
        self, request: api_pb2.AppGetByDeploymentNameRequest
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        environment = self.environment(request.environment_name)
        app = self.deployed(request.name, environment)
        if app is None:
            return api_pb2.AppGetByDeploymentNameResponse(environment_name=environment)
        return api_pb2.AppGetByDeploymentNameResponse(
            app_id=app.id, environment_name=environment, lifecycle=_described(app).lifecycle
        )

    async def app_get_or_create(self, request: api_pb2.AppGetOrCreateRequest) -> api_pb2.AppGetOrCreateResponse:
        environment = self.environment(request.environment_name)
        app = self.deployed(request.app_name, environment)
        if app is None and request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
            app = App(request.app_name, environment, api_pb2.APP_STATE_DEPLOYED)
            self.apps[app.id] = app
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{request.app_name}' not found in environment '{environment}'")
        return api_pb2.AppGetOrCreateResponse(app_id=app.id, handle_metadata=_described(app))

    async def app_get_info(self, request: api_pb2.AppGetInfoRequest) -> api_pb2.AppGetInfoResponse:
        return api_pb2.AppGetInfoResponse(info=_described(self._app(request.app_id)))

    async def app_create(self, request: api_pb2.AppCreateRequest) -> api_pb2.AppCreateResponse:
        app = App(
            request.description,
            self.environment(request.environment_name),
            request.app_state,
            tags=dict(request.tags),
        )
        self.apps[app.id] = app
        return api_pb2.AppCreateResponse(app_id=app.id, app_page_url=_page(app), app_logs_url=_page(app))

    async def app_get_layout(self, request: api_pb2.AppGetLayoutRequest) -> api_pb2.AppGetLayoutResponse:
        return api_pb2.AppGetLayoutResponse(app_layout=self.layout(self._app(request.app_id)))

    async def app_heartbeat(self, _request: api_pb2.AppHeartbeatRequest) -> Empty:
        return Empty()

    async def app_publish(self, request: api_pb2.AppPublishRequest) -> api_pb2.AppPublishResponse:
        app = self._app(request.app_id)
        app.state, app.deployment_tag = request.app_state, request.deployment_tag
        app.name = request.name or app.name
        app.tags = dict(request.tags)
        self._publish(app, dict(request.function_ids), dict(request.definition_ids))
        return api_pb2.AppPublishResponse(url=_page(app), deployed_at=time.time())

    def _publish(self, app: App, function_ids: dict[str, str], definition_ids: dict[str, str]) -> None:
        removed = set(app.function_ids.values()) - set(function_ids.values())
        app.function_ids = function_ids
        app.deployments += 1
        app.versions[app.deployments] = (function_ids, definition_ids)
        for function_id in function_ids.values():
            function = self.functions[function_id]
            function.live = self.definitions[definition_ids[function_id]]
            self.on_change(function)
        for function_id in removed:
            self.functions[function_id].live = None
            self.on_change(self.functions[function_id])

    async def app_rollback(self, request: api_pb2.AppRollbackRequest) -> api_pb2.AppRollbackResponse:
        app = self._app(request.app_id)
        version = request.version if request.version > 0 else app.deployments + request.version
        if version not in app.versions:
            raise GRPCError(Status.NOT_FOUND, f"App '{app.name}' has no version {version}")
        self._publish(app, *app.versions[version])
        return api_pb2.AppRollbackResponse(url=_page(app), deployed_at=time.time())

    async def app_client_disconnect(self, request: api_pb2.AppClientDisconnectRequest) -> Empty:
        app = self._app(request.app_id)
        if app.state in {api_pb2.APP_STATE_INITIALIZING, api_pb2.APP_STATE_EPHEMERAL}:
            self.stop(app)
        return Empty()

    async def app_stop(self, request: api_pb2.AppStopRequest) -> Empty:
        self.stop(self._app(request.app_id))
        return Empty()

    async def app_get_tags(self, request: api_pb2.AppGetTagsRequest) -> api_pb2.AppGetTagsResponse:
        return api_pb2.AppGetTagsResponse(tags=self._app(request.app_id).tags)

    async def app_set_tags(self, request: api_pb2.AppSetTagsRequest) -> Empty:
        self._app(request.app_id).tags = dict(request.tags)
        return Empty()

    async def app_list(self, request: api_pb2.AppListRequest) -> api_pb2.AppListResponse:
        environment = self.environment(request.environment_name)
        listed = [app for app in self.apps.values() if app.environment == environment]
        items = [
            api_pb2.AppListResponse.AppListItem(app_id=app.id, description=app.name, name=app.name, state=app.state)
            for app in listed
        ]
        return api_pb2.AppListResponse(apps=items)

    def _app(self, app_id: str) -> App:
        app = self.apps.get(app_id)
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"No App with ID '{app_id}' found")
        return app

    # RPCs: functions.

    async def function_precreate(
        self, request: api_pb2.FunctionPrecreateRequest
    ) -> api_pb2.FunctionPrecreateResponse:
        app = self._app(request.app_id)
        function = self.functions.get(request.existing_function_id) or Function(app, request.function_name)
        self.functions[function.id] = function
        metadata = self.drafts[function.id] = api_pb2.FunctionHandleMetadata(
            app_id=app.id,
            function_name=request.function_name,
            function_type=request.function_type,
            function_schema=request.function_schema,
            supported_input_formats=request.supported_input_formats,
            supported_output_formats=request.supported_output_formats,
        )
        return api_pb2.FunctionPrecreateResponse(function_id=function.id, handle_metadata=metadata)

    async def function_create(self, request: api_pb2.FunctionCreateRequest) -> api_pb2.FunctionCreateResponse:
        function = self.functions[request.existing_function_id]
        data = api_pb2.FunctionData()
        if request.HasField("function_data"):
            data.CopyFrom(request.function_data)
        else:
            data.ranked_functions.add(rank=0, function=request.function)
            shared = {field.name for field in api_pb2.FunctionData.DESCRIPTOR.fields} - {"ranked_functions"}
            for field, value in request.function.ListFields():
                if field.name in shared:
                    _copy(data, field.name, value)
        definition = Definition(self.drafts[function.id], data)
        self.definitions[definition.id] = definition
        return api_pb2.FunctionCreateResponse(
            function_id=function.id,
            function=definition.proto,
            function_data=data,
            handle_metadata=handle_metadata(function, definition),
        )

    async def function_get(self, request: api_pb2.FunctionGetRequest) -> api_pb2.FunctionGetResponse:
        environment = self.environment(request.environment_name)
        app = self.deployed(request.app_name, environment)
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{request.app_name}' not found in environment '{environment}'")
        function_id = app.function_ids.get(request.object_tag)
        if function_id is None:
            raise GRPCError(
                Status.NOT_FOUND, f"App '{request.app_name}' has no Function named '{request.object_tag}'"
            )
        function, live = self.function(function_id)
        return api_pb2.FunctionGetResponse(
            function_id=function_id, handle_metadata=handle_metadata(function, live), function=live.data
        )

    async def function_get_by_id(self, request: api_pb2.FunctionGetByIdRequest) -> api_pb2.FunctionGetByIdResponse:
        function, live = self.function(request.function_id)
        return api_pb2.FunctionGetByIdResponse(function=live.data, handle_metadata=handle_metadata(function, live))

    async def function_bind_params(
        self, request: api_pb2.FunctionBindParamsRequest
    ) -> api_pb2.FunctionBindParamsResponse:
        base, live = self.function(request.function_id)
        key = (live.id, request.SerializeToString(deterministic=True))
        bound = self.variants.get(key)
        if bound is None:
            bound = Function(
                base.app, base.name, live=Definition(live.metadata, _varied(live, request.function_options))
            )
            self.functions[bound.id] = self.variants[key] = bound
        return api_pb2.FunctionBindParamsResponse(bound_function_id=bound.id, handle_metadata=live.metadata)

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
        metadata = api_pb2.ImageMetadata(image_builder_version=BUILDER_VERSION, python_version_info="3.11")
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


def _described(app: App) -> api_pb2.AppHandleMetadata:
    lifecycle = api_pb2.AppLifecycle(app_state=app.state, version=app.deployments)
    return api_pb2.AppHandleMetadata(
        app_id=app.id,
        description=app.name,
        environment_name=app.environment,
        lifecycle=lifecycle,
        functions=app.function_ids,
    )


def _page(app: App) -> str:
    return f"https://modal.com/apps/loopback/{app.environment}/{app.id}"


def _varied(live: Definition, options: api_pb2.FunctionOptions) -> api_pb2.FunctionData:
    """Return a definition with the options of `with_options`; unset options keep their value."""
    data = api_pb2.FunctionData()
    data.CopyFrom(live.data)
    if options.resources.HasField("gpu_config"):
        del data.ranked_functions[1:]
    for ranked in data.ranked_functions:
        proto = ranked.function
        proto.resources.MergeFrom(options.resources)
        proto.timeout_secs = options.timeout_secs or proto.timeout_secs
        proto.max_concurrent_inputs = options.max_concurrent_inputs or proto.max_concurrent_inputs
        if options.HasField("retry_policy"):
            proto.retry_policy.CopyFrom(options.retry_policy)
        if options.concurrency_limit:
            proto.autoscaler_settings.max_containers = options.concurrency_limit
        if options.replace_secret_ids:
            proto.secret_ids[:] = options.secret_ids
    return data


def _copy(data: api_pb2.FunctionData, name: str, value: object) -> None:
    """Set a field of `data` from the same field of a Function."""
    source = api_pb2.Function()
    holder = getattr(source, name)
    if hasattr(holder, "CopyFrom"):
        getattr(data, name).CopyFrom(value)
    elif hasattr(holder, "MergeFrom"):
        getattr(data, name).MergeFrom(value)
    else:
        setattr(data, name, value)
