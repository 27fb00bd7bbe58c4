"""The services that deploy and look up: apps and functions.

FunctionCreate stores a definition, and AppPublish activates it, so an interrupted deploy keeps the previous version.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .model import App, Definition, Function
from .workspace import Workspace


def handle_metadata(function: Function, definition: Definition) -> api_pb2.FunctionHandleMetadata:
    """Return the metadata that a client needs to call one version of a function."""
    metadata = api_pb2.FunctionHandleMetadata(
        app_id=function.app.id, definition_id=definition.id, base_function_id=function.base_id
    )
    metadata.MergeFrom(definition.metadata)
    return metadata


@dataclass(slots=True)
class Deployments:
    """State of everything that is deployed, and the RPCs that read and write it."""

    workspace: Workspace
    apps: dict[str, App] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    definitions: dict[str, Definition] = field(default_factory=dict)
    drafts: dict[str, api_pb2.FunctionHandleMetadata] = field(default_factory=dict)
    variants: dict[tuple[str, bytes], Function] = field(default_factory=dict)
    pinned: dict[tuple[str, int], dict[str, Function]] = field(default_factory=dict)
    # Called with a function whose definition changed or whose app stopped.
    on_change: Callable[[Function], None] = lambda _function: None
    on_stop: Callable[[Function], None] = lambda _function: None
    # Set by the containers: the function that sent the current request; None for a client.
    calling_function: Callable[[], Function | None] = lambda: None

    # Look-ups shared with the other services.

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

    def functions_of(self, app: App, version: int = 0) -> dict[str, Function]:
        """Return the published functions of an app by name; with a version, those pinned to it.

        Raises:
            GRPCError: The app has no such version; NOT_FOUND.
        """
        if not version:
            return {name: self.functions[function_id] for name, function_id in app.function_ids.items()}
        if version not in app.versions:
            raise GRPCError(Status.NOT_FOUND, f"App '{app.name}' has no version {version}")
        if (app.id, version) not in self.pinned:
            function_ids, definition_ids = app.versions[version]
            self.pinned[app.id, version] = {
                name: Function(
                    app,
                    name,
                    live=self.definitions[definition_ids[function_id]],
                    pinned_version=version,
                    base_id=function_id,
                )
                for name, function_id in function_ids.items()
            }
            self.functions |= {function.id: function for function in self.pinned[app.id, version].values()}
        return self.pinned[app.id, version]

    def layout(self, app: App, version: int = 0) -> api_pb2.AppLayout:
        """Return the functions of an app, or of one version, with the data to hydrate them and their dependencies."""
        functions = self.functions_of(app, version)
        layout = api_pb2.AppLayout(function_ids={name: function.id for name, function in functions.items()})
        depended: set[str] = set()
        for function in functions.values():
            if (live := function.live) is not None:
                layout.objects.add(object_id=function.id, function_handle_metadata=handle_metadata(function, live))
                depended |= {dependency.object_id for dependency in live.proto.object_dependencies}
        for object_id in sorted(depended - set(layout.function_ids.values())):
            layout_object = layout.objects.add(object_id=object_id)
            if object_id in self.workspace.mounts:
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
        live = {function.id: function.live.id for function in self.functions_of(renewed).values() if function.live}
        renewed.versions[1] = (renewed.function_ids, live)
        return renewed

    # RPCs: apps.

    async def app_get_by_deployment_name(
        self, request: api_pb2.AppGetByDeploymentNameRequest
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        environment = self.workspace.environment(request.environment_name)
        app = self.deployed(request.name, environment)
        if app is None:
            return api_pb2.AppGetByDeploymentNameResponse(environment_name=environment)
        return api_pb2.AppGetByDeploymentNameResponse(
            app_id=app.id, environment_name=environment, lifecycle=_described(app).lifecycle
        )

    async def app_get_or_create(self, request: api_pb2.AppGetOrCreateRequest) -> api_pb2.AppGetOrCreateResponse:
        environment = self.workspace.environment(request.environment_name)
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
            self.workspace.environment(request.environment_name),
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
            function.scaling.Clear()
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
        environment = self.workspace.environment(request.environment_name)
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
        environment = self.workspace.environment(request.environment_name)
        app = self.deployed(request.app_name, environment)
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{request.app_name}' not found in environment '{environment}'")
        functions = self.functions_of(app, request.app_version or self._version_of_caller(app))
        if request.object_tag not in functions:
            raise GRPCError(
                Status.NOT_FOUND, f"App '{request.app_name}' has no Function named '{request.object_tag}'"
            )
        function, live = self.function(functions[request.object_tag].id)
        return api_pb2.FunctionGetResponse(
            function_id=function.id, handle_metadata=handle_metadata(function, live), function=live.data
        )

    def _version_of_caller(self, app: App) -> int:
        """Return the version to which Modal pins the look-ups of a pinned function within its own app; 0 is none."""
        caller = self.calling_function()
        return caller.pinned_version if caller is not None and caller.app is app else 0

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
                base.app,
                base.name,
                live=Definition(live.metadata, _varied(live, request.function_options)),
                pinned_version=base.pinned_version,
                base_id=base.base_id or base.id,
            )
            self.functions[bound.id] = self.variants[key] = bound
        return api_pb2.FunctionBindParamsResponse(bound_function_id=bound.id, handle_metadata=live.metadata)


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
