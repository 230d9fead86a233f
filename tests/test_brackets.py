"""Brackets: the language by its grammar, its law by enumeration of all words."""

import itertools
import math

import pytest
import torch

from dgm_course.data import Brackets
from dgm_course.data.brackets import SYMBOLS

CASES = [(1, None, 8), (2, None, 6), (2, 2, 6), (3, 1, 4), (2, 3, 8), (4, None, 4), (1, 2, 10)]


def words(n_kinds, depth, length):
    """All words of a length by the grammar: "" or ( word ) word, `depth` pairs deep at most."""
    if length == 0:
        return [""]
    if depth == 0:
        return []
    return [
        f"{SYMBOLS[2 * kind]}{inner}{SYMBOLS[2 * kind + 1]}{rest}"
        for inside in range(0, length, 2)
        for inner in words(n_kinds, depth - 1, inside)
        for rest in words(n_kinds, depth, length - 2 - inside)
        for kind in range(n_kinds)
    ]


def every(n_kinds, max_depth, length):
    brackets = Brackets(n_kinds, max_depth)
    return brackets, sorted(words(n_kinds, max_depth or length, length))


@pytest.mark.parametrize(("n_kinds", "max_depth", "length"), CASES)
def test_the_words_are_those_of_the_grammar(n_kinds, max_depth, length):
    brackets, language = every(n_kinds, max_depth, length)
    symbols = itertools.product(range(2 * n_kinds), repeat=length)
    x = torch.tensor([*symbols])
    valid = brackets.is_valid(x)
    assert sorted(brackets.decode(x[valid])) == language
    assert brackets.count(length) == len(language)
    log_p = brackets.log_prob(x)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.equal(log_p.isfinite(), valid)


@pytest.mark.parametrize(("n_kinds", "max_depth", "length"), CASES)
def test_each_conditional_is_the_share_of_the_words_that_go_on_so(n_kinds, max_depth, length):
    brackets, language = every(n_kinds, max_depth, length)
    x = brackets.encode(*language)
    law = brackets.conditionals(x).exp()
    assert law.shape == (len(language), 2 * n_kinds, length)
    for t in range(length):
        prefixes = [word[:t] for word in language]
        for v in range(2 * n_kinds):
            follow = {p: sum(w.startswith(p + SYMBOLS[v]) for w in language) for p in {*prefixes}}
            share = torch.tensor([follow[p] / prefixes.count(p) for p in prefixes])
            torch.testing.assert_close(law[:, v, t], share.double())
    log_p = brackets.conditionals(x).gather(1, x[:, None]).sum((1, 2))
    torch.testing.assert_close(log_p, brackets.log_prob(x))


@pytest.mark.parametrize(("n_kinds", "max_depth", "length"), CASES)
def test_the_entropy_of_each_token_is_that_of_the_words(n_kinds, max_depth, length):
    brackets, language = every(n_kinds, max_depth, length)
    law = brackets.conditionals(brackets.encode(*language))
    expected = -torch.xlogy(law.exp(), law.exp()).sum(1).mean(0)
    torch.testing.assert_close(brackets.entropy(length), expected)
    assert brackets.entropy(length).sum().item() == pytest.approx(math.log(len(language)))


def test_counts_are_catalans_and_stay_whole():
    catalan = math.comb(1000, 500) // 501
    assert Brackets(1).count(1000) == catalan
    assert Brackets(3).count(1000) == catalan * 3**500
    assert Brackets(2).count(7) == 0
    entropy = Brackets(2).entropy(1000)
    expected = math.lgamma(1001) - 2 * math.lgamma(501) - math.log(501) + 500 * math.log(2)
    assert entropy.sum().item() == pytest.approx(expected, rel=1e-12)
    assert entropy[-1] == 0


