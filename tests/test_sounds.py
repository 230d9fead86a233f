"""A player holds the samples that it was given, and says what it is."""

import base64
import html
import io
import re
import wave

import numpy as np
import pytest

from dgm_course.sounds import listen, wav

TONE = 0.5 * np.sin(np.arange(800) / 3)


def read_back(data):
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767, file.getframerate()


def test_a_file_holds_the_samples_and_their_rate():
    samples, rate = read_back(wav(TONE, 8000))
    assert rate == 8000
    np.testing.assert_allclose(samples, TONE, atol=0.5 / 32767 + 1e-12)
    np.testing.assert_array_equal(read_back(wav([-1.0, 0.0, 1.0], 1))[0], [-1, 0, 1])


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        (TONE[None], r"shape \(T,\) with T >= 1, got shape \(1, 800\)"),
        ([], r"got shape \(0,\)"),
        ([0.0, 1.5, -2.5], r"in \[-1, 1\], got up to 2.5"),
        ([0.0, np.nan], "got up to nan"),
    ],
)
def test_what_would_be_no_sound_is_refused(samples, what):
    with pytest.raises(ValueError, match=what):
        wav(samples, 8000)


def test_players_are_named_and_need_nothing_from_elsewhere(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    listen({'the "teacher"': TONE, "a < b": TONE[:400]}, 8000)
    (bundle,) = shown
    assert bundle["text/plain"] == 'Sounds to listen to: the "teacher" (0.1 s), a < b (0.1 s).'
    page = bundle["text/html"]
    labels = re.findall(r'aria-label="([^"]*)"', page)
    assert [html.unescape(label) for label in labels] == ['the "teacher"', "a < b"]
    sources = re.findall(r'src="data:audio/wav;base64,([^"]*)"', page)
    lengths = [len(read_back(base64.b64decode(source))[0]) for source in sources]
    assert lengths == [800, 400]
    assert "http" not in page
