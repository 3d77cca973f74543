"""Films to write: what an ending means, and frames, sound and recipe into one file, or into a folder.

A video file grows while the film is dreamed. A picture that moves (GIF, APNG, WebP) and a folder of frames are made in
the end, from the frames that are kept.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import av
import numpy as np
import torch

from phosphene import imagefile
from phosphene.errors import ImageError, OutputExistsError, SettingsError, StoreError
from phosphene.film.footage import Footage
from phosphene.film.video import opened
from phosphene.imagefile import Photo
from phosphene.places import check_folder, check_writable, kind_of_file, listed
from phosphene.types import Image, Plane, Size

SAME_EACH_TIME = {"x264-params": "asm=avx2"} if torch.backends.cpu.get_cpu_capability() == "AVX512" else {}
"""Options for x264 to write the same film each time: its `mbtree_propagate_list_internal_avx512` takes macroblocks by
eight, and with any other number in a row it reads past their end. The rest of AVX-512 saves no time here."""

X264 = ("libx264", {"crf": "17", "preset": "medium", **SAME_EACH_TIME})

CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": X264,
    ".mov": X264,
    ".mkv": X264,
    ".webm": ("libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4"}),
}
"""Endings of video -> encoder and its options. A dream is all fine colour: other films look as good with less."""

MOVING = (".gif", ".apng", ".webp")
"""Endings of pictures that move."""

LONGEST = {".mp4": 16384, ".mov": 16384, ".mkv": 16384, ".webm": 65535, ".gif": 65535, ".webp": 16383}
"""Endings -> the longest side that their encoders take, in px."""

FOLDER = ""

FRAME = "{:08d}.png"


def check_output(path: Path, overwrite: bool) -> None:
    """Raise now what writing would raise later: an ending that is not known, a place that cannot be written to."""
    if path.suffix.lower() not in (*CODECS, *MOVING, FOLDER):
        known = ", ".join((*CODECS, *MOVING))
        raise SettingsError(
            f"{path.name!r} cannot be written: a film's ending must be one of {known}, or none for a folder of frames"
        )
    check_folder(path)
    if not is_folder(path):
        imagefile.check_place(path, overwrite)
    elif path.exists() and not path.is_dir():
        raise ImageError(f"{str(path)!r} is {kind_of_file(path)}, and frames go into a folder: choose another name")
    elif path.is_symlink() and not path.exists():
        raise ImageError(f"{str(path)!r} is a link to a folder that is missing: make that first")
    elif path.exists() and listed(path) and not overwrite:
        raise OutputExistsError(
            f"{str(path)!r} exists already: choose another name, or --overwrite it (in Python overwrite=True)"
        )
    elif not path.parent.is_dir():
        raise ImageError(f"there is no folder {str(path.parent)!r} to write {path.name!r} in: make it first")
    check_writable(path)
    if path.suffix.lower() in CODECS and CODECS[path.suffix.lower()][0] not in av.codecs_available:
        encoder = CODECS[path.suffix.lower()][0]
        raise SettingsError(f"PyAV has no encoder {encoder} here, which {path.suffix} needs; choose another ending")


def is_folder(path: Path) -> bool:
    """Whether frames go into a folder, one file each."""
    return path.suffix == FOLDER


def put_picture(path: Path, image: Image, alpha: Plane | None = None) -> None:
    """Write a picture into a run's folder, with its own name inside, so that two that changed places are found out."""
    imagefile.write(path, image, alpha=alpha, recipe=path.name)


def get_picture(path: Path) -> Photo:
    """Read a picture that `put_picture` wrote. `StoreError` for one that is damaged, lost or in another's place."""
    try:
        photo, name = imagefile.read(path), ""
    except ImageError as error:
        raise StoreError(f"{path} is damaged or lost: remove the folder, and begin again ({error})") from error
    with suppress(ImageError):  # it has none
        name = imagefile.read_recipe(path)
    if name != path.name:
        why = "is damaged or in a wrong place" if name else "has no name in it, as those of older versions of Phosphene"
        raise StoreError(f"{path} {why}: remove the folder, and begin again")
    return photo