@pytest.mark.parametrize(("n_kinds", "max_depth", "length"), [(2, None, 6), (2, 2, 6), (1, 3, 8)])
def test_words_are_drawn_evenly(n_kinds, max_depth, length):
    """χ² of all words in 20,000 draws, at a level of about 0.1 %."""
    brackets, language = every(n_kinds, max_depth, length)
    n = 20_000
    drawn = brackets.decode(brackets.sample(n, length, 1))
    found = torch.tensor([drawn.count(word) for word in language]).double()
    assert found.sum() == n
    chi2, freedom = (found - n / len(language)).square().sum() / (n / len(language)), len(language)
    assert chi2 < freedom + 3.1 * (2 * freedom) ** 0.5 + 5


def test_long_samples_are_words_and_come_from_the_seed():
    brackets = Brackets(4, max_depth=5)
    x = brackets.sample(200, 300, 0)
    assert x.shape == (200, 300)
    assert x.dtype == torch.int64
    assert brackets.is_valid(x).all()
    assert {*x.flatten().tolist()} == {*range(8)}
    assert torch.equal(x, brackets.sample(200, 300, torch.Generator().manual_seed(0)))
    torch.manual_seed(0)
    first = brackets.sample(2, 300)
    assert not torch.equal(first, brackets.sample(2, 300))
    depth = (1 - 2 * (x % 2)).cumsum(1)
    assert depth.max() == 5


def test_a_word_may_be_wrong_anywhere():
    brackets = Brackets(2, max_depth=2)
    x = brackets.encode("([])", "([)]", "(())", "()))", "((((", "))((", "([](", ")()(", "(][)")
    assert brackets.is_valid(x).tolist() == [True, False, True] + 6 * [False]
    deep = brackets.encode("((()))", "()(())")
    assert brackets.is_valid(deep).tolist() == [False, True]
    assert Brackets(2).is_valid(deep).tolist() == [True, True]
    assert not brackets.is_valid(brackets.encode("()(", "[](")).any()
    assert brackets.log_prob(brackets.encode("()(")).item() == -math.inf
    assert torch.equal(brackets.is_valid(x.to(torch.uint8)), brackets.is_valid(x))


def test_strings_are_tokens_and_back():
    brackets = Brackets(4)
    assert brackets.encode("<{[()]}>").tolist() == [[6, 4, 2, 0, 1, 3, 5, 7]]
    assert brackets.decode(torch.arange(8)[None]) == ["()[]{}<>"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Brackets(5), "n_kinds must be at most 4, got 5"),
        (lambda: Brackets(2, 0), "max_depth must be an int of at least 1, got 0"),
        (lambda: Brackets().sample(0, 4), "n must be an int of at least 1, got 0"),
        (lambda: Brackets().sample(1, 5), "length must be even, got 5"),
        (lambda: Brackets().entropy(3), "length must be even, got 3"),
        (lambda: Brackets().entropy(5000), "length must be at most 2048, got 5000"),
        (lambda: Brackets().sample(1, 4, 0.5), "seed must be an int"),
        (lambda: Brackets().is_valid(torch.tensor([0, 1])), r"shape \(N, T\), not empty, got \(2"),
        (lambda: Brackets().is_valid(torch.zeros(2, 0).long()), r"not empty, got \(2, 0\)"),
        (lambda: Brackets().log_prob(torch.tensor([[0.0, 1.0]])), "integers 0 to 3, got dtype"),
        (lambda: Brackets().log_prob(torch.tensor([[0, 4]])), "integers 0 to 3, got values from"),
        (lambda: Brackets().decode(torch.tensor([[-1, 4]])), "got values from -1 to 4"),
        (lambda: Brackets().conditionals(torch.tensor([[0, 1], [1, 0]])), "got 1 of 2 not valid"),
        (lambda: Brackets().encode(), r"strings of one length, not empty, got \(\)"),
        (lambda: Brackets().encode(""), "strings of one length, not empty"),
        (lambda: Brackets().encode("()", "("), "strings of one length"),
        (lambda: Brackets().encode(["()"]), "strings of one length"),
        (lambda: Brackets().encode("(){}"), r"words must be made of \(\)\[\], got '{}'"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
