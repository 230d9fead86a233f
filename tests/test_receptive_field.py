import pytest
import torch

from dgm_course.autoregressive import (
    GatedPixelCNN,
    PixelCNN,
    blind_pixels,
    causal_mask,
    compose,
    count_blind,
    visible_by_formula,
    visible_by_gradient,
    visible_pixels,
)
from tests.autoregressive import strong

FAMILIES = {"plain": PixelCNN, "gated": GatedPixelCNN}


def walks(masks):
    """The pixels at the end of some walk, one open offset a layer: by enumeration, as sets."""
    ends = {(0, 0)}
    for mask in masks:
        r = mask.shape[0] // 2, mask.shape[1] // 2
        steps = [(a - r[0], b - r[1]) for a, b in mask.nonzero().tolist()]
        ends = {(i + a, j + b) for i, j in ends for a, b in steps}
    return ends


@pytest.mark.parametrize("k", [3, 5, 7])
@pytest.mark.parametrize("n_layers", range(1, 7))
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_and_closed_form_agree(family, k, n_layers):
    model = FAMILIES[family](2, n_features=1, n_layers=n_layers, kernel_size=k)
    field = visible_pixels(model)
    expected = visible_by_formula(k, n_layers, gated=family == "gated")
    assert torch.equal(field, expected)
    blind = 0 if family == "gated" else k // 2 * n_layers * (n_layers - 1) // 2
    assert count_blind(field) == blind
    assert blind_pixels(k, n_layers) == k // 2 * n_layers * (n_layers - 1) // 2


@pytest.mark.parametrize("k", [3, 5, 7])
@pytest.mark.parametrize("n_layers", range(1, 7))
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_agrees(family, k, n_layers):
    torch.manual_seed(0)
    model = strong(FAMILIES[family](2, n_features=8, n_layers=n_layers, kernel_size=k))
    assert torch.equal(visible_by_gradient(model), visible_pixels(model))


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("types", ["A", "AB", "ABBB", "AAA", "BBB"])
def test_composition_is_the_set_of_all_walks(k, types):
    masks = [causal_mask(k, mask_type) for mask_type in types]
    field = compose(masks)
    centre = field.shape[0] // 2
    found = {(i - centre, j - centre) for i, j in field.nonzero().tolist()}
    assert found == walks(masks)


def test_type_a_beyond_the_first_layer_loses_the_nearest_pixels():
    good = compose([causal_mask(3, t) for t in "ABB"])
    bad = compose([causal_mask(3, t) for t in "AAA"])
    assert good[3, 2]
    assert not bad[3, 2], "the left neighbour"
    assert not bad[2, 3], "the one above"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_masks_open_is_seen(family):
    """Neither way takes the model's word: both look at the masks that are there."""
    model = strong(FAMILIES[family](2, n_features=4, n_layers=2))
    layer = model.first if family == "plain" else model.layers[0].horizontal
    layer.mask.fill_(1)
    for field in (visible_pixels(model), visible_by_gradient(model)):
        assert field[2, 2]
        assert not torch.equal(field, visible_by_formula(3, 2, gated=family == "gated"))


@pytest.mark.parametrize("family", FAMILIES)
def test_channels_count_as_one_pixel(family):
    model = strong(FAMILIES[family](2, n_channels=3, n_features=9, n_layers=2))
    expected = visible_by_formula(3, 2, gated=family == "gated")
    expected[2, 2] = True  # G and B see R
    assert torch.equal(visible_pixels(model), expected)
    assert torch.equal(visible_by_gradient(model), expected)
    assert count_blind(expected) == (1 if family == "plain" else 0)


def test_of_a_conditional_model():
    for told in ({"n_classes": 3}, {"n_context": 2}):
        model = strong(GatedPixelCNN(2, n_features=4, n_layers=2, **told))
        assert torch.equal(visible_by_gradient(model), visible_by_formula(3, 2, gated=True))
