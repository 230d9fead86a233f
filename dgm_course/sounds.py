"""Sounds to listen to, in a page that needs no kernel: the samples lie in the output itself."""

from __future__ import annotations

import base64
import html
import io
import wave
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike


def wav(samples: ArrayLike, rate: int) -> bytes:
    """A WAV file, one channel of 16 bits, of samples ``(T,)`` in [−1, 1], ``rate`` a second.

    Raises:
        ValueError: for samples of another shape, none, some outside [−1, 1] or not finite.
    """
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"samples must have shape (T,) with T >= 1, got shape {samples.shape}")
    if not (np.abs(samples) <= 1).all():  # NaN is not
        raise ValueError(f"samples must lie in [-1, 1], got up to {np.abs(samples).max()}")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def listen(sounds: Mapping[str, ArrayLike], rate: int) -> None:
    """Show a player for each sound, under its name, which is also what a screen reader says.

    nbval compares what is shown: give it stored samples, the same on every machine.

    Args:
        sounds: name to samples ``(T,)`` in [−1, 1].
        rate: samples a second.
    """
    from IPython.display import display

    players = []
    for name, samples in sounds.items():
        data, label = base64.b64encode(wav(samples, rate)).decode(), html.escape(name, quote=True)
        players.append(
            '<figure style="display:inline-block; margin:4px 12px">'
            f'<figcaption style="color:inherit">{label}</figcaption>'
            f'<audio controls aria-label="{label}" style="width:250px" '
            f'src="data:audio/wav;base64,{data}"></audio></figure>'
        )
    seconds = ", ".join(f"{name} ({len(np.asarray(s)) / rate:.1f} s)" for name, s in sounds.items())
    # The text stands where sounds cannot be played, on paper or on GitHub.
    bundle = {"text/html": "".join(players), "text/plain": f"Sounds to listen to: {seconds}."}
    display(bundle, raw=True)
