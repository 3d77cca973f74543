"""Films measured: flicker, drift, hidden places, speed, memory. The table in docs/film.md is what this prints.

python benchmarks/film.py [flicker drift hidden speed memory zoom]
"""

import statistics
import sys
import tempfile
import time
from itertools import pairwise, product
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from torch.nn import functional as F

from phosphene import imagefile
from phosphene.dreaming.strength import rms_change
from phosphene.film import zoom as zooming
from phosphene.film.asked import AskedZoom
from phosphene.film.footage import Shot
from phosphene.film.frames import dream_frames
from phosphene.film.moments import Moments
from phosphene.film.motion import consistency_mask, dis, warp
from phosphene.film.settings import Motion, Zoom
from phosphene.film.timeline import Timeline


def scene(frames, height, width, noise=0.0):
    """A film of known motion: a photograph that pans and zooms, and a disc of another that moves before it.

    Returns the frames, the backward motion of each but the first, and where each was seen before.
    """
    rng = np.random.default_rng(0)
    back, front = (imagefile.read(f"sample:{name}").image.permute(1, 2, 0).numpy() for name in ("coffee", "chelsea"))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    whole = 1.35 * max(height / back.shape[0], width / back.shape[1])
    radius = 0.22 * height

    def ground(k):  # where the background's pixels come from
        scale = 1 / (whole * 1.003**k)
        return (columns - width / 2 + 1.2 * (k - frames / 2)) * scale, (rows - height / 2) * scale

    def disc(k):
        return width / 4 + 6 * k, height / 2 + 1.8 * k

    images, motions, seen = [], [], []
    for k in range(frames):
        (x, y), (across, down) = ground(k), disc(k)
        image = cv2.remap(back, x + back.shape[1] / 2, y + back.shape[0] / 2, cv2.INTER_LINEAR, borderMode=2)
        thing = cv2.remap(front, (columns - across) / 0.75 + 225, (rows - down) / 0.75 + 130, cv2.INTER_LINEAR)
        distance = np.hypot(columns - across, rows - down)
        share = np.clip(radius - distance + 0.5, 0, 1)[..., None]
        image = image + share * (thing - image) + rng.normal(0, noise, image.shape)
        images.append(torch.from_numpy(image.clip(0, 1).astype(np.float32)).permute(2, 0, 1))
        if k:
            scale = whole * 1.003 ** (k - 1)
            before_x = x * scale + width / 2 - 1.2 * (k - 1 - frames / 2)
            before_y = y * scale + height / 2
            inside, (was_across, was_down) = distance < radius, disc(k - 1)
            before_x = np.where(inside, columns + was_across - across, before_x)
            before_y = np.where(inside, rows + was_down - down, before_y)
            hidden = ~inside & (np.hypot(before_x - was_across, before_y - was_down) < radius)
            outside = (before_x < 0) | (before_x > width - 1) | (before_y < 0) | (before_y > height - 1)
            motions.append(torch.from_numpy(np.stack([before_x - columns, before_y - rows]).astype(np.float32)))
            seen.append(torch.from_numpy(~(hidden | outside)))
    return images, motions, seen


def dreamed(images, settings=None, **motion):
    size = tuple(images[0].shape[1:])
    moments = Moments(Timeline({"size": "full", **(settings or {})}), size, "cpu")
    return dream_frames(((Shot(image, k), None) for k, image in enumerate(images)), float, moments, Motion(**motion))


def warping_error(images, motions, masks):
    """Lai et al. 2018: mean over time of sum(M |warp(before) - now|^2) / sum(M), pixels in 0..1."""
    errors = [
        (warp(before, motion) - now).square().mean(0)[mask].mean()
        for before, now, motion, mask in zip(images, images[1:], motions, masks, strict=False)
    ]
    return float(torch.stack(errors).mean())


def flicker(frames=16, height=240, width=320):
    for noise in (0.0, 0.01):
        images, motions, seen = scene(frames, height, width, noise)
        pairs = list(pairwise(images))
        masks = [
            (consistency_mask(dis(now, before), dis(before, now)) > 0) & there
            for (before, now), there in zip(pairs, seen, strict=True)
        ]
        held = list(dreamed(images))
        alone = list(dreamed(images[:6], carry=False, change=held[0].change))
        source = warping_error(images, motions, masks)
        for name, found in (("held", held), ("each frame alone", alone)):
            error = warping_error([frame.image for frame in found], motions, masks)
            everywhere = warping_error([frame.image for frame in found], motions, seen)
            print(
                f"flicker, noise {noise}: source {source:.6f}, {name} {error:.6f} = {error / source:.2f} x source "
                f"(hidden places of the true motion left out alone: {everywhere:.6f}); "
                f"change {found[0].change:.4f} to {found[-1].change:.4f}",
                flush=True,
            )


