"""Images as grids of tokens and back: patch by patch by hand, k-means' own steps, the ceiling."""

import pytest
import torch

from dgm_course.codes import VQVAE, DiscreteVAE, ModelTokens, PatchTokens, VectorQuantizer
from dgm_course.data import CaptionJudge, captioned_digits


def images(n, size=(4, 6), channels=1, levels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (n, channels, *size), generator=generator)


def fitted(n_codes=6, patch=2, channels=1, n_steps=3):
    tokens = PatchTokens(n_codes, patch, n_levels=5, n_channels=channels).double()
    return tokens.fit(images(30, (4, 6), channels), n_steps, generator=0)


TOKENS = {
    "patches": fitted,
    "VQ-VAE": lambda: ModelTokens(VQVAE(5, VectorQuantizer(6, 2), n_features=4)),
    "dVAE": lambda: ModelTokens(DiscreteVAE(5, 6, 2, n_features=4)),
}


@pytest.fixture(params=TOKENS)
def tokens(request):
    torch.manual_seed(0)
    return TOKENS[request.param]()


# --- both -------------------------------------------------------------------------------------


def test_images_become_grids_and_grids_images(tokens):
    x = images(7)
    z = tokens.encode(x)
    assert z.shape == (7, 2, 3)
    assert z.dtype == torch.int64
    assert tokens.n_codes == 6
    assert 0 <= z.min() < z.max() < 6
    back = tokens.decode(z)
    assert back.shape == x.shape
    assert back.dtype == torch.int64
    assert 0 <= back.min() < back.max() < 5


def test_nothing_learns_from_being_read(tokens):
    before = {k: v.clone() for k, v in tokens.state_dict().items()}
    tokens.train()
    tokens.decode(tokens.encode(images(7)))
    assert all(torch.equal(v, before[k]) for k, v in tokens.state_dict().items())


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(2, 1, 2, 3, dtype=torch.long), r"z must have shape \(N, h, w\).* \(2, 1, 2, "),
        (torch.zeros(0, 2, 3, dtype=torch.long), r"z must have shape \(N, h, w\), not empty"),
        (torch.full((2, 2, 3), 6), "z must hold integers 0 to 5, got values from 6 to 6"),
        (torch.zeros(2, 2, 3), "z must hold integers 0 to 5, got dtype torch.float32"),
        ([[[0]]], "z must be a torch.Tensor, got list"),
    ],
)
def test_what_are_no_tokens_is_refused(tokens, z, message):
    with pytest.raises(ValueError, match=message):
        tokens.decode(z)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((2, 1, 4, 6), 5), "x must hold integers 0 to 4, got values from 5 to 5"),
        (torch.zeros(2, 1, 4, 6), "x must hold integers 0 to 4, got dtype torch.float32"),
        (torch.zeros(2, 4, 6, dtype=torch.long), r"x must have shape \(N, 1, H, W\)"),
        (torch.zeros(0, 1, 4, 6, dtype=torch.long), "empty"),
        (torch.zeros(2, 1, 4, 5, dtype=torch.long), "divisible by .*2.*, got 4 x 5"),
    ],
)
def test_what_are_no_images_is_refused(tokens, x, message):
    with pytest.raises(ValueError, match=message):
        tokens.encode(x)


# --- patches ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("patch", "channels"), [(1, 1), (2, 1), (2, 3)])
def test_a_token_is_the_code_nearest_to_its_patch(patch, channels):
    """One patch at a time, cut out and put back by hand."""
    tokens, x = fitted(5, patch, channels), images(4, (4, 6), channels, seed=1)
    z, codebook = tokens.encode(x), tokens.quantizer.codebook
    back = tokens.decode(z)
    assert z.shape == (4, 4 // patch, 6 // patch)
    for n in range(4):
        for i in range(4 // patch):
            for j in range(6 // patch):
                rows, columns = (slice(patch * k, patch * (k + 1)) for k in (i, j))
                cut = x[n, :, rows, columns].flatten().double()
                k = (codebook - cut).square().sum(1).argmin()
                assert z[n, i, j] == k
                assert torch.equal(back[n, :, rows, columns].flatten(), codebook[k].round().long())


def test_with_a_code_for_every_patch_nothing_is_lost():
    x = images(20, (4, 6), levels=2)
    tokens = PatchTokens(16, n_levels=2).fit(x, generator=0)
    assert torch.equal(tokens.decode(tokens.encode(x)), x)


def test_fit_is_k_means_of_the_patches():
    """Every step against a plain Lloyd step from where the one before it ended."""
    x = images(30)
    start = fitted(6, n_steps=1)
    patches = start.patches(x).flatten(0, 2)
    for n_steps in (2, 3, 4):
        before, after = fitted(6, n_steps=n_steps - 1), fitted(6, n_steps=n_steps)
        nearest = torch.cdist(patches, before.quantizer.codebook).argmin(1)
        means = torch.stack([patches[nearest == k].mean(0) for k in range(6)])
        torch.testing.assert_close(after.quantizer.codebook, means)
    assert not after.quantizer.training


def test_more_codes_than_patches_are_refused():
    x = torch.zeros(3, 1, 4, 6, dtype=torch.long)
    with pytest.raises(ValueError, match="at least n_codes = 2 different vectors, got 1 in 18"):
        PatchTokens(2).fit(x)


def test_at_least_97_of_100_canvases_are_still_right_after_the_way_through_tokens():
    """The ceiling of whatever draws with these tokens; over ten seeds .970 to .980, mean .976."""
    judge, (images, captions) = CaptionJudge(), captioned_digits("test", "all")
    shares = []
    for seed in (0, 1):
        tokens = PatchTokens(64).fit(captioned_digits().images, generator=seed)
        drawn = tokens.decode(tokens.encode(images))
        shares.append(judge.right(drawn, captions).double().mean().item())
    assert sum(shares) / 2 >= 0.97


# --- models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["VQ-VAE", "dVAE"])
def test_a_models_tokens_are_its_codes_and_back_its_likeliest_levels(name):
    torch.manual_seed(0)
    tokens, x = TOKENS[name](), images(7)
    z = tokens.model.encode(x)
    assert torch.equal(tokens.encode(x), z[:, 0])
    assert torch.equal(tokens.decode(z[:, 0]), tokens.model.decode(z).argmax(1))


def test_another_object_is_no_model():
    with pytest.raises(ValueError, match="model must be a CodeModel, got VectorQuantizer"):
        ModelTokens(VectorQuantizer(4, 2))
