"""The functions through a real S3 server: on this machine, and what they read, publish, reuse and refuse."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import httpx
import pytest
from tests.clips import Clips, ffmpeg
from tests.jobs import GLOBAL, overlay
from tests.object_store import SECRET_KEY, ObjectStore

from reel_modal import FramingRequest, FunctionRegistry, OverlayRequest, RenderResult, Settings, Storage
from reel_modal.backends.local import LocalBackend
from reel_modal.errors import (
    BadInputError,
    ConfigError,
    ObjectExistsError,
    ObjectNotFoundError,
    RequestError,
)
from reel_modal.functions import process_framing
from reel_modal.functions.bodies import run_body
from reel_modal.functions.context import JobContext
from reel_modal.schema import CropKeyframe, EncodeOptions, Existing, SpeedSegment, StoreOptions, store_key
from reel_modal.storage import FolderStorage
from reel_modal.testing import make_clip

_CUES = b"\x1c\x53\xbb\x6b"  # the id of that element

FAST = EncodeOptions(encoder="libx264", preset="ultrafast")


def part(clip: str, start: int, end: int | None, *, size: tuple[int, int]) -> FramingRequest:
    """What is shown of the stored `clip` from `start` to `end` in seconds, in another size or its own."""
    return FramingRequest(
        job_id="j",
        user_id="u",
        input_key=clip,
        output_key="out.mp4",
        trim_start_seconds=Fraction(start),
        trim_end_seconds=None if end is None else Fraction(end),
        output_size=size,
        encode=FAST,
    )


def put(storage: Storage, key: str, clip: Path, folder: Path) -> None:
    copy = folder / f"copy{clip.suffix}"
    copy.write_bytes(clip.read_bytes())
    storage.publish(copy, key)


def run(name: str, request: OverlayRequest | FramingRequest, url: str) -> RenderResult:
    settings = Settings(store_url=url)
    return RenderResult.parse(run_body(name, request.to_dict(), settings=settings, send=lambda _: None))


@pytest.fixture(params=["s3", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that holds `in.mp4` for everybody."""
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        made = (tmp_path / "store").as_uri()
    else:
        s3: ObjectStore = request.getfixturevalue("s3")
        made = s3.url(f"functions-{hashlib.md5(str(tmp_path).encode(), usedforsecurity=False).hexdigest()}")
    clips: Clips = request.getfixturevalue("clips")
    put(Storage.from_url(made), "in.mp4", clips.get("25.mp4"), tmp_path)
    return made


