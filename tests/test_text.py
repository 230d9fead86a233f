"""Text: counts by dictionary, compressors by themselves, byte pairs by lists."""

import bz2
import collections
import itertools
import lzma
import math

import pytest
import torch

from dgm_course.data import (
    BytePairs,
    compressed_nats,
    ngram_nats,
    pydoc_text,
    to_text,
    to_tokens,
    windows,
)

TRAIN, TEST = pydoc_text(), pydoc_text("test")
BOTH = torch.cat([TRAIN, TEST])


# --- the text ---------------------------------------------------------------------------------


def test_the_reference_comes_in_two_parts():
    from pydoc_data.topics import topics

    assert to_text(BOTH) == "".join(topics.values())
    assert TRAIN.dtype == torch.int64
    assert len(TRAIN) == len(BOTH) * 9 // 10
    assert 300_000 < len(BOTH) < 3_000_000
    assert 90 < len(BOTH.unique()) <= 256


def test_ngrams_of_the_reference_reach_what_the_lecture_says():
    """Three digits for the text of Python 3.11.7; other versions' are near."""
    nats = [ngram_nats(TRAIN, TEST, n).mean().item() for n in range(1, 6)]
    compressed = [compressed_nats(BOTH, "bz2"), compressed_nats(BOTH)]
    stated = [3.246, 2.314, 1.726, 1.483, 1.564, 1.161, 1.128]
    is_that_text = len(BOTH) == 466_117
    assert [*nats, *compressed] == pytest.approx(stated, abs=6e-4 if is_that_text else 0.25)


def test_text_is_bytes_and_back():
    text = "naïve → 'ß' \x00\n"
    assert to_tokens("aß").tolist() == [97, 0xC3, 0x9F]
    assert to_text(to_tokens(text)) == text
    assert to_text(torch.tensor([97, 0xC3, 98, 0xFF])) == "a�b�"
    assert to_text(to_tokens("ß")[:1].to(torch.uint8)) == "�"


def test_windows_are_rows_of_the_text():
    tokens = torch.arange(10)
    assert windows(tokens, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows(tokens, 5).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert windows(tokens, 8, 1).tolist() == [[*range(i, i + 8)] for i in range(3)]
    assert windows(tokens, 2, 4).tolist() == [[0, 1], [4, 5], [8, 9]]
    assert windows(tokens, 10, 1).data_ptr() == tokens.data_ptr(), "a view"


# --- references -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_ngrams_are_counted(n):
    generator = torch.Generator().manual_seed(n)
    x = 7 * torch.randint(4, (300,), generator=generator)
    x[280] = 100  # in the test alone
    train, test = x[:200].tolist(), x.tolist()
    counts = collections.Counter(tuple(train[i : i + n]) for i in range(201 - n))
    pasts = collections.Counter(tuple(train[i : i + n - 1]) for i in range(201 - n))
    expected = []
    for t in range(200, 300):
        gram = tuple(test[t - n + 1 : t + 1])
        expected.append(-math.log((counts[gram] + 0.3) / (pasts[gram[:-1]] + 0.3 * 5)))
    nats = ngram_nats(x[:200], x[200:], n, 0.3)
    torch.testing.assert_close(nats, torch.tensor(expected, dtype=torch.float64))


def test_an_ngrams_law_sums_to_1():
    """Over what may come next, for a past that was seen and for one that was not."""
    train = to_tokens("abracadabra")
    for past in ("ab", "dd"):
        tests = [to_tokens(past + letter) for letter in "abcdr"]
        nats = torch.stack([ngram_nats(train, test, 3)[-1] for test in tests])
        assert (-nats).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("method", "module"), [("bz2", bz2), ("lzma", lzma)])
def test_a_compressors_nats_are_its_bytes(method, module):
    tokens = TEST[:5000]
    data = bytes(tokens.tolist())
    n_bits = 8 * len(module.compress(data))
    assert compressed_nats(tokens, method) == pytest.approx(n_bits / 5000 * math.log(2))
    noise = torch.randint(256, (100_000,), generator=torch.Generator().manual_seed(0))
    assert compressed_nats(noise, method) == pytest.approx(math.log(256), rel=0.01)


# --- byte pairs -------------------------------------------------------------------------------


def merged(tokens, pair, new):
    out, i = [], 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return out


def learned(tokens, n_merges):
    merges = []
    for i in range(n_merges):
        counts = collections.Counter(itertools.pairwise(tokens))
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        tokens = merged(tokens, pair, 256 + i)
    return merges, tokens


