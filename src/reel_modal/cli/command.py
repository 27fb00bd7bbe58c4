"""The command line interface: `reel-modal` and `python -m reel_modal`.

Data is written to stdout, progress and messages to stderr. Exit status: 0 done, 1 failed, 2 usage, 3 not configured,
130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from reel_modal import __version__
from reel_modal._support.interruption import Interruption
from reel_modal._support.tables import text_table
from reel_modal.cli.bill import add_arguments as add_bill_arguments
from reel_modal.cli.estimate import add_arguments as add_estimate_arguments
from reel_modal.cli.estimate import run as run_estimate
from reel_modal.cli.requests import command_of, file_help, files_of, request_from
from reel_modal.cli.segments import add_arguments as add_segments_arguments
from reel_modal.cli.segments import run as run_segments
from reel_modal.deploy.options import add_arguments as add_deploy_arguments
from reel_modal.errors import (
    ConfigError,
    FFmpegNotFoundError,
    MissingDependencyError,
    ProviderUnavailableError,
    ReelModalError,
    RequestError,
)
from reel_modal.functions.catalog import AnyFunction, all_functions
from reel_modal.schema import RenderResult
from reel_modal.schema.requests import VideoRequest

if TYPE_CHECKING:
    from reel_modal.functions.declaration import Command
    from reel_modal.schema.results import Result

__all__ = ["main"]

_FAILED, _USAGE, _NOT_CONFIGURED = 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        parser = _parser()
    except ConfigError as error:  # the functions of an installed package cannot be loaded
        _say(f"error: {error}")
        return _NOT_CONFIGURED
    arguments, options = parser.parse_known_args(argv)
    if arguments.command is run_estimate:
        arguments.command = partial(run_estimate, options=options)
    elif options:
        parser.error(f"unrecognized arguments: {' '.join(options)}")
    with Interruption() as interruption:
        return _run(arguments, interruption)


def _run(arguments: argparse.Namespace, interruption: Interruption) -> int:
    try:
        status = int(arguments.command(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of stdout has closed it, as `head` does.
        _discard_output(sys.stdout)
        return _FAILED
    except KeyboardInterrupt:
        try:
            _say("interrupted; no partial files were left")
        except OSError:  # the terminal is closed, which sends SIGHUP
            _discard_output(sys.stdout, sys.stderr)
        return interruption.exit_status
    except ReelModalError as error:
        _say(f"error: {_as_typed(error, arguments)}")
        return _status_of(error)
    except OSError:
        if interruption.received is None:
            raise
        _discard_output(sys.stdout, sys.stderr)  # the bar could not be drawn because the terminal was closed
        return interruption.exit_status
    return status


def _discard_output(*streams: TextIO) -> None:
    """Discard what is still buffered: otherwise, Python reports an error at exit, and changes the exit status."""
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _as_typed(error: ReelModalError, arguments: argparse.Namespace) -> ReelModalError:
    """Return `error` with the typed path OUT in place of its key, if the error is about the output key."""
    output = getattr(arguments, "output", None)
    if not isinstance(error, RequestError) or error.path != "output_key" or not isinstance(output, Path):
        return error
    from reel_modal.cli.render import keys_of

    return RequestError(error.path, error.problem.replace(repr(keys_of(output)["output_key"]), repr(str(output))))


def _status_of(error: ReelModalError) -> int:
    if isinstance(error, RequestError):
        return _USAGE
    not_set_up = (ConfigError, FFmpegNotFoundError, MissingDependencyError, ProviderUnavailableError)
    return _NOT_CONFIGURED if isinstance(error, not_set_up) else _FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reel-modal", description="Render video on Modal GPUs, or on this machine.")
    parser.add_argument("--version", action="version", version=f"reel-modal {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    functions = all_functions()
    for function in functions.values():
        _add_function(commands, function)

    probe_parser = commands.add_parser("probe", help="print the properties of a video")
    probe_parser.add_argument("input", type=Path, metavar="IN")
    probe_parser.add_argument("--scan", action="store_true", help="count the packets instead of trusting the header")
    probe_parser.add_argument("--json", action="store_true", help="print JSON")
    probe_parser.set_defaults(command=_probe)

    doctor = commands.add_parser("doctor", help="check which features work on this machine")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument(
        "--remote",
        action="store_true",
        help="examine containers of the deployment on Modal instead, and print JSON; costs a few cents",
    )
    doctor.set_defaults(command=_doctor)

    timings = commands.add_parser("timings", help="show recorded job timings, which later plans use")
    timings.add_argument("--file", type=Path, help="default REEL_MODAL_TIMINGS, then the user's data directory")
    timings.add_argument("--json", action="store_true", help="print JSON")
    timings.set_defaults(command=_timings)

    _add_schema(commands)
    estimate = commands.add_parser("estimate", help="estimate the time and cost of a job; exit 1 if above a limit")
    add_estimate_arguments(estimate, functions)
    estimate.set_defaults(command=run_estimate)

    rates = commands.add_parser("rates", help="print the prices per second that estimates use")
    rates.add_argument(
        "--refresh", action="store_true", help="query the workspace's prices on Modal; print REEL_MODAL_RATES"
    )
    rates.add_argument("--json", action="store_true", help="print JSON")
    rates.set_defaults(command=_rates)

    status = commands.add_parser("status", help="show backlog, containers and cost of the functions on Modal")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)

    bill = commands.add_parser("bill", help="compare Modal's bill with the receipts in the store")
    add_bill_arguments(bill)
    bill.set_defaults(command=_bill)

    segments = commands.add_parser("segments", help="list or remove the stored segments of long jobs")
    add_segments_arguments(segments)
    segments.set_defaults(command=run_segments)

    logs = commands.add_parser("logs", help="print the last lines of a job's log on Modal")
    logs.add_argument("job", metavar="JOB", help="the id of the job, `Job.id`")
    logs.add_argument("--lines", type=int, default=100, help="1 to 1000, default %(default)d")
    logs.add_argument("--json", action="store_true", help="print JSON")
    logs.set_defaults(command=_logs)

    deploy = commands.add_parser("deploy", help="deploy the functions to Modal, and verify the deployment")
    add_deploy_arguments(deploy)
    deploy.set_defaults(command=_deploy)

    demo = commands.add_parser("demo", help="create a highlight, a reel and a larger clip, with an image of each")
    demo.add_argument("--output", type=Path, default=Path("demo"), help="the folder to write to, default demo")
    demo.set_defaults(command=_demo)
    return parser


def _add_function(commands: argparse._SubParsersAction[argparse.ArgumentParser], function: AnyFunction) -> None:
    """Add the command that runs a function on local files, such as `make-thumbnail` for `make_thumbnail`."""
    command = command_of(function)
    parser = commands.add_parser(function.name.replace("_", "-"), help=command.help)
    if command.file_option:
        needed = bool(command.file_list)
        parser.add_argument(command.file_option, dest="spec", type=Path, required=needed, help=file_help(command))
    if command.add_arguments is not None:
        command.add_arguments(parser)
    _add_rendering(parser, command, is_video=issubclass(function.request, VideoRequest))
    parser.set_defaults(command=partial(_run_function, function))


def _add_schema(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    schema = commands.add_parser("schema", help="print requests and results as JSON Schema or types")
    form = schema.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON Schema, the default")
    form.add_argument("--typescript", action="store_true", help="as TypeScript types")
    schema.set_defaults(command=_schema)


def _add_rendering(parser: argparse.ArgumentParser, command: Command, *, is_video: bool) -> None:
    """Add the arguments shared by all functions, and those of functions that encode a video."""
    if command.inputs_in_file:
        what = "JSON: a request; the keys of its inputs are paths relative to the folder of this file"
        parser.add_argument("input", type=Path, metavar="SPEC", help=what)
    else:
        parser.add_argument("input", type=Path, metavar="IN", help="the clip")
    parser.add_argument("output", type=Path, metavar="OUT", help="the file to write; an existing one is replaced")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    if not is_video:
        return
    parser.add_argument("--encoder", help="auto, libx264, h264_nvenc or another encoder of ffmpeg")
    parser.add_argument("--quality", type=int, help="0 (best) to 51, default 23")
    parser.add_argument("--preset", help="x264 preset, ultrafast to veryslow, default fast")
    parser.add_argument("--threads", type=int, help="threads of the encoder, 1 to 64, default 4; part of the request")
    parser.add_argument("--rate", help="constant, source or frames per second; the default is in docs/frame-rates.md")
    parser.add_argument(
        "--deinterlace",
        choices=("frame", "field"),
        help="one output frame per interlaced frame, the default, or one per field",
    )
    parser.add_argument(
        "--hdr", choices=("sdr", "keep"), help="convert an HDR clip to SDR, the default, or keep it in 10 bits"
    )
    parser.add_argument(
        "--metadata", choices=("keep", "strip"), help="keep all tags of the clip; default: strip location and device"
    )
    parser.add_argument(
        "--smart",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="copy unchanged parts bit for bit if possible; the default",
    )


def _run_function(function: AnyFunction, arguments: argparse.Namespace) -> int:
    from reel_modal.cli.render import check_output, run_in_process
    from reel_modal.settings import Settings

    check_output([arguments.input], arguments.output)
    request, settings = request_from(function, arguments, Settings.from_env())
    files = files_of(function, request, arguments.input)
    if isinstance(request, VideoRequest):
        request = dataclasses.replace(request, encode=_encode(arguments, request))
        if arguments.rate is not None:
            request = dataclasses.replace(request, rate=arguments.rate)
    result, speed = run_in_process(function, request, files, arguments.output, settings)
    if arguments.json:
        print(json.dumps(result.to_dict()))
    else:
        _show_result(result, speed)
    return 0


def _encode(arguments: argparse.Namespace, request: VideoRequest) -> Any:
    """Return the request's encode options, overridden by those of the command line."""
    chosen = {
        name: getattr(arguments, name)
        for name in ("encoder", "quality", "preset", "smart", "threads", "deinterlace", "hdr", "metadata")
    }
    return request.encode.to_dict() | {key: value for key, value in chosen.items() if value is not None}