async def test_a_job_in_a_worker_reads_and_publishes_objects_and_leaves_a_receipt(
    s3: ObjectStore, clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = s3.url("worker")
    storage = Storage.from_url(url)
    put(storage, "users/user/in.mp4", clips.get("25.mp4"), tmp_path)
    request = replace(overlay("s3"), store=StoreOptions())
    settings = Settings(store_url=url)
    async with FunctionRegistry(settings, backend=LocalBackend(settings)) as registry:
        job = await registry["render_overlay"].submit(request)
        result = await job.result()
        events = [event async for event in job.events()]
    assert (result.output_key, result.stored_key) == ("out/s3.mp4", "users/user/out/s3.mp4")
    answer = await asyncio.to_thread(httpx.get, result.url(expires_seconds=60))
    assert answer.raise_for_status().content == storage.read_bytes("users/user/out/s3.mp4")
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301
    usage = result.usage
    assert usage is not None
    assert usage.bytes_in >= clips.get("25.mp4").stat().st_size
    assert usage.bytes_out >= result.bytes == storage.stat("users/user/out/s3.mp4").bytes
    assert usage.queue_seconds is not None
    assert usage.startup_seconds > 0.01
    assert usage.seconds >= sum(result.seconds_by_phase.values()) > 0
    assert usage.peak_memory_bytes > 20_000_000
    assert (usage.gpu, usage.gpu_seconds, usage.dollars) == (None, 0.0, 0.0)
    assert usage.package_version
    assert RenderResult.parse(json.loads(json.dumps(result.to_dict()))) == result
    assert SECRET_KEY not in repr(result) + repr(events) + repr(job) + repr(settings) + caplog.text


async def test_url_of_a_result_in_a_folder_is_refused(clips: Clips, tmp_path: Path) -> None:
    put(FolderStorage(tmp_path), "users/user/in.mp4", clips.get("25.mp4"), tmp_path)
    request = replace(overlay("folder"), store=StoreOptions())
    async with FunctionRegistry(Settings(store_url=tmp_path.as_uri())) as registry:
        result = await registry["render_overlay"](request)
        again = await registry.attach("local:render_overlay:gone", request).result()
    assert result.stored_key == again.stored_key == "users/user/out/folder.mp4"
    assert (tmp_path / "users/user/out/folder.mp4").stat().st_size == result.bytes
    with pytest.raises(ConfigError, match="no URLs that others can use"):
        result.url(expires_seconds=60)
    with pytest.raises(ConfigError, match="does not know its store"):
        RenderResult.parse(result.to_dict()).url()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 seconds, 38 MB; its headers lie at its end, as ffmpeg and most cameras leave them."""
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "50")
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    clip = make_clip(path, size=(640, 360), seconds=160, audio_seconds=160, encoder=x264)
    assert clip.read_bytes().index(b"moov") > clip.stat().st_size * 0.9
    return clip


def test_framing_a_part_of_a_long_clip_in_a_store_reads_that_part(
    s3: ObjectStore, long_clip: Path, tmp_path: Path
) -> None:
    """The result is the same file, byte for byte, that the whole clip on a disk gives."""
    long = long_clip
    (tmp_path / "folder").mkdir()
    sizes, made = long.stat().st_size, {}
    put(FolderStorage(tmp_path / "folder"), "long.mp4", long, tmp_path)
    put(Storage.from_url(s3.url("long")), "long.mp4", long, tmp_path)
    crops = tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=0, width=202, height=360) for time, x in ((0, 0), (200, 400))
    )
    # Copied packet by packet, in one ffmpeg, and frame by frame: each reads in its own way.
    cases = (((), (640, 360), 103), ((), (320, 180), 102), (crops, (180, 320), 101), ((), (320, 180), None))
    for crop, size, end in cases:
        request = replace(part("long.mp4", 150 if end is None else 100, end, size=size), crop=crop)
        for storage in (FolderStorage(tmp_path / "folder"), Storage.from_url(s3.url("long"))):
            workdir = tmp_path / f"work-{len(made)}"
            workdir.mkdir()
            result = process_framing.run(request, JobContext(storage=storage, workdir=workdir))
            assert result.usage is not None
            assert (result.plan == "smart") == (end == 103), result.reason
            made[repr(storage), end] = (storage.fetch("out.mp4", tmp_path).read_bytes(), result.usage.bytes_in)
        here, there = [made[key] for key in made if key[1] == end]
        assert there[1] < sizes * 0.45 < here[1] == sizes
        assert there[0] == here[0]


CONTAINERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cues at the end": ("mkv", ()),
    "cues at the beginning": ("mkv", ("-reserve_index_space", "100k")),
    "no cues": ("mkv", ()),
    "fragments": ("mp4", ("-movflags", "dash+frag_keyframe+empty_moov+global_sidx")),
    "stream": ("ts", ()),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_framing_a_part_of_a_long_clip_without_an_index_reads_that_part(
    s3: ObjectStore, long_clip: Path, tmp_path: Path, kind: str
) -> None:
    """By cues or by times; where a Matroska has lost its cues, its demuxer reads all up to that part."""
    suffix, flags = CONTAINERS[kind]
    long = tmp_path / f"long.{suffix}"
    ffmpeg("-i", long_clip, "-c", "copy", *flags, long)
    if kind == "no cues":  # the end of a copy is lost
        data = long.read_bytes()
        long.write_bytes(data[: data.rindex(_CUES)])
    (tmp_path / "folder").mkdir()
    here, there = FolderStorage(tmp_path / "folder"), Storage.from_url(s3.url(f"part-{kind.replace(' ', '-')}"))
    for storage in (here, there):
        put(storage, long.name, long, tmp_path)
    crop = tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=0, width=202, height=360) for time, x in ((0, 0), (200, 400))
    )
    slow = (SpeedSegment(start_seconds=Fraction(101), end_seconds=Fraction(102), speed=Fraction(1, 2)),)
    request = part(long.name, 100, 103, size=(320, 180))
    every = (
        request,
        replace(request, crop=crop, output_size=(180, 320)),
        replace(request, segments=slow),
        replace(request, output_size=(640, 360), encode=replace(FAST, smart=False)),
    )
    for number, asked in enumerate(every if kind in {"cues at the end", "stream"} else every[:1]):
        made = []
        for storage in (here, there):
            workdir = tmp_path / f"work-{number}-{storage is there}"
            workdir.mkdir()
            before = storage.traffic.bytes_in
            result = process_framing.run(asked, JobContext(storage=storage, workdir=workdir))
            made.append((storage.fetch("out.mp4", tmp_path).read_bytes(), result.frames))
            read = result.usage.bytes_in - before if result.usage is not None else 0
        assert made[0] == made[1]
        assert (read < long.stat().st_size * 0.45) == (kind != "no cues")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_subtitles_of_a_part_are_fetched_with_it(
    s3: ObjectStore, long_clip: Path, tmp_path: Path, suffix: str
) -> None:
    lines, long = tmp_path / "lines.srt", tmp_path / f"long.{suffix}"
    lines.write_text(
        "".join(
            f"{n}\n00:{at // 60:02}:{at % 60:02},000 --> 00:{at // 60:02}:{at % 60:02},900\nSecond {at}\n\n"
            for n, at in enumerate(range(0, 120, 2), 1)
        )
    )
    codec = "mov_text" if suffix == "mp4" else "srt"
    ffmpeg("-i", long_clip, "-i", lines, "-map", "0", "-map", "1", "-c", "copy", "-c:s", codec, long)
    (tmp_path / "folder").mkdir()
    made = []
    for storage in (FolderStorage(tmp_path / "folder"), Storage.from_url(s3.url(f"subtitles-{suffix}"))):
        put(storage, long.name, long, tmp_path)
        request = part(long.name, 100, 103, size=(320, 180))
        workdir = tmp_path / f"work-{len(made)}"
        workdir.mkdir()
        before = storage.traffic.bytes_in
        process_framing.run(request, JobContext(storage=storage, workdir=workdir))
        read = storage.traffic.bytes_in - before
        made.append(storage.fetch("out.mp4", tmp_path).read_bytes())
    assert read < long.stat().st_size * 0.45
    assert made[0] == made[1]
    assert b"Second 100" in made[0]
    assert b"Second 102" in made[0]
    assert b"Second 104" not in made[0]


def test_a_matroska_is_copied_where_it_is_small_enough_to_be_fetched_whole(
    s3: ObjectStore, long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "long.mkv"
    ffmpeg("-i", long_clip, "-c", "copy", long)
    size = long.stat().st_size
    storage = Storage.from_url(s3.url("matroska-copied"))
    put(storage, "long.mkv", long, tmp_path)
    request = part("long.mkv", 100, 103, size=(640, 360))

    def framed(name: str) -> tuple[RenderResult, int]:
        (tmp_path / name).mkdir()
        before = storage.traffic.bytes_in
        result = process_framing.run(request, JobContext(storage=storage, workdir=tmp_path / name))
        return result, storage.traffic.bytes_in - before

    copied, read = framed("copied")
    assert (copied.plan, copied.frames, read >= size) == ("smart", 75, True)
    monkeypatch.setattr(process_framing, "_WHOLE_BYTES", size - 1)
    made, read = framed("made")
    assert (made.plan, made.frames, read < size * 0.45) == ("full", 75, True)
    assert made.reason == (
        "it is large, so that only a part of it was fetched, and copying wants to know all its packets"
    )


def test_a_stream_whose_clock_begins_anew_is_read_whole(s3: ObjectStore, long_clip: Path, tmp_path: Path) -> None:
    """After 2^33 ticks, a day and two hours: here within the clip."""
    long = tmp_path / "long.ts"
    ffmpeg("-i", long_clip, "-c", "copy", "-output_ts_offset", str(2**33 / 90000 - 70), long)
    (tmp_path / "folder").mkdir()
    made = []
    for storage in (FolderStorage(tmp_path / "folder"), Storage.from_url(s3.url("clock"))):
        put(storage, "long.ts", long, tmp_path)
        request = part("long.ts", 100, 103, size=(320, 180))
        workdir = tmp_path / f"work-{len(made)}"
        workdir.mkdir()
        result = process_framing.run(request, JobContext(storage=storage, workdir=workdir))
        made.append((storage.fetch("out.mp4", tmp_path).read_bytes(), result.frames))
    assert made[0] == made[1]
    assert made[0][1] == 75
    assert result.usage is not None
    assert result.usage.bytes_in >= long.stat().st_size


@pytest.mark.parametrize("kind", ["matroska to its end", "fragmented", "stream to its end", "keyframe at its start"])
def test_what_cannot_be_read_in_part_is_read_whole(s3: ObjectStore, clips: Clips, tmp_path: Path, kind: str) -> None:
    suffix = {"fragmented": "mp4", "matroska to its end": "mkv"}.get(kind, "ts")
    long = tmp_path / f"long.{suffix}"
    flags = ("-movflags", "frag_keyframe+empty_moov") if kind == "fragmented" else ()
    source = ("-stream_loop", "19", "-i", clips.get("bigbuckbunny.mp4"), "-c", "copy")
    if kind == "keyframe at its start":
        anew = "libx264 -preset ultrafast -g 9999 -sc_threshold 0 -s 160x90 -an"
        source = (*source[:-1], *anew.split())
    ffmpeg(*source, *flags, long)
    storage = Storage.from_url(s3.url(f"whole-{kind.replace(' ', '-')}"))
    put(storage, long.name, long, tmp_path)
    request = part(long.name, 60, None if "end" in kind else 61, size=(320, 180))
    result = process_framing.run(request, JobContext(storage=storage, workdir=tmp_path))
    assert result.usage is not None
    assert result.usage.bytes_in >= long.stat().st_size
    assert result.frames >= 25


def test_users_and_everybody_have_keys_of_their_own(s3: ObjectStore, clips: Clips, tmp_path: Path) -> None:
    url = s3.url("scopes")
    storage = Storage.from_url(url)
    put(storage, "games/final.mp4", clips.get("25.mp4"), tmp_path)
    game = replace(
        overlay("game", source="games/final.mp4", output="mine.mp4"), store=StoreOptions(input_scope="global")
    )
    assert run("render_overlay", game, url).output_key == "mine.mp4"
    assert storage.stat(store_key("mine.mp4", "user", "user")).bytes > 0
    with pytest.raises(ObjectNotFoundError, match=r"users/user/games/final\.mp4"):
        run("render_overlay", replace(game, store=StoreOptions()), url)
    theirs = {"user_id": "other", "input_key": "mine.mp4", "output_key": "theirs.mp4"}
    with pytest.raises(ObjectNotFoundError, match=r"users/other/mine\.mp4"):
        run("render_overlay", replace(game, **theirs, store=StoreOptions()), url)
    with pytest.raises(RequestError, match="use the scope 'user'"):
        replace(game, input_key="users/user/mine.mp4")
    for user in ("a/b", "..", "None"):
        with pytest.raises(RequestError, match=r"^user_id: "):
            replace(game, user_id=user)


def test_scopes_are_words_and_part_of_the_request() -> None:
    request = replace(overlay(), store=StoreOptions(input_scope="global", existing="reuse"))
    assert OverlayRequest.parse(request.to_dict()) == request
    assert replace(request, store=StoreOptions(input_scope="global")).request_hash() == request.request_hash()
    assert replace(request, store=StoreOptions()).request_hash() != request.request_hash()
    with pytest.raises(RequestError, match=r"store\.input_scope: is 'team'; use one of user, global"):
        OverlayRequest.parse(request.to_dict() | {"store": {"input_scope": "team"}})


def asked(job_id: str, existing: Existing, **changes: object) -> OverlayRequest:
    request = replace(overlay(job_id, output="out.mp4"), **changes)  # type: ignore[arg-type]
    return replace(request, store=replace(GLOBAL, existing=existing))


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many times something was rendered."""
    from reel_modal.functions import render_overlay

    count, body = [0], render_overlay.run

    def counted(request: OverlayRequest, context: JobContext) -> RenderResult:
        count[0] += 1
        return body(request, context)

    monkeypatch.setattr(render_overlay, "run", counted)
    return lambda: count[0]


def test_the_same_request_is_rendered_once_where_it_may_be_reused(
    url: str, renders: Callable[[], int], clips: Clips, tmp_path: Path
) -> None:
    first = run("render_overlay", asked("first", "reuse"), url)
    for existing in ("reuse", "refuse"):
        again = run("render_overlay", asked(f"again-{existing}", existing), url)
        assert (again.reused_from, again.job_id, renders()) == ("first", f"again-{existing}", 1)
        same = {
            name: getattr(again, name) for name in ("frames", "size", "bytes", "encoder", "degraded", "output_key")
        }
        assert same == {name: getattr(first, name) for name in same}
        assert again.usage is not None
        assert again.usage.bytes_out == 0
    assert run("render_overlay", asked("anew", "replace"), url).reused_from is None
    assert renders() == 2
    # Another picture under the same key is another input.
    put(Storage.from_url(url), "in.mp4", clips.get("with_sound.mp4"), tmp_path)
    assert run("render_overlay", asked("other input", "reuse"), url).reused_from is None
    assert renders() == 3


def all_requests(suffix: str, existing: Existing) -> Iterator[tuple[str, OverlayRequest | FramingRequest]]:
    """One request of every way in which an output is made."""
    store = replace(GLOBAL, existing=existing)
    keys = {"job_id": existing, "user_id": "u", "input_key": "in.mp4", "store": store}
    names = iter(f"out-{number}{suffix}" for number in range(9))
    yield "render_overlay", OverlayRequest(**keys, output_key=next(names), regions=())  # copied whole
    drawn = replace(overlay(), **keys, output_key=next(names))
    yield "render_overlay", drawn
    yield "render_overlay", replace(drawn, output_key=next(names), encode=replace(FAST, smart=False))
    trim = FramingRequest(**keys, output_key=next(names), trim_end_seconds=Fraction(1, 2), encode=FAST)
    yield "process_framing", trim
    yield "process_framing", replace(trim, output_key=next(names), output_size=(160, 90))
    crop = (CropKeyframe(time_seconds=Fraction(0), x=3, y=0, width=90, height=160),)
    yield "process_framing", replace(trim, output_key=next(names), crop=crop, output_size=(90, 160))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_an_output_whose_record_is_gone_says_itself_whose_it_is(
    url: str, suffix: str, clips: Clips, tmp_path: Path
) -> None:
    storage = Storage.from_url(url)
    ways = set()
    for name, request in all_requests(suffix, "replace"):
        made = run(name, request, url)
        ways.add((name, made.engine, made.plan))
        storage.delete(f"receipts/{request.request_hash()}.json")
        again = replace(request, job_id="again", store=replace(request.store, existing="reuse"))
        for existing in ("reuse", "refuse"):
            told = run(name, replace(again, store=replace(again.store, existing=existing)), url)
            assert (told.reused_from, told.job_id) == ("unknown", "again"), made
            assert (told.frames, told.size, told.fps, told.bytes) == (made.frames, made.size, made.fps, made.bytes)
            assert [note.code for note in told.degraded] == ["record_lost"]
        other = replace(
            again, encode=replace(again.encode, quality=31), store=replace(again.store, existing="refuse")
        )
        with pytest.raises(ObjectExistsError):
            run(name, other, url)
    assert len(ways) == (4 if suffix == ".mp4" else 3), ways
    put(storage, "in.mp4", clips.get("with_sound.mp4"), tmp_path)
    assert run(name, again, url).reused_from is None  # another picture under the same key is another input


def test_another_request_for_the_same_key_is_refused_before_it_is_rendered_or_replaces(
    url: str, renders: Callable[[], int], tmp_path: Path
) -> None:
    run("render_overlay", asked("first", "refuse"), url)
    other = asked("other", "refuse", effect="brightness_boost")
    with pytest.raises(ObjectExistsError, match=r"'out\.mp4' that is not this request's.*another key"):
        run("render_overlay", other, url)
    assert renders() == 1
    # Whatever else lies under the key is no output of this request either.
    Storage.from_url(url).write_bytes("out.mp4", b"somebody's")
    with pytest.raises(ObjectExistsError):
        run("render_overlay", asked("again", "refuse"), url)
    assert Storage.from_url(url).read_bytes("out.mp4") == b"somebody's"
    assert run("render_overlay", asked("other", "reuse", effect="brightness_boost"), url).reused_from is None
    assert renders() == 2


async def test_a_refused_output_is_a_bad_input_to_the_host(s3: ObjectStore, clips: Clips, tmp_path: Path) -> None:
    url = s3.url("refused-output")
    put(Storage.from_url(url), "in.mp4", clips.get("25.mp4"), tmp_path)
    Storage.from_url(url).write_bytes("out.mp4", b"somebody's")
    settings = Settings(store_url=url)
    async with FunctionRegistry(settings, backend=LocalBackend(settings)) as registry:
        with pytest.raises(BadInputError, match=r"out\.mp4") as caught:
            await registry["render_overlay"](asked("refused", "refuse"))
    assert isinstance(caught.value.__cause__, ObjectExistsError)


def test_a_job_whose_machine_was_lost_after_publishing_is_not_rendered_again(
    url: str, renders: Callable[[], int]
) -> None:
    first = run("render_overlay", asked("lost", "replace"), url)
    again = run("render_overlay", asked("lost", "replace"), url)  # as the service starts it a second time
    assert renders() == 1
    assert again.reused_from is None
    assert again.usage is not None
    assert first.usage is not None
    assert again.usage.dollars == first.usage.dollars
    assert again.frames == first.frames


def test_a_record_that_cannot_be_read_is_passed_over(
    url: str, renders: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    request = asked("first", "reuse")
    run("render_overlay", request, url)
    Storage.from_url(url).write_bytes(f"receipts/{request.request_hash()}.json", b"{half")
    assert run("render_overlay", asked("second", "reuse"), url).reused_from is None
    assert "no record of an output" in caplog.text
    assert renders() == 2


def test_publishing_that_fails_leaves_no_output_that_counts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    kind = type(Storage.from_url(url))
    with monkeypatch.context() as patch:
        patch.setattr(kind, "publish", lost)
        with pytest.raises(KeyboardInterrupt):
            run("render_overlay", asked("lost", "replace"), url)
    with pytest.raises(ObjectNotFoundError):
        Storage.from_url(url).stat("out.mp4")
    assert run("render_overlay", asked("lost", "replace"), url).frames > 0
