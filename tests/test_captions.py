"""Captions of canvases: every word of theirs is true, none held out is seen, the judge can read."""

import itertools

import pytest
import torch
from sklearn.svm import SVC

from dgm_course.data import (
    CAPTIONS,
    HELD_OUT,
    WORDS,
    CaptionJudge,
    captioned_digits,
    decode_caption,
    digits,
    encode_caption,
)

KNOWN = "faint, bright, zero, one, .* nine, left, right"


@pytest.fixture(scope="module")
def judge():
    return CaptionJudge()


def rows(x):
    return {tuple(row) for row in x.flatten(1).tolist()}


# --- words ------------------------------------------------------------------------------------


def test_forty_captions_of_fourteen_words():
    assert len(WORDS) == 14
    assert len({*CAPTIONS}) == len(CAPTIONS) == 40
    assert {word for caption in CAPTIONS for word in caption.split()} == {*WORDS}
    assert all(decode_caption(encode_caption(caption)) == caption for caption in CAPTIONS)
    assert encode_caption("bright three left").tolist() == [
        WORDS.index(w) for w in ("bright", "three", "left")
    ]


def test_the_held_out_are_new_as_wholes_only():
    """Each two of their words are seen together, so that what is asked for is a combination."""
    assert len({*HELD_OUT}) == 4
    assert {*HELD_OUT} < {*CAPTIONS}
    seen = [caption.split() for caption in CAPTIONS if caption not in HELD_OUT]
    for caption in HELD_OUT:
        for pair in itertools.combinations(caption.split(), 2):
            assert any({*pair} < {*words} for words in seen), (caption, pair)
    for words in ({"faint", "bright"}, {"left", "right"}):  # no side is held out more often
        assert all(sum(w in c.split() for c in HELD_OUT) == 2 for w in words)


@pytest.mark.parametrize("word", ["dark", "Bright", "3", "threes", "-"])
def test_an_unknown_word_is_named_and_the_known_ones_listed(word):
    with pytest.raises(ValueError, match=rf"words {KNOWN}, got '{word}' in '{word} three left'"):
        encode_caption(f"{word} three left")


@pytest.mark.parametrize(
    "caption",
    [
        "bright left three",
        "three bright left",
        "bright three",
        "left",
        "",
        "bright three left left",
    ],
)
def test_another_order_is_told_the_order(caption):
    order = r"\(brightness\) \(digit\) \(side\)"
    with pytest.raises(ValueError, match=rf"{order}, as 'bright three left', got '{caption}'"):
        encode_caption(caption)


@pytest.mark.parametrize("caption", [None, 3, ["bright three left"], b"bright three left"])
def test_a_caption_is_a_string(caption):
    with pytest.raises(ValueError, match="caption must be a str, got"):
        encode_caption(caption)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([1, 5, 14]), "tokens must hold integers 0 to 13, got values from 1 to 14"),
        (torch.tensor([1.0, 5.0, 12.0]), "tokens must hold integers 0 to 13, got dtype"),
        ([1, 5, 12], "tokens must be a torch.Tensor, got list"),
        (torch.tensor([[1, 5, 12]]), r"tokens must have shape \(3,\), got shape \(1, 3\)"),
        (torch.tensor([5, 1, 12]), r"\(brightness\) .* got 'three bright left'"),
    ],
)
def test_decode_rejects_what_is_no_caption(tokens, message):
    with pytest.raises(ValueError, match=message):
        decode_caption(tokens)


# --- canvases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_canvas_is_its_digit_where_and_as_its_caption_says(split):
    """Made again here, canvas by canvas, from the caption's words."""
    images, captions = captioned_digits(split, "all")
    source, labels = digits(split)
    n = len(source)
    assert images.shape == (4 * n, 1, 8, 16)
    assert images.dtype == captions.dtype == torch.int64
    texts = [decode_caption(tokens) for tokens in captions]
    for i in range(0, 4 * n, 17):
        brightness, name, side = texts[i].split()
        assert name == WORDS[2:12][labels[i % n]]
        digit = source[i % n, 0] if brightness == "bright" else source[i % n, 0] // 2
        left, right = images[i, 0, :, :8], images[i, 0, :, 8:]
        here, there = (left, right) if side == "left" else (right, left)
        assert torch.equal(here, digit)
        assert there.sum() == 0
    assert {*texts} == {*CAPTIONS}
    for k in range(10):  # each digit's images under each of its four captions
        assert sum(t == f"faint {WORDS[2 + k]} right" for t in texts) == (labels == k).sum()


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_held_out_is_not_among_the_seen(split):
    every, seen, unseen = (captioned_digits(split, which) for which in ("all", "seen", "unseen"))
    assert {decode_caption(tokens) for tokens in unseen.captions} == {*HELD_OUT}
    assert {decode_caption(tokens) for tokens in seen.captions} == {*CAPTIONS} - {*HELD_OUT}
    assert len(seen.images) + len(unseen.images) == len(every.images)
    assert rows(torch.cat([seen.images, unseen.images])) == rows(every.images)


