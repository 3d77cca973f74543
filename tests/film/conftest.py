"""Films to try on: photographs that move in a way that is known, with sound."""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

av = pytest.importorskip("av")

from phosphene import imagefile  # noqa: E402
from phosphene.dreaming.resample import resize  # noqa: E402

SMALL = {"layers": "blocks.1.1", "octaves": 2, "steps": 2, "later_steps": 1, "later_octaves": 1, "device": "cpu"}
"""Settings of a dream that takes no time."""


def pan(frames: int, height: int = 48, width: int = 64, step: int = 2, sample: str = "coffee") -> list[Tensor]:
    """A photograph that moves to the left by `step` px a frame."""
    wide = resize(imagefile.read(f"sample:{sample}").image, (2 * height, 3 * width))
    return [wide[:, 10 : 10 + height, k * step : k * step + width].contiguous() for k in range(frames)]


def write_film(
    path: Path,
    images: Sequence[Tensor],
    *,
    rate: Fraction = Fraction(24),
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    sound: bool = False,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    full: bool = False,
    turned: int = 0,
    aspect: Fraction = Fraction(1),
) -> Path:
    base, times = time_base or 1 / rate, times or range(len(images))
    height, width = images[0].shape[1:]
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=rate, options={"crf": "8"})
        video.height, video.width, video.pix_fmt = height, width, pix_fmt
        video.codec_context.time_base, video.codec_context.sample_aspect_ratio = base, aspect
        video.codec_context.color_range = 2 if full else 1
        if turned:
            video.set_display_rotation(turned)
        audio = out.add_stream("aac", rate=44100) if sound else None
        for image, pts in zip(images, times, strict=True):
            levels = np.ascontiguousarray((image * 255).round().byte().permute(1, 2, 0).numpy())
            frame = av.VideoFrame.from_ndarray(levels, format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=6, dst_color_range="JPEG" if full else "MPEG")
            frame.pts, frame.time_base = pts, base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            for frame in tones(float((times[-1] + 1) * base)):
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return path


def tones(seconds: float):
    """A low tone that swells and fades once a second."""
    time = np.arange(int(44100 * seconds)) / 44100
    wave = (np.sin(2 * np.pi * 110 * time) * (0.5 - 0.5 * np.cos(2 * np.pi * time))).astype(np.float32)
    for begin in range(0, len(wave) - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44100, begin, Fraction(1, 44100)
        yield frame


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """The packets of a stream: their times and their bytes."""
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(**{kind: 0})
            if packet.pts is not None
        ]


def decoded(path: Path) -> list[Tensor]:
    with av.open(str(path)) as container:
        return [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def frame_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.fixture(scope="session")
def film(tmp_path_factory) -> Path:
    """Eight frames of a pan, and then four of another photograph."""
    images = [*pan(8), *pan(4, sample="chelsea")]
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", images, sound=True)


def largest_difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    assert len(one) == len(other)
    return max(float((a.float() - b.float()).abs().max()) for a, b in itertools.zip_longest(one, other))
