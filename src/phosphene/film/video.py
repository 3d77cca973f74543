"""A video file, read: what it is, and its frames, upright, each as an `Image`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from phosphene import apart, imagefile
from phosphene.errors import BrokenFilmError, ImageError, UsageError
from phosphene.film.footage import Colour, Footage, Shot
from phosphene.places import check_name, kind_of_file
from phosphene.types import Image

try:
    import av
except ImportError:
    raise UsageError("films need PyAV and OpenCV: pip install 'phosphene[video]'") from None

MISSING = 1.0
"""Seconds that must be missing at the end of a film that has not counted its frames, for it to count as cut off."""


@contextmanager
def opened(source: str) -> Iterator[Any]:
    """Open a film; what FFmpeg says of a file that is none becomes an `ImageError`."""
    check_name(source)
    if (kind := kind_of_file(Path(source))) not in ("", "a file"):
        raise ImageError(f"{source!r} is {kind}: give a film")
    try:
        container = av.open(source, format="apng" if source.lower().endswith(".apng") else None)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{source!r} is not a film that can be read: {reason}") from error
    with container:
        yield container


def look_at_video(source: str) -> Footage:
    """Find out what a video file is. Raises `ImageError` for what cannot be read, and `UsageError` for a still."""
    if apart.is_on():
        return replace(TypeAdapter(Footage).validate_python(apart.answer(_told_footage, source)), source=source)
    if not kind_of_file(Path(source)):
        raise ImageError(f"there is no film {source!r}: give a file, a folder of frames, or a pattern as 'frame*.png'")
    with opened(source) as container:
        return _look_into(source, container)


def _told_footage(source: str) -> Iterator[apart.Answer]:
    yield TypeAdapter(Footage).dump_python(look_at_video(source), mode="json")


def decoded(footage: Footage) -> Iterator[Shot]:
    """Read the frames. Raises `BrokenFilmError` where the file breaks off, after the frames before that."""
    if apart.is_on():
        for told in apart.answers(_told_shots, footage.source, footage):
            yield Shot(torch.from_numpy(told["image"]), told["pts"])
        return
    count, reached = 0, 0.0
    with opened(footage.source) as container:
        try:
            for frame in _frames(container, _video_stream(footage.source, container)):
                shot = Shot(_upright(frame, footage.colour), _pts(frame, count, footage))
                count, reached = count + 1, float(shot.pts * footage.ticks)
                yield shot
        except av.FFmpegError as error:
            raise BrokenFilmError(f"{footage.source!r} is broken after frame {count}: {error.strerror}") from error
    missing = count < footage.frames - 2 if footage.counted else reached < footage.seconds - MISSING
    if missing and not footage.part.start:
        raise BrokenFilmError(
            f"{footage.source!r} ends after frame {count}, at {reached:.2f} of {footage.seconds:.2f} s: "
            f"the rest is missing"
        )


def _told_shots(source: str, footage: Footage) -> Iterator[apart.Answer]:
    for shot in decoded(footage):
        yield {"image": shot.image.numpy(), "pts": shot.pts}


def _look_into(source: str, container: Any) -> Footage:
    stream = _video_stream(source, container)
    context = stream.codec_context
    first = next(_frames(container, stream), None)
    if first is None:
        raise ImageError(f"{source!r} has no frame that can be read")
    turned = first.rotation % 180 != 0
    aspect = stream.sample_aspect_ratio or Fraction(1)
    size = (first.width, first.height) if turned else (first.height, first.width)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
    return Footage(
        source=source,
        sha256=imagefile.checksum(source),
        size=size,
        frames=stream.frames or round(seconds * rate),
        rate=rate,
        time_base=stream.time_base,
        seconds=seconds,
        aspect=1 / aspect if turned else aspect,
        colour=Colour(first.color_range, first.colorspace, context.color_primaries, context.color_trc),
        sound=tuple(sound.codec_context.name for sound in container.streams.audio),
        notes=_notes(first),
        counted=stream.frames > 0,
    )


def _video_stream(source: str, container: Any) -> Any:
    """Return the first stream of pictures that move."""
    streams = [stream for stream in container.streams.video if "attached_pic" not in str(stream.disposition)]
    if not streams:
        raise ImageError(f"{source!r} has no video: only {_kinds(container)}")
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise UsageError(f"{source!r} is a still picture: `phosphene dream` and `phosphene zoom` take those")
    return streams[0]


def _kinds(container: Any) -> str:
    kinds = {stream.type for stream in container.streams} - {"video"}
    return " and ".join(sorted("sound" if kind == "audio" else kind for kind in kinds)) or "a cover"


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    stream.thread_type = "AUTO"
    yield from container.decode(stream)


def _notes(frame: Any) -> tuple[str, ...]:
    components = frame.format.components
    notes = []
    if max(component.bits for component in components) > 8:
        notes.append(f"{components[0].bits} bits a channel come in, and 8 go out")
    if any(component.is_alpha for component in components):
        notes.append("what is transparent in it is dreamed as if it were not")
    return tuple(notes)


def _pts(frame: Any, count: int, footage: Footage) -> int:
    return frame.pts if frame.pts is not None else round(count / footage.rate / footage.ticks)


def _upright(frame: Any, colour: Colour) -> Image:
    pixels = frame.to_ndarray(format="rgb24", src_colorspace=colour.matrix(frame.height))
    pixels = np.rot90(pixels, round(frame.rotation / 90))
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