def is_video(path: Path) -> bool:
    """Whether an ending is that of a video file."""
    return path.suffix.lower() in CODECS


def fitting(path: Path, size: Size) -> Size:
    """Return the size that a file can hold: video has a colour for each 2 x 2 pixels, so its sides are even.

    Raises `SettingsError` where it is too large.
    """
    if max(size) > LONGEST.get(path.suffix.lower(), max(size)):
        longest, given = LONGEST[path.suffix.lower()], f"{size[1]} x {size[0]} px"
        raise SettingsError(
            f"{path.name!r} cannot hold frames of {given}, only {longest} a side: give a smaller --size"
        )
    return (max(2, size[0] - size[0] % 2), max(2, size[1] - size[1] % 2)) if is_video(path) else size


def sound_notes(path: Path, footage: Footage) -> tuple[str, ...]:
    """Say what sound cannot be kept in a file of this ending."""
    if not footage.sound:
        return ()
    if not is_video(path):
        return (f"{path.suffix or 'a folder'} holds no sound: it is left out",)
    left = [codec for codec in footage.sound if codec not in _sounds_in(path)]
    return (f"{', '.join(left)} sound does not go into {path.suffix}, and is left out",) if left else ()


def _sounds_in(path: Path) -> set[str]:
    muxer = {".mkv": "matroska"}.get(path.suffix.lower(), path.suffix.lower()[1:])
    with av.open("/dev/null", "w", format=muxer) as container:
        return set(container.supported_codecs)


@runtime_checkable
class Sink(Protocol):
    """Where frames go, one after the other."""

    def add(self, image: Image, pts: int) -> None:
        """Take the next frame, shown at `pts`."""
        ...

    def close(self, target: Path) -> None:
        """Put the whole film into its place."""
        ...

    @property
    def bytes(self) -> int:
        """How large it is so far; 0 where it is written in the end."""
        ...


class Video:
    """A video file that grows. The film's sound is copied packet by packet, up to the frame that is added."""

    def __init__(self, path: Path, size: Size, footage: Footage, recipe: str, sound: bool = True) -> None:
        self.path, self._bytes = path, 0
        self.footage, self._matrix = footage, footage.colour.matrix(footage.size[0])
        self._open = ExitStack()
        options = {"fflags": "+bitexact"}  # else Matroska has random numbers in it
        if path.suffix.lower() in (".mp4", ".mov"):
            options["movflags"] = "+use_metadata_tags"
        self._container = self._open.enter_context(av.open(str(path), "w", container_options=options))
        self._container.metadata["comment"] = recipe
        self._stream = self._video_stream(path.suffix.lower(), size)
        self._packets = self._sound(path) if sound and not footage.stills else iter(())
        self._next = next(self._packets, None)

    def _video_stream(self, ending: str, size: Size) -> Any:
        encoder, options = CODECS[ending]
        try:
            stream: Any = self._container.add_stream(encoder, rate=self.footage.rate, options=options)
        except (av.FFmpegError, ValueError) as error:
            raise ImageError(f"the encoder {encoder} cannot be used: {error}") from error
        colour, context = self.footage.colour, stream.codec_context
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        context.time_base = self.footage.time_base
        context.sample_aspect_ratio = self.footage.aspect
        context.color_range, context.colorspace = colour.range, colour.space
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        return stream

    def _sound(self, path: Path) -> Iterator[tuple[Any, Any]]:
        """The film's sound, as packets and the streams they go to, in the order of their times."""
        container = self._open.enter_context(opened(self.footage.source))
        known = _sounds_in(path)
        streams = [stream for stream in container.streams.audio if stream.codec_context.name in known]
        copies = {stream.index: self._container.add_stream_from_template(stream) for stream in streams}
        begin, end = self.footage.part.start or -math.inf, self.footage.end  # a sound may begin before the film
        for packet in container.demux(streams) if streams else ():
            if packet.dts is not None and begin <= packet.pts * packet.time_base < end:
                yield _earlier(packet, self.footage.part.start), copies[packet.stream_index]

    def add(self, image: Image, pts: int) -> None:
        """Encode a frame, and the sound before it."""
        while self._next is not None and self._next[0].dts * self._next[0].time_base <= pts * self.footage.time_base:
            self._copy_sound()
        frame = av.VideoFrame.from_ndarray(_levels(image), format="rgb24")
        full = self.footage.colour.range == 2
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=self._matrix, dst_color_range="JPEG" if full else "MPEG"
        )
        frame.pts, frame.time_base = pts, self.footage.time_base
        self._mux(self._stream.encode(frame))

    def _copy_sound(self) -> None:
        assert self._next is not None
        packet, stream = self._next
        packet.stream = stream
        self._mux([packet])
        self._next = next(self._packets, None)

    def _mux(self, packets: Sequence[Any]) -> None:
        self._bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)

    def close(self, target: Path) -> None:
        """Finish the file, and move it into its place."""
        while self._next is not None:
            self._copy_sound()
        self._mux(self._stream.encode(None))
        self._open.close()
        shutil.move(self.path, target)

    @property
    def bytes(self) -> int:
        """How large the film is so far, without the little that its container adds."""
        return self._bytes