def _show_result(result: Result, speed: str) -> None:
    print(f"{result.output_key}: {speed}")
    if isinstance(result, RenderResult):
        print(f"  {result.size[0]}x{result.size[1]}, {result.engine}, {result.encoder}, {result.bytes:,} bytes")
    else:
        print(f"  {result.bytes:,} bytes")
    if (used := result.usage) is not None:
        memory, traffic = used.peak_memory_bytes / 1e6, f"{used.bytes_in:,} bytes read, {used.bytes_out:,} written"
        print(f"  used {used.seconds:.1f} s, {memory:.0f} MB of memory at most, {traffic}, ${used.dollars:.4f}")
    if isinstance(result, RenderResult) and result.frames_copied:
        print(f"  {result.frames_copied} frames copied, {result.frames - result.frames_copied} rendered")
    elif isinstance(result, RenderResult) and result.reason:
        print(f"  all frames rendered: {result.reason}")
    for note in result.degraded:
        print(f"  not as asked: {note}")


def _probe(arguments: argparse.Namespace) -> int:
    from reel_modal.media import probe

    info = probe(arguments.input, scan=arguments.scan)
    if arguments.json:
        print(json.dumps(info.to_dict()))
        return 0
    facts = info.to_dict().items()
    print(
        text_table((name, json.dumps(fact) if isinstance(fact, (dict, list)) else str(fact)) for name, fact in facts)
    )
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.remote:
        return _examine_remote()
    from reel_modal.cli.doctor import examine

    findings = examine()
    if arguments.json:
        print(json.dumps([finding.to_dict() for finding in findings]))
    else:
        for finding in findings:  # aligned without rich, since rich may be the missing package
            mark = "ok" if finding.ok else "MISSING" if finding.required else "none"
            print(f"{mark:8} {finding.name:20} {finding.detail}")
            if finding.cure and not finding.ok:
                print(f"{'':8} {'':20} cure: {finding.cure}")
    return 0 if all(finding.ok or not finding.required for finding in findings) else _NOT_CONFIGURED