@pytest.mark.parametrize("n_symbols", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_those_of_lists(n_symbols, seed):
    """Few symbols, so that runs and ties abound."""
    tokens = torch.randint(n_symbols, (200,), generator=torch.Generator().manual_seed(seed))
    n_merges = 4 if n_symbols == 1 else 12
    merges, left = learned(tokens.tolist(), n_merges)
    pairs = BytePairs(tokens.to(torch.uint8), n_merges)
    assert pairs.merges == merges
    assert pairs.n_tokens == 256 + n_merges
    assert pairs.encode(tokens.to(torch.uint8)).tolist() == left
    other = torch.randint(n_symbols, (99,), generator=torch.Generator().manual_seed(seed + 9))
    expected = other.tolist()
    for new, pair in enumerate(merges, 256):
        expected = merged(expected, pair, new)
    assert pairs.encode(other).tolist() == expected
    assert torch.equal(pairs.decode(pairs.encode(other)), other)


def test_a_run_is_merged_from_the_left():
    pairs = BytePairs(to_tokens("xaaaaay"), 1)
    assert pairs.merges == [(97, 97)]
    for text, expected in [("a", [97]), ("aaa", [256, 97]), ("baaaab", [98, 256, 256, 98])]:
        assert pairs.encode(to_tokens(text)).tolist() == expected


def test_any_bytes_come_back():
    pairs = BytePairs(TRAIN[:20_000], 60)
    for tokens in (TEST[:3000], torch.arange(256), torch.tensor([5])):
        assert torch.equal(pairs.decode(pairs.encode(tokens)), tokens)
    assert len(pairs.encode(TEST[:3000])) < 2100
    none = BytePairs(TRAIN[:10], 0)
    assert torch.equal(none.encode(TEST), TEST)


def test_nats_a_byte_are_all_nats_by_all_bytes():
    """A uniform model of tokens, and one by counts, against the sums by hand."""
    pairs = BytePairs(TRAIN[:20_000], 40)
    tokens = pairs.encode(TEST[:4000])
    uniform = torch.full((len(tokens),), math.log(296))
    expected = len(tokens) * math.log(296) / 4000
    assert pairs.nats_per_byte(uniform, tokens) == pytest.approx(expected, rel=1e-6)
    counts = collections.Counter(tokens.tolist())
    total = -sum(c * math.log(c / len(tokens)) for c in counts.values())
    nats = torch.tensor([-math.log(counts[token] / len(tokens)) for token in tokens.tolist()])
    assert pairs.nats_per_byte(nats, tokens) == pytest.approx(total / 4000, rel=1e-6)


def test_a_model_of_tokens_bounds_the_probability_of_its_bytes():
    """Of all ways of cutting a text into tokens the encoding is one: their sum is p(text)."""
    pairs = BytePairs(to_tokens("ababab"), 2)  # ab, abab
    p = {97: 0.2, 98: 0.3, 256: 0.4, 257: 0.1}

    def total(text):
        if not text:
            return 1.0
        words = {i: bytes(pairs.words[i].tolist()).decode() for i in p}
        fits = [i for i in p if text.startswith(words[i])]
        return sum(p[i] * total(text[len(words[i]) :]) for i in fits)

    for text in ("abab", "aabb", "ababab"):
        tokens = pairs.encode(to_tokens(text))
        nats = torch.tensor([-math.log(p[i]) for i in tokens.tolist()], dtype=torch.float64)
        assert pairs.nats_per_byte(nats, tokens) >= -math.log(total(text)) / len(text) - 1e-12
    assert total("abab") == pytest.approx(0.1 + 0.4**2 + 2 * 0.06 * 0.4 + 0.06**2)


# --- bad input --------------------------------------------------------------------------------

PAIRS = BytePairs(to_tokens("abab"), 1)
A = torch.tensor([1, 2, 3])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pydoc_text("valid"), "split must be 'train' or 'test', got 'valid'"),
        (lambda: to_tokens(""), "text must be a str, not empty, got ''"),
        (lambda: to_tokens(b"a"), "text must be a str, not empty, got b'a'"),
        (lambda: to_text(torch.tensor([1.0])), "tokens must hold integers 0 to 255, got dtype"),
        (lambda: to_text(torch.tensor([256])), "integers 0 to 255, got values from 256 to 256"),
        (lambda: to_text(A[None]), r"tokens must have shape \(T,\), not empty, got \(1, 3\)"),
        (lambda: to_text(A[:0]), r"not empty, got \(0,\)"),
        (lambda: windows(A, 4), "length must be at most that of tokens, 3, got 4"),
        (lambda: windows(A, 0), "length must be an int of at least 1, got 0"),
        (lambda: windows(A, 2, 0), "stride must be an int of at least 1, got 0"),
        (lambda: windows(A.double(), 2), "tokens must hold integers"),
        (lambda: ngram_nats(A, A, 4), "train must hold at least n = 4 tokens, got 3"),
        (lambda: ngram_nats(A, A, 0), "n must be an int of at least 1, got 0"),
        (lambda: ngram_nats(A[:0], A, 1), "train must have shape"),
        (lambda: ngram_nats(A, A.double(), 1), "test must hold integers"),
        (lambda: ngram_nats(A, A, 1, 0.0), "smoothing must be positive and finite, got 0.0"),
        (
            lambda: ngram_nats(torch.arange(256), A, 8),
            r"n must leave V \*\* n below 2 \*\* 63, got 256 \*\* 8",
        ),
        (lambda: compressed_nats(A, "gzip"), "method must be one of .*'bz2', 'lzma'.* got 'gzip'"),
        (lambda: compressed_nats(A + 255), "integers 0 to 255"),
        (lambda: BytePairs(A, 1), "n_merges must be at most 0, got 1: no pair"),
        (lambda: BytePairs(A[:1], 1), "n_merges must be at most 0, got 1: no pair"),
        (lambda: BytePairs(to_tokens("abab"), 2), "n_merges must be at most 1, got 2: no pair"),
        (lambda: BytePairs(A, 5000), "n_merges must be at most 2000, got 5000"),
        (lambda: BytePairs(A + 255, 1), "tokens must hold integers 0 to 255"),
        (lambda: PAIRS.encode(torch.tensor([256])), "tokens must hold integers 0 to 255"),
        (lambda: PAIRS.decode(torch.tensor([257])), "tokens must hold integers 0 to 256"),
        (lambda: PAIRS.nats_per_byte(A, A), "nats must hold floating-point numbers"),
        (lambda: PAIRS.nats_per_byte(A.double(), A[:2]), r"got \(3,\) and \(2,\)"),
        (lambda: PAIRS.nats_per_byte(A.double() + 300, A + 300), "integers 0 to 256"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
