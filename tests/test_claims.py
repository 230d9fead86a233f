import numpy as np
import pytest
import torch

from dgm_course.claims import ClaimError, check, claim


@pytest.mark.parametrize(
    ("value", "band", "printed"),
    [
        (0.01, {"below": 0.02}, "below 0.02"),
        (3, {"equals": 3}, "exactly 3"),
        (2.9, {"equals": 3, "within": 0.2}, "equals 3 within 0.2"),
        (torch.tensor([0.5, 0.7]), {"above": 0.1, "below": 1}, "above 0.1 and below 1"),
        (np.zeros(3), {"equals": 0}, "exactly 0"),
    ],
)
def test_a_claim_that_holds_prints_its_band_and_not_the_measurement(capsys, value, band, printed):
    claim("the sentence", value, **band)
    assert capsys.readouterr().out == f"✓ the sentence [{printed}]\n"


@pytest.mark.parametrize(
    ("value", "band", "words"),
    [
        (0.03, {"below": 0.02}, "expected below 0.02, measured 0.03"),
        (0.02, {"below": 0.02}, "below 0.02"),
        (0.0, {"above": 0.0}, "above 0"),
        (2.5, {"equals": 3, "within": 0.2}, "equals 3 within 0.2, measured 2.5"),
        (float("nan"), {"below": 1}, "measured nan"),
        ([0.5, 1.5, 2.5], {"below": 1}, "2 of 3 values outside, between 1.5 and 2.5"),
        ([0.5, -1.0], {"above": 0, "below": 1}, "1 of 2 values outside"),
    ],
)
def test_a_claim_that_fails_says_both(value, band, words):
    with pytest.raises(ClaimError, match=words):
        claim("the sentence", value, **band)


@pytest.mark.parametrize(
    "band", [{"below": 1}, {"above": 1}, {"equals": 1}, {"equals": 1, "within": 9.0}]
)
def test_nan_is_in_no_band(band):
    with pytest.raises(ClaimError, match="measured nan"):
        claim("the sentence", float("nan"), **band)


def test_a_claim_that_fails_closely_shows_by_how_much():
    with pytest.raises(ClaimError, match="measured 5.000001"):
        claim("the sentence", 5.000001, equals=5, within=1e-9)


def test_a_claim_takes_a_tensor_with_gradients(capsys):
    claim("the sentence", torch.ones(2, requires_grad=True), equals=1)
    assert capsys.readouterr().out == "✓ the sentence [exactly 1]\n"


def test_a_claim_without_a_band_or_a_value_is_refused():
    with pytest.raises(ValueError, match="needs a band"):
        claim("anything", 1.0)
    with pytest.raises(ValueError, match="empty"):
        claim("nothing", [], below=1)


def test_quick_leaves_claims_about_training_unchecked_and_says_so(capsys, monkeypatch):
    monkeypatch.setenv("DGM_COURSE_QUICK", "1")
    claim("trained", 5.0, below=1, trained=True)
    assert "not checked: DGM_COURSE_QUICK is set" in capsys.readouterr().out
    with pytest.raises(ClaimError):
        claim("exact", 5.0, below=1)


def test_claims_about_training_are_checked_without_quick(capsys, monkeypatch):
    monkeypatch.delenv("DGM_COURSE_QUICK", raising=False)
    claim("trained", 0.5, below=1, trained=True)
    assert capsys.readouterr().out == "✓ trained [below 1]\n"
    with pytest.raises(ClaimError):
        claim("trained", 5.0, below=1, trained=True)


ABOUT = {
    "expected": "a positive number",
    "why": "Lengths are positive.",
    "hint": "Look at the sign.",
    "name": "length",
}


def test_an_unanswered_exercise(capsys):
    check(..., lambda answer: 1 / 0, **ABOUT)
    assert capsys.readouterr().out == "length: not answered yet\n"


@pytest.mark.parametrize("verdict", [True, np.bool_(True), torch.tensor(True)])
def test_a_right_answer(capsys, verdict):
    check(2.0, lambda answer: verdict, **ABOUT)
    assert capsys.readouterr().out == "✓ length: right. Lengths are positive.\n"


@pytest.mark.parametrize(
    ("answer", "test", "came"),
    [
        (-2.0, lambda a: a > 0, "got -2"),
        (-2.0, lambda a: "its sign is wrong", "its sign is wrong"),
        ("x", lambda a: a > 0, "the check met TypeError: '>' not supported"),
        ("x" * 100, lambda a: False, "got 'xxxx"),
        (1.0, lambda a: np.bool_(False), "got 1"),
    ],
)
def test_a_wrong_answer_hears_what_was_expected_what_came_and_a_hint(capsys, answer, test, came):
    check(answer, test, **ABOUT)
    printed = capsys.readouterr().out
    assert printed.startswith(f"✗ length: not yet. Expected a positive number; {came}")
    assert printed.endswith("Hint: Look at the sign.\n")
    assert ABOUT["why"] not in printed  # there is a second try
    assert len(printed) < 250


def test_an_array_may_be_the_answer(capsys):
    check(np.ones(3), lambda answer: (answer == 1).all(), **ABOUT)
    assert capsys.readouterr().out.startswith("✓")


def test_a_long_answer_is_cut_short(capsys):
    check("x" * 100, lambda answer: False, **ABOUT)
    printed = capsys.readouterr().out
    assert "x" * 50 in printed
    assert "x" * 60 not in printed


@pytest.mark.parametrize("verdict", [None, ""])
def test_a_test_that_says_nothing_is_refused(verdict):
    with pytest.raises(TypeError, match="test must return"):
        check(2.0, lambda answer: verdict, **ABOUT)


def test_a_check_leaves_the_stream_of_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check(2.0, lambda answer: bool((torch.randn(5) < 100).all()), **ABOUT)
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)


# --- right mathematics is not refused for its type -------------------------------------------


def doubles(answer):
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(answer(x), 2 * x, atol=1e-6, rtol=0)
    return torch.equal(x, torch.tensor([1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: 2 * x,
        lambda x: 2 * x.numpy(),
        lambda x: np.array([2, 4], dtype=np.float32),
        lambda x: (2 * x).float(),
        lambda x: [2 * float(v) for v in x],
        lambda x: [2 * v for v in x],
        lambda x: x.mul_(2),
    ],
    ids=["tensor", "numpy", "numpy float32", "float32", "list", "list of tensors", "in place"],
)
def test_a_function_is_judged_by_its_values(capsys, answer):
    check(answer, doubles, **ABOUT)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize("answer", [lambda x: 3 * x, lambda x: x.mul_(3), lambda x: [2.0]])
def test_other_values_are_refused_and_no_address_is_printed(capsys, answer):
    check(answer, lambda a: torch.equal(a(torch.ones(2)), 2 * torch.ones(2)), **ABOUT)
    printed = capsys.readouterr().out
    assert printed.startswith("✗")
    assert "0x" not in printed


@pytest.mark.parametrize("answer", [[1, 2], (1.0, 2.0), np.array([1, 2]), np.array([1.0, 2.0])])
def test_numbers_in_a_row_compare_in_any_container(capsys, answer):
    check(answer, lambda a: sum(a) == 3 and a[1] == 2, **ABOUT)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize("pair", [tuple, list])
def test_a_pair_stays_a_pair_and_gradients_pass(capsys, pair):
    x = torch.ones(2, requires_grad=True)

    def test(answer):
        value, log_det = answer(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        assert gradient.tolist() == [2, 2]
        return log_det.dtype == torch.float32

    check(lambda x: pair((2 * x, np.zeros(2))), test, **ABOUT)
    assert capsys.readouterr().out.startswith("✓")
