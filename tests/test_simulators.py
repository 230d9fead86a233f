"""The epidemic's likelihood against closed forms, the triangular equations, and its own draws."""

import math

import pytest
import torch

from dgm_course.data import Epidemic


def escape(model, z):
    return 1 / (1 + math.exp(z + model.offset))


def table(model, z):
    return model.distribution(torch.tensor([z], dtype=torch.float64))[0]


@pytest.mark.parametrize("z", [-2.0, 0.0, 1.0, 4.0])
def test_two_people_by_hand(z):
    """q² for both; one falls ill and the other escapes twice; 1 − the rest."""
    model = Epidemic(2, offset=0.0)
    q = escape(model, z)
    none, one = q**2, 2 * (1 - q) * q * q
    expected = torch.tensor([none, one, 1 - none - one], dtype=torch.float64)
    torch.testing.assert_close(table(model, z), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [1, 3, 8, 12])
@pytest.mark.parametrize("z", [-1.5, 0.0, 1.5])
def test_the_triangular_equations_of_the_final_size(n, z):
    """Σ_{j≤k} C(n − j, k − j) P_j / q^{(n−k)(j+1)} = C(n, k), k = 0 … n: another derivation."""
    model = Epidemic(n)
    p, q = table(model, z).tolist(), escape(model, z)
    for k in range(n + 1):
        terms = [math.comb(n - j, k - j) * p[j] / q ** ((n - k) * (j + 1)) for j in range(k + 1)]
        assert sum(terms) == pytest.approx(math.comb(n, k), rel=1e-8)


def test_the_simulator_draws_what_is_enumerated():
    model, n = Epidemic(10), 40_000
    for z in (-1.0, 0.5):
        x = model.simulate(torch.full((n, 1), z), generator=1)
        share = torch.bincount((10 * x[:, 0]).round().long(), minlength=11) / n
        expected = table(model, z)
        chi_squared = n * ((share - expected).square() / expected).sum().item()
        assert chi_squared < 30  # of 10 degrees of freedom: P = 0.001


def test_everything_has_probability_one_also_far_out():
    model = Epidemic(30)
    p = model.distribution(torch.tensor([[-40.0, -5.0], [5.0, 60.0]]))
    assert p.shape == (2, 2, 31)
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 2).double(), atol=1e-10, rtol=0)
    assert p[0, 0, 0] == pytest.approx(1)
    assert p[1, 1, 30] == pytest.approx(1)


def test_the_likelihood_reads_the_table():
    model, z = Epidemic(4), torch.tensor([[[0.3], [-0.2]], [[1.0], [0.0]], [[2.0], [0.1]]])
    found = model.log_likelihood(torch.tensor([[0.25], [1.0]]), z)
    assert found.shape == (3, 2)
    assert found.dtype == torch.float32
    for s in range(3):
        for i, count in enumerate((1, 4)):
            expected = table(model, z[s, i].item())[count].log().item()
            assert found[s, i].item() == pytest.approx(expected, abs=1e-5)


def test_one_seed_one_epidemic():
    z = torch.zeros(50, 1)
    first, again = (Epidemic().simulate(z, generator=3) for _ in range(2))
    assert torch.equal(first, again)
    torch.manual_seed(0)
    other = Epidemic().simulate(z)
    assert not torch.equal(first, other)


def test_simulators_refuse():
    model, z = Epidemic(4), torch.zeros(1, 2, 1)
    with pytest.raises(ValueError, match="n_people must be an int"):
        Epidemic(0)
    with pytest.raises(ValueError, match="offset must be finite"):
        Epidemic(offset=math.nan)
    for x in (0.3, 1.25, -0.25):
        with pytest.raises(ValueError, match="x must hold multiples of 1/4 from 0 to 1"):
            model.log_likelihood(torch.tensor([[x], [0.5]]), z)
    with pytest.raises(ValueError, match=r"z must have shape \(S, 3, 1\), got \(1, 2, 1\)"):
        model.log_likelihood(torch.zeros(3, 1), z)
    with pytest.raises(ValueError, match=r"z must have shape \(N, 1\)"):
        model.simulate(torch.zeros(3, 2))