def drift(frames=300, height=60, width=80):
    still = scene(1, height, width)[0][0]
    changes, means, images = [], [], []
    for frame in dreamed([still] * frames):
        changes.append(frame.change)
        means.append(float((frame.image - frame.photograph).mean()) * 255)
        images.append(frame.image)
    print(
        f"drift, {frames} frames of a still: change {min(changes) / changes[0]:.4f} to {max(changes) / changes[0]:.4f} "
        f"of the first frame's {changes[0]:.4f}; luminance {min(means):+.3f} to {max(means):+.3f} of 255; "
        f"from frame to frame {rms_change(images[-1], images[-2]):.4f}, "
        f"last to first {rms_change(images[-1], images[0]):.4f}"
    )
    return images


def hidden():
    for (height, width), noise in product(((360, 480), (240, 320)), (0.0, 0.01, 0.02)):
        images, _, seen = scene(6, height, width, noise)
        found = [consistency_mask(dis(now, before), dis(before, now)) > 0 for before, now in pairwise(images)]
        recall = np.mean([float((~mask[~there]).float().mean()) for mask, there in zip(found, seen, strict=True)])
        lost = np.mean([float((~mask[there]).float().mean()) for mask, there in zip(found, seen, strict=True)])
        rare = np.mean([float((~there).float().mean()) for there in seen])
        print(
            f"hidden, {width} x {height}, noise {noise}: {rare:.1%} were, recall {recall:.3f}, "
            f"{lost:.1%} of the others lost",
            flush=True,
        )


def speed(frames=5, height=360, width=640):
    """Frames in turns: one carried, one alone."""
    images = scene(frames + 1, height, width)[0]
    ways = [dreamed(images), dreamed(images, carry=False)]
    for way in ways:
        next(way)  # the first frame of each is whole
    seconds = [[], []]
    for _ in range(frames):
        for way, taken in zip(ways, seconds, strict=True):
            began = time.perf_counter()
            next(way)
            taken.append(time.perf_counter() - began)
    carried, alone = map(statistics.median, seconds)
    print(f"speed, {width} x {height}: {carried:.2f} s a frame, alone {alone:.2f}: {alone / carried:.1f} times as fast")


def memory(frames=1000, height=48, width=64):
    images = scene(20, height, width)[0]
    course = {"layers": ("blocks.1.1",), "octaves": 1, "steps": 2}
    resident = {}
    shown = (images[k % 20 if k % 40 < 20 else 19 - k % 20] for k in range(frames))
    size = (height, width)
    moments = Moments(Timeline({"size": "full", **course}), size, "cpu")
    shots = ((Shot(image, k), None) for k, image in enumerate(shown))
    for frame in dream_frames(shots, float, moments, Motion(later_steps=1)):
        if frame.index in (20, 100, frames):
            resident[frame.index] = psutil.Process().memory_info().rss / 1e6
    print("memory: " + ", ".join(f"{mb:.0f} MB at frame {index}" for index, mb in resident.items()))


def zoom():
    """Sharpness (Laplacian energy) of frames over the time between two keys, and two rates of frames."""
    laplacian = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]).expand(3, 1, 3, 3)
    images = {}
    with tempfile.TemporaryDirectory() as folder:
        for fps in (24, 60):
            asked = AskedZoom(source="sample:coffee", given={"size": 320}, zoom=Zoom(seconds=1.5, rate=2, fps=fps))
            ready, keys = zooming.prepare(asked, Path("zoom.mkv"), "cpu"), Path(folder) / f"{fps}"
            keys.mkdir()
            images[fps] = {round(frame.time * 120): frame.image for frame in zooming.frames(ready, keys)}
    same = images[24].keys() & images[60].keys()
    equal = sum(torch.equal(images[24][time], images[60][time]) for time in same)
    sharp = [
        float(F.conv2d(image[None], laplacian, groups=3).square().mean()) for _, image in sorted(images[60].items())
    ]
    at_key = sharp[30]  # of 3 keys, one every half a second
    print(
        f"zoom: {equal} of {len(same)} common times have equal frames at 24 and 60 a second; Laplacian energy just "
        f"before a key {sharp[29] / at_key:.2f} of that at it, at least {min(sharp[30:60]) / at_key:.2f} between"
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or ("flicker", "drift", "hidden", "speed", "memory", "zoom"):
        globals()[name]()
