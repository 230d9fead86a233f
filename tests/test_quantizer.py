"""The quantiser against brute force, Lloyd's algorithm, the paper's two averages, and autograd."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dgm_course.checks import unchecked_values
from dgm_course.codes import VectorQuantizer, quantizer


def brute_force(h, codebook):
    """The lowest index of the least distance, by differences in float64, of the same numbers."""
    return (h.double()[..., None, :] - codebook.double()).square().sum(-1).argmin(-1)


def make(n_codes=7, dim=3, seed=0, **settings):
    torch.manual_seed(seed)
    return VectorQuantizer(n_codes, dim, **settings).double()


def vectors(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def put(quantizer, codebook):
    with torch.no_grad():
        quantizer.codebook.copy_(torch.as_tensor(codebook))
    return quantizer


# --- the nearest code -------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 3, 17])
@pytest.mark.parametrize("n_codes", [1, 2, 33])
def test_the_nearest_code_is_brute_forces(n_codes, dim):
    q, h = make(n_codes, dim), vectors(4, 5, 6, dim)
    codes, indices, terms = q.eval()(h)
    expected = brute_force(h, q.codebook)
    assert torch.equal(indices, expected)
    assert torch.equal(q.nearest(h), expected)
    assert torch.equal(codes, q.codebook[expected]), "the code to the bit"
    squared = (h - q.codebook[expected]).square().sum(-1)
    torch.testing.assert_close(terms.commitment, 0.25 * squared)
    assert (terms.codebook == 0).all()
    torch.testing.assert_close(terms.loss, 0.25 * squared)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4])
def test_float32_picks_the_nearest_far_from_the_origin(offset):
    torch.manual_seed(0)
    q = put(VectorQuantizer(64, 8), offset + torch.randn(64, 8))
    h = offset + torch.randn(5000, 8)
    assert (q.nearest(h) == brute_force(h, q.codebook)).all()
    # What is moved there is as exact: a code is the mean of its vectors.
    q.decay = 0.0
    _, indices, _ = q(h)
    means = torch.stack([h.double()[indices == k].mean(0) for k in indices.unique()])
    error = (q.codebook[indices.unique()].double() - means).abs().max().item()
    assert error <= 2 * np.spacing(np.float32(offset + 4))


def test_ties_go_to_the_lowest_index():
    lattice = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    q = put(VectorQuantizer(16, 2), lattice)
    edges = torch.cartesian_prod(torch.arange(0, 3.5, 0.5), torch.arange(0, 3.5, 0.5))
    assert torch.equal(q.nearest(edges), brute_force(edges, lattice))
    for n_codes, dim in ((5, 64), (17, 8), (1023, 3)):  # a product may round equal columns apart
        torch.manual_seed(n_codes)
        q = VectorQuantizer(n_codes, dim)
        q.codebook[-1] = q.codebook[n_codes // 2] = q.codebook[0]
        h = q.codebook[0] + 0.3 * torch.randn(500, dim)
        chosen = q.nearest(h)
        assert (chosen == 0).sum() > 10
        assert torch.equal(chosen, brute_force(h, q.codebook))


def test_chunks_change_nothing(monkeypatch):
    q, h = make(50, 4), vectors(1000, 4)
    whole = q.nearest(h)
    monkeypatch.setattr(quantizer, "CHUNK", 321)
    assert torch.equal(q.nearest(h), whole)
    monkeypatch.setattr(quantizer, "CHUNK", 1)  # fewer than the codes: one vector at a time
    assert torch.equal(q.nearest(h[:40]), whole[:40])


# --- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_gradient_is_copied(update):
    """What follows hands its gradient by the code to h, as autograd finds it; no more, no less."""
    q, h = make(update=update, commitment=0.7).eval(), vectors(5, 3).requires_grad_()
    follow = lambda e: (e.sin() * e.prod(1, keepdim=True)).sum()  # noqa: E731
    codes, indices, terms = q(h)
    (found,) = torch.autograd.grad(follow(codes), h, retain_graph=True)
    leaf = q.codebook[indices].detach().requires_grad_()
    (expected,) = torch.autograd.grad(follow(leaf), leaf)
    assert torch.equal(found, expected)
    (found,) = torch.autograd.grad(terms.loss.sum(), h, retain_graph=True)
    torch.testing.assert_close(found, 2 * 0.7 * (h - leaf).detach(), rtol=1e-13, atol=0)
    (found,) = torch.autograd.grad((codes.sum() + terms.codebook.sum()), h, retain_graph=True)
    assert (found == 1).all(), "the codebook's term is none of the encoder's"


def test_the_gradient_rule_moves_codes_by_their_own_term_alone():
    q, h = make(update="gradient").eval(), vectors(20, 3).requires_grad_()
    codes, indices, terms = q(h)
    loss = codes.square().sum() + terms.commitment.sum()
    assert torch.autograd.grad(loss, q.codebook, retain_graph=True, allow_unused=True)[0] is None
    (found,) = torch.autograd.grad(terms.codebook.sum(), q.codebook)
    expected = torch.zeros(7, 3).double()
    for n, k in enumerate(indices):
        expected[k] += 2 * (q.codebook[k] - h[n]).detach()
    torch.testing.assert_close(found, expected)
    assert [name for name, _ in q.named_parameters()] == ["codebook"]
    assert not [*make(update="ema").parameters()]


# --- averages ---------------------------------------------------------------------------------


def lloyd(h, codebook):
    nearest = brute_force(h, codebook)
    means = [h[nearest == k].mean(0) if (nearest == k).any() else c for k, c in enumerate(codebook)]
    return torch.stack(means)


def test_without_a_decay_a_call_is_a_step_of_lloyds():
    q, h = make(9, 2, decay=0.0), vectors(300, 2)
    q.codebook[8] = 50.0  # chosen by none: it stays
    expected = q.codebook.clone()
    for _ in range(12):
        expected = lloyd(h, expected)
        before = q.codebook.clone()
        codes, indices, _ = q(h)
        assert torch.equal(codes, before[indices]), "read before it is moved"
        torch.testing.assert_close(q.codebook, expected, rtol=0, atol=1e-13)
    assert (q.codebook[8] == 50).all()


def test_the_inertia_is_at_most_one_percent_above_lloyds():
    """Batches of 256, 1,000 steps, decay 0.9, from one start; noise may find a better optimum."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(16, 2, generator=generator).double()
    h = centres[torch.randint(16, (4000,), generator=generator)] + vectors(4000, 2)
    inertia = lambda c: (h[:, None] - c).square().sum(-1).amin(1).mean().item()  # noqa: E731
    q = make(8, 2, decay=0.9).initialise(h, 0)
    expected = q.codebook.clone()
    for _ in range(60):
        expected = lloyd(h, expected)
    for _ in range(1000):
        q(h[torch.randint(4000, (256,), generator=generator)])
    assert inertia(q.codebook) <= 1.01 * inertia(expected)


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_averages_are_the_papers(decay):
    """m and N kept side by side, as printed, from one vector on each code."""
    q = make(decay=decay)
    count, total, codebook = torch.ones(7).double(), q.codebook.clone(), q.codebook.clone()
    for step in range(30):
        h = vectors(4, 10, 3, seed=step)
        flat = h.reshape(-1, 3)
        hot = nn.functional.one_hot(brute_force(flat, codebook), 7).double()
        count = decay * count + (1 - decay) * hot.sum(0)
        total = decay * total + (1 - decay) * hot.T @ flat
        codebook = total / count[:, None]
        q(h)
        torch.testing.assert_close(q.codebook, codebook, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(q.counts, count)


def test_codes_stay_in_the_hull_of_data_and_start():
    """With counts from 0 those that the first batch misses fly far away, and are dead for good."""
    q, h = make(64, 4, decay=0.99), vectors(32, 4)
    limit = max(h.norm(dim=1).max().item(), q.codebook.norm(dim=1).max().item())
    for step in range(300):
        q(h + 0.01 * step / 300)
        assert q.codebook.norm(dim=1).max().item() <= limit + 0.02
    q.counts.mul_(1e-320)  # a code missed for very long; its count is no divisor any more
    q(h)
    assert q.codebook.isfinite().all()


def test_nothing_moves_but_by_a_call_in_training():
    q, h = make(decay=0.5, restart=0.9), vectors(5, 3)
    state = {name: value.clone() for name, value in q.state_dict().items()}
    q.nearest(h), q.codes(q.nearest(h)), q.eval()(h)
    assert all(torch.equal(value, q.state_dict()[name]) for name, value in state.items())
    q.train()(h)
    assert not torch.equal(state["codebook"], q.codebook)
    other = make(seed=5)
    other.load_state_dict(q.state_dict())
    assert torch.equal(other.nearest(vectors(99, 3)), q.nearest(vectors(99, 3)))


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_dead_codes_are_put_on_vectors_of_the_batch(update):
    q = put(make(4, 2, update=update, decay=0.5, restart=0.2), [[0.0, 0], [9, 9], [-9, 9], [9, -9]])
    h = 0.1 * vectors(6, 2).requires_grad_()
    far = q.codebook[1:].clone()
    for _ in range(2):
        q(h)
        assert torch.equal(q.codebook[1:], far), "counts of ½, ¼: alive"
    assert q.counts.tolist() == [0.25 + 0.75 * 6, 0.25, 0.25, 0.25]
    first = q.codebook[0].detach().clone()
    codes, indices, terms = q(h)  # ⅛ < 0.2
    assert (indices == 0).all()
    assert (codes == first).all(), "the answer is of the codes before"
    assert all((h == e).all(1).any() for e in q.codebook[1:])
    assert (q.counts[1:] == 1).all()
    assert q.counts[0] > 4
    step = 3 / q.counts[0] * (h.detach().mean(0) - first) if update == "ema" else 0
    torch.testing.assert_close(q.codebook[0].detach(), first + step)
    terms.loss.sum().backward()  # no longer the codes that were read, but the same gradients


def test_a_batch_that_is_not_finite_spoils_nothing():
    """Our training loop reads no values: its loss is NaN, and the codebook is as before."""
    q, h = make(decay=0.5, restart=0.6), vectors(5, 3)
    before = {name: value.clone() for name, value in q.state_dict().items()}
    h[2, 1] = math.nan
    with unchecked_values():
        codes, _, terms = q(h)
    assert codes.isnan().any()
    assert terms.loss.isnan().any()
    assert all(torch.equal(value, q.state_dict()[name]) for name, value in before.items())


# --- starts and measures ----------------------------------------------------------------------


def test_it_starts_from_different_vectors():
    q, h = make(5, 2), torch.tensor([[0.0, 0]] * 50 + [[1, 0], [0, 1], [2, 0], [0, 2]]).double()
    q.counts.fill_(7)
    assert q.initialise(h.reshape(6, 9, 2), 0) is q
    assert sorted(map(tuple, q.codebook.tolist())) == sorted({*map(tuple, h.tolist())})
    assert (q.counts == 1).all()
    first = make(3, 2).initialise(h, 4).codebook
    assert torch.equal(first, make(3, 2, seed=9).initialise(h, 4).codebook)
    assert not torch.equal(first, make(3, 2).initialise(h, 5).codebook)
    with pytest.raises(ValueError, match="at least n_codes = 6 different vectors, got 5 in 54"):
        make(6, 2).initialise(h)


def test_perplexity_and_usage():
    q = make(8)
    assert q.perplexity(torch.arange(8).repeat(3)) == pytest.approx(8)
    assert q.perplexity(torch.tensor([5])) == 1
    share = np.array([0.5, 0.25, 0.25])
    indices = torch.tensor([[0, 0], [3, 7]])
    assert q.perplexity(indices) == pytest.approx(math.exp(-(share * np.log(share)).sum()))
    assert q.usage(indices) == 3


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_codes": 0}, "n_codes must be an int of at least 1, got 0"),
        ({"dim": 1.5}, "dim must be an int"),
        ({"update": "mean"}, "update must be 'ema' or 'gradient', got 'mean'"),
        ({"decay": 1.0}, "decay must be below 1, got 1.0"),
        ({"decay": -0.1}, "decay must be at least 0"),
        ({"commitment": -1.0}, "commitment must be at least 0"),
        ({"restart": 0.0}, "restart must be positive"),
        ({"restart": 2.0}, "restart must be None or at most 1, got 2.0"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        VectorQuantizer(**{"n_codes": 4, "dim": 2, **settings})


@pytest.mark.parametrize(
    ("h", "words"),
    [
        (torch.zeros(5, 4), r"h must have shape \(..., N, 3\), the codebook's dim, got .*\(5, 4\)"),
        (torch.zeros(3), r"got shape \(3,\)"),
        (torch.zeros(0, 3), r"at least one vector, got shape \(0, 3\)"),
        (torch.zeros(2, 3).double(), "h must have the codebook's dtype, torch.float32, got"),
        (torch.zeros(2, 3).long(), "dtype, torch.float32, got torch.int64"),
        (torch.tensor([[0, math.nan, 0], [0, 0, 0]]), "NaN or inf in 1 of 2 vectors"),
        (torch.full((2, 2, 3), math.inf), "NaN or inf in 4 of 4 vectors"),
        ([[0.0, 0, 0]], "h must be a torch.Tensor, got list"),
    ],
)
def test_bad_vectors_are_named(h, words):
    q = VectorQuantizer(4, 3)
    for call in (q, q.nearest, q.initialise):
        with pytest.raises(ValueError, match=words):
            call(h)


@pytest.mark.parametrize("method", ["codes", "perplexity", "usage"])
def test_bad_indices_are_named(method):
    call = getattr(VectorQuantizer(4, 3), method)
    with pytest.raises(ValueError, match="indices must hold integers 0 to 3, got values from 0 to"):
        call(torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="indices must hold integers 0 to 3, got dtype"):
        call(torch.zeros(3))
    if method != "codes":
        with pytest.raises(ValueError, match="indices must not be empty"):
            call(torch.zeros(0, dtype=torch.long))
