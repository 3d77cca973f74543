"""How loud a film's sound is, over time and in bands; NumPy and PyAV, no library for audio."""

from collections.abc import Callable, Iterator
from itertools import accumulate

import av
import numpy as np
from numpy.typing import NDArray

from phosphene import apart
from phosphene.errors import ImageError, SettingsError, UnknownNameError
from phosphene.film.footage import Footage
from phosphene.film.video import opened

RATE = 16000
"""Samples a second that are listened to."""

WINDOW = 800
"""Samples of a window: a twentieth of a second."""

BANDS = {"sound": (0, RATE / 2), "bass": (20, 200), "mids": (200, 2000), "treble": (2000, RATE / 2)}
"""Bands by name, in Hz."""

QUIET, LOUD = 5, 95
"""Percentiles of a film's windows that count as 0 and as 1."""

RELEASE = 0.85
"""What is left of a level after a window of silence: it rises at once, and falls within a third of a second."""


def levels_of(footage: Footage, bands: set[str]) -> Callable[[str, float], float]:
    """Return `level(band, seconds)`, 0 to 1, of a film's first sound; seconds count from the beginning of its part.

    Raises `SettingsError` where a film has no sound, and `UnknownNameError` for a band that there is not.
    """
    for band in bands - BANDS.keys():
        raise UnknownNameError("band", band, BANDS, f"There are {', '.join(BANDS)}.")
    if not footage.sound:
        raise SettingsError(f"{footage.source!r} has no sound to follow")
    loudness = {band: _released(_scaled(power)) for band, power in _powers(listen(footage), bands).items()}

    def level(band: str, seconds: float) -> float:
        heard = loudness[band]
        return float(heard[min(max(int((footage.part.start + seconds) * RATE / WINDOW), 0), len(heard) - 1)])

    return level


def listen(footage: Footage) -> NDArray[np.float32]:
    """Return the first sound of a film, mixed to one channel, at `RATE`."""
    found = apart.answers(_told_sound, footage.source) if apart.is_on() else _told_sound(footage.source)
    heard = [told["samples"] for told in found]
    return np.concatenate(heard) if heard else np.zeros(WINDOW, np.float32)


def _told_sound(source: str) -> Iterator[apart.Answer]:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with opened(source) as container:
        try:
            for frame in container.decode(audio=0):
                for each in resampler.resample(frame):
                    yield {"samples": each.to_ndarray()[0]}
        except av.FFmpegError as error:
            raise ImageError(f"the sound of {source!r} cannot be read: {error.strerror}") from error


def _powers(heard: NDArray[np.float32], bands: set[str]) -> dict[str, NDArray[np.float64]]:
    """The root mean square of each window, in each band."""
    windows = np.pad(heard, (0, -len(heard) % WINDOW)).reshape(-1, WINDOW)
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(WINDOW), axis=1)) ** 2
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    inside = {band: (frequencies >= BANDS[band][0]) & (frequencies <= BANDS[band][1]) for band in bands}
    return {band: np.sqrt(spectrum[:, chosen].sum(1)) for band, chosen in inside.items()}


def _scaled(power: NDArray[np.float64]) -> NDArray[np.float64]:
    quiet, loud = np.percentile(power, [QUIET, LOUD])
    scaled: NDArray[np.float64] = np.clip((power - quiet) / max(loud - quiet, 1e-9), 0, 1)
    return scaled


def _released(level: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array(list(accumulate(level, lambda before, now: max(now, RELEASE * before))))