class Kept:
    """Frames that lie in a folder already, made into a picture that moves, or a folder of them."""

    def __init__(self, folder: Path, footage: Footage, recipe: str) -> None:
        self.folder, self.footage, self.recipe = folder, footage, recipe
        self._times: list[int] = []

    def add(self, image: Image, pts: int) -> None:
        """Note when a frame is shown, and keep it if it is not kept yet."""
        self._times.append(pts)
        path = self.folder / FRAME.format(len(self._times))
        if not path.exists():
            put_picture(path, image)

    def close(self, target: Path) -> None:
        """Write the film, from the frames in the folder."""
        images = (get_picture(self.folder / FRAME.format(k)).image for k in range(1, len(self._times) + 1))
        if is_folder(target):
            target.mkdir(exist_ok=True)
            for number, image in enumerate(images, start=1):
                imagefile.write(target / FRAME.format(number), image, recipe=self.recipe)
            for path in target.glob(f"{'[0-9]' * 8}.png"):  # of a longer film that was there
                if int(path.stem) > len(self._times):
                    path.unlink()
        else:
            imagefile.write_moving(target, images, durations(self._times, self.footage), recipe=self.recipe)

    @property
    def bytes(self) -> int:
        """Not known before the end: the frames that are kept are larger than the film."""
        return 0


def sink_for(folder: Path, output: Path, size: Size, footage: Footage, recipe: str) -> Sink:
    """Open what takes the frames of an output, in a folder beside it: a video's file, or pictures that are kept."""
    if is_video(output):
        return Video(folder / f"film{output.suffix}", size, footage, recipe)
    return Kept(folder, footage, recipe)


def read_recipe(path: str | Path) -> str:
    """Return the recipe that a film carries, or a frame of one. Raises `ImageError` where there is none."""
    if not is_video(Path(path)):
        return imagefile.read_recipe(path)
    with opened(str(path)) as container:
        tags = {name.lower(): text for name, text in container.metadata.items()}
    if "[made]" not in tags.get("comment", ""):
        raise ImageError(f"{str(path)!r} carries no recipe: give a film as Phosphene wrote it, not a copy")
    return str(tags["comment"])


def durations(times: Sequence[int], footage: Footage) -> list[float]:
    """Return how long each frame is shown, in seconds; the last one as long as the one before it."""
    usual = 1 / float(footage.rate)
    each = [float((after - now) * footage.time_base) for now, after in pairwise(times)]
    return [*each, each[-1] if each else usual]


def _earlier(packet: Any, seconds: float) -> Any:
    """Move a packet's time by the beginning of the part."""
    if seconds:
        ticks = round(seconds / packet.time_base)
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
    return packet


def _levels(image: Image) -> np.ndarray:
    return np.ascontiguousarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