def test_training_is_on_the_seen_unless_asked():
    assert torch.equal(captioned_digits().captions, captioned_digits("train", "seen").captions)


def test_no_digit_is_in_both_splits():
    train, test = (captioned_digits(split, "all").images for split in ("train", "test"))
    assert not rows(train) & rows(test)


@pytest.mark.parametrize(("split", "which"), [("valid", "all"), ("train", "held out")])
def test_other_parts_are_refused(split, which):
    with pytest.raises(ValueError, match="must be .*, got '(valid|held out)'"):
        captioned_digits(split, which)


# --- the judge --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_brightness_and_side_are_exact(judge, split):
    images, captions = captioned_digits(split, "all")
    said = judge(images)
    assert torch.equal(said[:, [0, 2]], captions[:, [0, 2]])


def test_the_judge_knows_its_own_error(judge):
    images, captions = captioned_digits("test", "all")
    right = judge.right(images, captions)
    assert 1 - right.double().mean().item() == pytest.approx(judge.error.value)
    assert judge.error.value < 0.02
    assert 0.004 < judge.error.standard_error < 0.01


def test_the_judge_has_seen_the_training_digits_alone(judge):
    """Of bright canvases it says what a classifier says that was trained here on no others."""
    images, labels = digits("train")
    classifier = SVC().fit(images.flatten(1).numpy(), labels.numpy())
    expected = classifier.predict(digits("test").images.flatten(1).numpy())
    images, captions = captioned_digits("test", "all")
    bright_left = (captions[:, 0] == 1) & (captions[:, 2] == WORDS.index("left"))
    assert (judge(images[bright_left])[:, 1] - 2).tolist() == expected.tolist()


def test_one_word_that_is_wrong_is_wrong(judge):
    images, captions = captioned_digits("test", "all")
    images, captions = (x[judge.right(images, captions)][:200] for x in (images, captions))
    assert judge.right(images, captions).all()
    for place, (low, high) in enumerate([(0, 2), (2, 12), (12, 14)]):
        other = captions.clone()
        other[:, place] = low + (other[:, place] - low + 1) % (high - low)
        assert not judge.right(images, other).any()
    assert judge.right(images, captions[0]).tolist() == (captions == captions[0]).all(1).tolist()


def test_equal_ink_is_on_no_side(judge):
    digit = digits("test").images[:1]
    images = torch.cat([torch.zeros(1, 1, 8, 16, dtype=torch.long), torch.cat([digit, digit], 3)])
    assert judge(images)[:, 2].tolist() == [-1, -1]
    assert not judge.right(images, encode_caption("bright zero left")).any()
    images[1, 0, 0, 15] += 1
    assert judge(images)[1, 2] == WORDS.index("right")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.long),
            r"shape \(2, 1, 8, 16\), got shape \(2, 1, 8, 8\)",
        ),
        (torch.zeros(0, 1, 8, 16, dtype=torch.long), "images must hold pixels, got an empty batch"),
        (torch.zeros(2, 1, 8, 16), "images must hold integers 0 to 16, got dtype"),
        (torch.full((2, 1, 8, 16), 17), "images must hold integers 0 to 16, got values"),
        ("an image", "images must be a torch.Tensor, got str"),
    ],
)
def test_the_judge_rejects_what_is_no_canvas(judge, images, message):
    with pytest.raises(ValueError, match=message):
        judge(images)


def test_captions_must_be_as_many_as_images(judge):
    images, captions = captioned_digits("test", "unseen")
    with pytest.raises(ValueError, match=r"shape \(142, 3\), one of each image, or \(3,\), got"):
        judge.right(images, captions[:5])