def _examine_remote() -> int:
    import asyncio

    from reel_modal.backends.modal import ModalBackend
    from reel_modal.backends.modal.examination import examine_deployment
    from reel_modal.functions.specs import app_name
    from reel_modal.settings import Settings

    report = asyncio.run(examine_deployment(ModalBackend(app_name(Settings.from_env()))))
    print(json.dumps(report, indent=2))
    functions = report["functions"]
    answered = isinstance(functions, dict) and not any("error" in each for each in functions.values())
    return 0 if answered else _FAILED


def _timings(arguments: argparse.Namespace) -> int:
    from reel_modal._progress.history import TimingHistory

    history = TimingHistory(arguments.file)
    summaries = history.summary()
    if arguments.json:
        path = None if history.path is None else str(history.path)
        print(json.dumps({"path": path, "timings": [timing.to_dict() for timing in summaries]}))
        return 0
    for timing in summaries:
        print(timing.to_text())
    if history.path is None:
        _say("timings are off, as set in REEL_MODAL_TIMINGS, so plans use published figures")
    elif summaries:
        _say(f"in {history.path}")
    else:
        _say(f"no job has finished yet, so plans use published figures; looked in {history.path}")
    return 0


def _rates(arguments: argparse.Namespace) -> int:
    from reel_modal._costs.rates import load_rates

    if arguments.refresh:
        import asyncio

        from reel_modal.backends.modal.billing import workspace_rates

        rates = asyncio.run(workspace_rates())
    else:
        rates = load_rates()
    if arguments.json:
        print(json.dumps({"dated": rates.dated, "source": rates.source, "usd_per_second": rates.by_name()}))
    elif arguments.refresh:
        print(f"REEL_MODAL_RATES={rates.to_setting()}")
    else:
        prices = rates.by_name().items()
        rows = [(name, f"${each:.9f} per second", f"${each * 3600:.4f} per hour") for name, each in prices]
        print(text_table(rows))
    _say(f"{rates.source}, {rates.dated}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from reel_modal.cli.status import run

    return run(arguments)


def _logs(arguments: argparse.Namespace) -> int:
    from reel_modal.cli.logs import run

    return run(arguments)


def _bill(arguments: argparse.Namespace) -> int:
    from reel_modal.cli.bill import run

    return run(arguments)


def _schema(arguments: argparse.Namespace) -> int:
    from reel_modal.schema._describe import json_schema, typescript

    print(typescript() if arguments.typescript else json.dumps(json_schema(), indent=2))
    return 0


def _deploy(arguments: argparse.Namespace) -> int:
    from reel_modal.deploy.command import run

    return run(arguments)


def _demo(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RequestError("--output", f"{str(folder)!r} cannot be created as a folder: {error}") from error
    try:
        _show_demo(folder)
    except BaseException:
        with contextlib.suppress(OSError):  # the folder is not empty
            folder.rmdir()
        raise
    return 0


def _show_demo(folder: Path) -> None:
    from reel_modal._support.scratch import scratch_dir
    from reel_modal.cli.demo import (
        demo_clips,
        demo_framing,
        demo_overlay,
        demo_upscale,
        write_contact_sheet,
        write_detail_sheet,
        write_reel_sheet,
    )
    from reel_modal.cli.render import run_in_process
    from reel_modal.functions.catalog import function_of

    def run(request: VideoRequest, source: Path, output: Path) -> None:
        _show_result(
            *run_in_process(function_of(request, all_functions()), request, {request.input_key: source}, output)
        )

    highlight, reel, larger = folder / "highlight.mp4", folder / "reel.mp4", folder / "larger.mp4"
    with scratch_dir() as scratch:
        clips = demo_clips(scratch)
        print(f"clips: {clips.origin}")
        run(demo_overlay(), clips.scene, highlight)
        sheet = folder / "before_and_after.png"
        write_contact_sheet(clips.scene, highlight, sheet)
        print(f"{sheet}: the clip above, the highlight below")
        framing = demo_framing()
        run(framing, clips.scene, reel)
        sheet = folder / "crop_and_reel.png"
        write_reel_sheet(framing, clips.scene, reel, sheet)
        print(f"{sheet}: the source with the crop above, the reel below")
        run(demo_upscale(), clips.small, larger)
        sheet = folder / "cubic_and_larger.png"
        write_detail_sheet(clips.small, larger, sheet)
        print(f"{sheet}: cubic interpolation above, the network below")


def _say(message: str) -> None:
    print(message, file=sys.stderr)
