import pytest
import torch

from dgm_course.autoregressive import (
    DiagonalBiLSTM,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
    RowLSTM,
    all_images,
)
from dgm_course.autoregressive.image_model import FullPass
from dgm_course.autoregressive.sampling import sample_pixels
from tests.autoregressive import (
    MODELS,
    NETWORKS,
    conditions,
    fit_independent,
    fitting,
    images,
    make,
)

FAMILIES = [PixelCNN, GatedPixelCNN, RowLSTM, DiagonalBiLSTM, PixelCNNPlusPlus, PixelSNAIL]


def cached_logits(model, x, **told):
    """The logits of every pixel, from the cache, while it is told the pixels of x."""
    n, n_channels, height, width = x.shape
    cache = model.cache(n, (height, width), **told)
    logits = torch.zeros(n, model.n_levels, n_channels, height, width, dtype=model.like.dtype)
    for i in range(height):
        cache.start_row()
        for j in range(width):
            for c in range(n_channels):
                logits[:, :, c, i, j] = cache.logits(j, c)
                cache.put(j, c, x[:, c, i, j])
    return logits


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(6, 7), (1, 5), (5, 1)])
@torch.no_grad()
def test_cached_logits_are_those_of_the_full_pass(name, size):
    model = make(name)
    size = fitting(model, size)
    x, told = images(model, 3, size), conditions(model, 3, size)
    expected = model(x, **told)
    torch.testing.assert_close(cached_logits(model, x, **told), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_channels", [1, 3])
@torch.no_grad()
def test_to_1e_5_in_float32_at_full_size(family, n_channels):
    torch.manual_seed(0)
    model = family(256, n_channels=n_channels)
    x = images(model, 2, fitting(model, (10, 9)))
    torch.testing.assert_close(cached_logits(model, x), model(x), atol=1e-5, rtol=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_same_pixels_as_with_a_full_pass_for_each(name):
    model = make(name)
    size = fitting(model, (5, 6))
    told, given = conditions(model, 4, size), torch.full((4, model.n_channels, *size), -1)
    slow = sample_pixels(FullPass(model, 4, size, **told), given, 1.0, generator())
    fast = model.sample(4, size, **told, generator=generator())
    assert fast.dtype == torch.int64
    assert torch.equal(fast, slow)


@pytest.mark.parametrize("name", NETWORKS)
def test_given_pixels_survive_and_act(name):
    model = make(name)
    size = fitting(model, (4, 5))
    told = conditions(model, 6, size)
    given = images(model, 6, size, seed=1)
    given[torch.rand(given.shape, generator=generator(2)) < 0.5] = -1
    kept = given.clone()
    x = model.sample(6, size, **told, given=given, generator=generator())
    assert torch.equal(given, kept), "the argument is left alone"
    assert torch.equal(x[given >= 0], given[given >= 0])
    assert (x >= 0).all()
    assert (x < model.n_levels).all()
    # What is drawn is drawn from the logits at the finished image.
    p = model(x, **told).softmax(1).gather(1, x[:, None]).squeeze(1)
    assert (p[given < 0] > 1e-6).all()
    slow = sample_pixels(FullPass(model, 6, size, **told), given, 1.0, generator())
    assert torch.equal(x, slow)


def test_nothing_is_drawn_where_all_is_given():
    model, g = make("plain"), generator()
    x = images(model, 3, (4, 4))
    before = g.get_state()
    assert torch.equal(model.sample(3, (4, 4), given=x, generator=g), x)
    assert torch.equal(g.get_state(), before)


def test_given_of_any_integer_dtype():
    model, given = make("plain"), torch.full((2, 1, 3, 3), -1, dtype=torch.int8)
    assert model.sample(2, (3, 3), given=given).dtype == torch.int64


@pytest.mark.parametrize("name", [*NETWORKS, "uniform", "independent"])
def test_frequencies_are_the_probabilities(name):
    """Every tiny image, and every class, as often as log_prob says."""
    model = fit_independent(3, (2, 2)) if name == "independent" else make(name)
    size, n = fitting(model, (2, 2) if model.n_channels == 1 else (1, 1)), 20_000
    n_told = model.n_classes or (1 if model.n_context is None else 2)
    told = conditions(model, n_told, size)  # so many classes, or contexts
    which = torch.arange(n) % n_told
    of_all = {k: v if v is None else v[which] for k, v in told.items()}
    x = model.sample(n, size, **of_all, generator=generator())
    candidates = all_images(model.n_levels, model.n_channels, size)
    codes = model.n_levels ** torch.arange(candidates[0].numel())
    for one in range(n_told):
        chosen = x[which == one]
        of_one = {k: v if v is None else v[[one] * len(candidates)] for k, v in told.items()}
        p = torch.zeros(len(candidates), dtype=torch.float64)
        p[(candidates.flatten(1) * codes).sum(1)] = (
            model.log_prob(candidates, **of_one).detach().exp()
        )
        counts = torch.bincount((chosen.flatten(1) * codes).sum(1), minlength=len(p))
        error = (counts - len(chosen) * p) / (len(chosen) * p).clamp_min(1).sqrt()
        assert error.abs().max() < 5, (one, error)


def test_temperature_divides_the_logits():
    model = make("plain-one-layer")
    logits = model(torch.zeros(1, 1, 1, 1, dtype=torch.long))[0, :, 0, 0, 0]
    for temperature in (0.25, 4.0):
        x = model.sample(20_000, (1, 1), temperature=temperature, generator=generator())
        expected = (logits / temperature).softmax(0)[1].item()
        assert abs(x.double().mean().item() - expected) < 5 * 0.5 / 20_000**0.5
    cold = model.sample(100, (1, 1), temperature=1e-3, generator=generator())
    assert (cold == logits.argmax()).all()


def test_samples_repeat_with_the_generator_and_not_without():
    model = make("gated")
    first = model.sample(4, (5, 5), generator=generator(1))
    assert torch.equal(first, model.sample(4, (5, 5), generator=generator(1)))
    assert not torch.equal(first, model.sample(4, (5, 5), generator=generator(2)))
    torch.manual_seed(3)
    of_global = model.sample(4, (5, 5))
    torch.manual_seed(3)
    assert torch.equal(of_global, model.sample(4, (5, 5)))


def test_a_cache_is_used_up_by_one_sample():
    """Two samples from one model share nothing: no state is left in the model."""
    model = make("plain")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = model.sample(2, (4, 4), generator=generator())
    model.sample(3, (6, 5), generator=generator(1))
    assert torch.equal(model.sample(2, (4, 4), generator=generator()), x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not x.requires_grad


@pytest.mark.parametrize("name", ["plain", "gated"])
def test_bad_arguments_are_refused(name):
    model = make(name)
    given = torch.full((2, 1, 4, 4), -1)
    for arguments, words in [
        ({"n": 0}, "n must be an int of at least 1, got 0"),
        ({"size": (4, 0)}, "size's width must be an int of at least 1, got 0"),
        ({"size": (4, 4, 4)}, r"\(H, W\), got \(4, 4, 4\)"),
        ({"given": given[:1]}, r"given must have shape \(2, 1, 4, 4\), got shape \(1, 1, 4, 4\)"),
        ({"given": given[:, :, :3]}, r"got shape \(2, 1, 3, 4\)"),
        ({"given": given[:, 0]}, r"got shape \(2, 4, 4\)"),
        ({"given": given - 1}, "given must hold integers -1 to 2, got values from -2 to -2"),
        ({"given": given + 4}, "got values from 3 to 3"),
        ({"given": given.float()}, "given must hold integers -1 to 2, got dtype torch.float32"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"temperature": -1.0}, "got -1.0"),
        ({"temperature": float("nan")}, "got nan"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.sample(**{"n": 2, "size": (4, 4)} | arguments)
