import pytest
import torch

from dgm_course.autoregressive import (
    DiagonalBiLSTM,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
    RowLSTM,
    blind_pixels,
    causal_mask,
    compose,
    count_blind,
    sees_by_gradient,
    visible_by_diagonal_bilstm,
    visible_by_formula,
    visible_by_gradient,
    visible_by_row_lstm,
    visible_in,
    visible_in_by_gradient,
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


# --- of recurrent models, in an image ---------------------------------------------------------


RECURRENT = {"row": RowLSTM, "diagonal": DiagonalBiLSTM}


def by_formula(name, size, pixel, k, n_layers):
    if name == "row":
        return visible_by_row_lstm(size, pixel, n_layers=n_layers, kernel_size=k)
    return visible_by_diagonal_bilstm(size, pixel, kernel_size=k)


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize(("k", "n_layers"), [(3, 1), (3, 2), (3, 3), (5, 1), (5, 2)])
def test_three_ways_agree_at_every_pixel_of_an_image(name, k, n_layers):
    torch.manual_seed(0)
    model = strong(RECURRENT[name](2, n_features=4, n_layers=n_layers, kernel_size=k))
    for pixel in [(i, j) for i in range(5) for j in range(7)]:
        field = visible_in(model, (5, 7), pixel)
        assert torch.equal(field, by_formula(name, (5, 7), pixel, k, n_layers)), pixel
        assert torch.equal(visible_in_by_gradient(model, (5, 7), pixel), field), pixel


@pytest.mark.parametrize("size", [(1, 6), (6, 1), (2, 2)])
@pytest.mark.parametrize("name", RECURRENT)
def test_three_ways_agree_in_small_images(name, size):
    model = strong(RECURRENT[name](2, n_features=4, n_layers=2))
    for pixel in [(i, j) for i in range(size[0]) for j in range(size[1])]:
        field = visible_in(model, size, pixel)
        assert torch.equal(field, by_formula(name, size, pixel, 3, 2)), pixel
        assert torch.equal(visible_in_by_gradient(model, size, pixel), field), pixel


@pytest.mark.parametrize(("n_layers", "n_seen"), [(1, 49), (2, 51), (3, 52), (4, 52)])
def test_how_many_of_58_earlier_pixels_are_seen(n_layers, n_seen):
    """And which one a Diagonal BiLSTM misses, at any depth: the last of the row above."""
    row = RowLSTM(2, n_features=1, n_layers=n_layers)
    assert visible_in(row, (9, 9), (6, 4)).sum() == n_seen
    earlier = (torch.arange(81) < 58).view(9, 9)
    for k, missed in ((3, [[5, 8]]), (7, [[5, 8]]), (9, [])):
        model = DiagonalBiLSTM(2, n_features=1, n_layers=n_layers, kernel_size=k)
        field = visible_in(model, (9, 9), (6, 4))
        assert (earlier & ~field).nonzero().tolist() == missed
        assert not (field & ~earlier).any()


def test_an_infinitely_deep_plain_stack_has_the_row_lstms_right_edge():
    plain = visible_by_formula(3, 6)[:7]  # the pixel at (6, 6) of 7 × 13
    row = visible_by_row_lstm((7, 13), (6, 6), n_layers=1)
    assert torch.equal(plain[:, 6:], row[:, 6:])


@pytest.mark.parametrize("name", RECURRENT)
def test_channels_of_a_recurrent_model_count_as_one_pixel(name):
    model = strong(RECURRENT[name](2, n_channels=3, n_features=4, n_layers=2))
    expected = by_formula(name, (4, 6), (2, 2), 3, 2)
    expected[2, 2] = True  # G and B see R
    if name == "diagonal":
        expected[1, 5] = True  # and so at the last of the row above, which others look at
    assert torch.equal(visible_in(model, (4, 6), (2, 2)), expected)
    assert torch.equal(visible_in_by_gradient(model, (4, 6), (2, 2)), expected)


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_of_the_blind_pixel_the_last_channel_is_missed(n_channels):
    model = DiagonalBiLSTM(2, n_channels=n_channels, n_features=2 * n_channels, n_layers=2)
    sees = sees_by_gradient(strong(model), (3, 5), n_images=8)
    at = (1 * 5 + 2) * n_channels  # the values of (1, 2), in order
    for c in range(n_channels):
        missed = (~sees[at + c, : at + c]).nonzero()[:, 0].tolist()
        assert missed == [(0 * 5 + 4) * n_channels + n_channels - 1]


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("where", ["first", "layer"])
def test_what_the_masks_of_a_recurrent_model_open_is_seen(name, where):
    model = strong(RECURRENT[name](2, n_features=4, n_layers=1))
    (model.first if where == "first" else model.layers[0].from_input).mask.fill_(1)
    expected = by_formula(name, (4, 6), (2, 2), 3, 1)
    for field in (visible_in(model, (4, 6), (2, 2)), visible_in_by_gradient(model, (4, 6), (2, 2))):
        is_open = where == "first" or name == "row"  # K of the diagonals is 1×1, of one channel
        assert torch.equal(field, expected) != is_open


def earlier(size, pixel, n_channels=1):
    """Every earlier pixel, and with several channels the pixel itself."""
    last = pixel[0] * size[1] + pixel[1] + (n_channels > 1)
    return (torch.arange(size[0] * size[1]) < last).view(size)


@pytest.mark.parametrize("family", [PixelSNAIL, PixelCNNPlusPlus])
@pytest.mark.parametrize(("n_layers", "n_channels"), [(1, 1), (2, 1), (1, 3)])
def test_shifts_halving_and_attention_composed_see_what_the_gradient_sees(
    family, n_layers, n_channels
):
    model = strong(family(2, n_channels=n_channels, n_features=4, n_layers=n_layers), scale=1.0)
    # Every place within a block of four, in the middle, in corners and at the sides.
    at_8 = [(0, 0), (0, 1), (4, 4), (4, 5), (5, 4), (5, 5), (6, 0), (7, 7)]
    at_20 = [(14, 10), (15, 10), (14, 11), (19, 19)]
    for size, pixels in (((8, 8), at_8), ((20, 22), at_20)):
        for pixel in pixels:
            field = visible_in(model, size, pixel)
            assert torch.equal(visible_in_by_gradient(model, size, pixel), field), pixel
            all_earlier = earlier(size, pixel, n_channels)
            assert not (field & ~all_earlier).any()
            if family is PixelSNAIL:
                assert torch.equal(field, all_earlier)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_plus_plus_sees_all_of_a_digit_and_half_of_a_larger_image(n_layers):
    model = PixelCNNPlusPlus(2, n_features=1, n_layers=n_layers)
    assert visible_in(model, (8, 8), (6, 4)).sum() == 52
    n_seen = visible_in(model, (28, 28), (24, 14)).sum()
    assert n_seen < 24 * 28 + 14
    # The block's other pixels start from the same middle: they see no further up.
    fields = [visible_in(model, (28, 28), (24 + a, 14 + b)) for a in (0, 1) for b in (0, 1)]
    assert len({int(field.any(1).int().argmax()) for field in fields}) == 1


def test_of_a_stack_by_gradient_in_an_image():
    """The square around the pixel, cut at the image's edges."""
    model = strong(PixelCNN(2, n_features=8, n_layers=2))
    square = visible_by_formula(3, 2)  # (5, 5), the pixel at (2, 2)
    assert torch.equal(
        visible_in_by_gradient(model, (4, 6), (2, 2)),
        square.new_zeros(4, 6) | (torch.cat([square, square.new_zeros(5, 1)], 1)[:4]),
    )
    assert torch.equal(visible_in_by_gradient(model, (4, 6), (1, 0))[:2, :3], square[1:3, 2:])


def test_bad_places_are_refused():
    model = RowLSTM(2, n_features=2, n_layers=1)
    ways = [
        lambda *place: visible_in(model, *place),
        lambda *place: visible_in_by_gradient(model, *place),
        lambda *place: visible_by_row_lstm(*place, n_layers=1),
        visible_by_diagonal_bilstm,
    ]
    for way in ways:
        for size, pixel, words in [
            ((4, 5), (4, 0), "pixel's row must be at most 3, got 4"),
            ((4, 5), (0, -1), "pixel's column must be an int of at least 0, got -1"),
            ((4, 5), (0, 1, 2), r"\(i, j\), got \(0, 1, 2\)"),
            ((4, 5), 3, "must be a row and a column"),
            ((4, 0), (0, 0), "size's width must be an int of at least 1, got 0"),
        ]:
            with pytest.raises(ValueError, match=words):
                way(size, pixel)
    with pytest.raises(ValueError, match="PixelCNNPlusPlus or PixelSNAIL, got PixelCNN"):
        visible_in(PixelCNN(2, n_features=2), (4, 5), (0, 0))
    with pytest.raises(ValueError, match="model must be a ImageModel, got int"):
        visible_in_by_gradient(3, (4, 5), (0, 0))
