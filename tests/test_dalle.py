"""DALL·E: captions and images in one sequence, against sums over all of them written out."""

import importlib.util
import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import vector_to_parameters

from dgm_course import data
from dgm_course.codes import PatchTokens
from dgm_course.data import (
    HELD_OUT,
    CaptionJudge,
    captioned_digits,
    decode_caption,
    encode_caption,
    results,
)
from dgm_course.sequences import DALLE, GPT, WaveNet, dalle
from dgm_course.training import seed_everything, training_steps
from tests.contracts import strong

N_WORDS, N_TEXT, K, GRID = 4, 2, 2, (2, 2)
V, T = N_WORDS + K + 1, N_TEXT + 4
ALL_GRIDS = torch.tensor([*itertools.product(range(K), repeat=4)]).view(-1, *GRID)
LONG = torch.tensor([*itertools.product(range(N_WORDS), repeat=2)])  # captions of two words
SHORT = torch.tensor([[word, -1] for word in range(N_WORDS)])  # of one word
OF_BOTH = torch.cat([LONG, SHORT])


class Pixels:
    """A first stage whose tokens are the pixels."""

    def __init__(self, n_codes=K):
        self.n_codes = n_codes

    def encode(self, x):
        return x[:, 0]

    def decode(self, z):
        return z[:, None]


class Table(nn.Module):
    """Logits ``(V, T)`` that heed no token: a sequence model of independent places."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens):
        return self.logits[:, : tokens.shape[1]].expand(len(tokens), -1, -1)


MODELS = {
    "GPT": lambda: strong(GPT(V, T, 2, 2, 8), scale=0.5),
    "WaveNet": lambda: strong(WaveNet(3, 5, levels=V), scale=0.5),
}


@pytest.fixture(params=MODELS)
def model(request):
    return DALLE(MODELS[request.param](), Pixels(), N_WORDS, N_TEXT, GRID)


def gpt(**settings):
    return DALLE(MODELS["GPT"](), Pixels(), N_WORDS, N_TEXT, GRID, **settings)


def pairs(captions, z):
    """Every caption with every grid, captions running slowest."""
    return captions.repeat_interleave(len(z), 0), z.repeat(len(captions), 1, 1)


def by_hand(model, caption, z):
    """log p(c), log p(z|c) of one pair: a softmax of what can stand there, place by place."""
    tokens = [V - 1 if word == -1 else word for word in caption] + [N_WORDS + code for code in z]
    logits = model.model(torch.tensor([tokens]))[0].tolist()  # (V, T)
    parts = {"text": 0.0, "image": 0.0}
    for t, token in enumerate(tokens):
        if token == V - 1:
            continue
        kind = "text" if t < N_TEXT else "image"
        allowed = range(N_WORDS) if kind == "text" else range(N_WORDS, N_WORDS + K)
        total = sum(math.exp(logits[v][t]) for v in allowed)
        parts[kind] += logits[token][t] - math.log(total)
    return parts["text"], parts["image"]


# --- probabilities ----------------------------------------------------------------------------


def test_words_come_first_and_codes_behind_them_in_the_vocabulary():
    captions, z = torch.tensor([[0, 2], [1, -1]]), torch.tensor([[[0, 1], [1, 0]]] * 2)
    assert gpt().tokens(captions, z).tolist() == [[0, 2, 4, 5, 5, 4], [1, 6, 4, 5, 5, 4]]


@torch.no_grad()
def test_the_terms_are_the_softmaxes_written_out(model):
    captions, z = pairs(OF_BOTH, ALL_GRIDS[::3])
    terms = model.terms(captions, z)
    expected = [
        by_hand(model, c.tolist(), g.flatten().tolist()) for c, g in zip(captions, z, strict=True)
    ]
    torch.testing.assert_close(torch.stack(terms, 1), torch.tensor(expected).double())
    torch.testing.assert_close(terms.log_prob, terms.text + terms.image)
    assert torch.equal(model.log_prob(captions, z[:, None]), terms.log_prob)


@torch.no_grad()
@pytest.mark.parametrize("captions", [LONG, SHORT], ids=["two words", "one word"])
def test_all_probabilities_sum_to_1(model, captions):
    terms = model.terms(*pairs(captions, ALL_GRIDS))
    assert terms.log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    of_images = terms.image.exp().view(len(captions), -1).sum(1)
    torch.testing.assert_close(of_images, torch.ones(len(captions)).double())
    of_text = terms.text.view(len(captions), -1)
    assert (of_text.diff(dim=1).abs() < 1e-12).all(), "a caption cannot depend on its image"
    assert terms.image.view(len(captions), -1).std(0).max() > 0.01, "an image does on its caption"


@torch.no_grad()
def test_what_cannot_stand_somewhere_has_no_part():
    """Logits of the wrong kind, and that of padding, may be what they like."""
    torch.manual_seed(0)
    logits = torch.randn(V, T)
    model = DALLE(Table(logits), Pixels(), N_WORDS, N_TEXT, GRID)
    before = model.terms(*pairs(OF_BOTH, ALL_GRIDS))
    wrong = torch.ones(V, T, dtype=torch.bool)
    wrong[:N_WORDS, :N_TEXT] = wrong[N_WORDS:-1, N_TEXT:] = False
    model.model.logits[wrong] += 1000
    after = model.terms(*pairs(OF_BOTH, ALL_GRIDS))
    assert torch.equal(torch.stack(before), torch.stack(after))
    images = model.generate(LONG[0], 200, generator=0)
    assert images.unique().tolist() == [0, 1]


# --- the loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, 0.0, 0.3, 1.0])
def test_the_loss_weighs_the_mean_over_words_and_the_mean_over_codes(weight):
    """An eighth and seven eighths unless told otherwise; padding is no word."""
    model = gpt(**({} if weight is None else {"text_weight": weight}))
    w = 1 / 8 if weight is None else weight
    captions, z = pairs(OF_BOTH[5:], ALL_GRIDS[::5])
    logits = model.model(model.tokens(captions, z))
    words = cross_entropy(logits[:, :N_WORDS, :N_TEXT], captions, ignore_index=-1)
    codes = cross_entropy(logits[:, N_WORDS:-1, N_TEXT:], z.flatten(1))
    loss = model.loss(captions, z)
    assert loss.shape == (len(captions),)
    torch.testing.assert_close(loss.mean(), w * words + (1 - w) * codes)


def test_without_padding_a_pairs_loss_is_its_own():
    model = gpt()
    captions, z = pairs(LONG[2:5], ALL_GRIDS[::7])
    terms = model.terms(captions, z)
    torch.testing.assert_close(model.loss(captions, z), -terms.text / 16 - 7 * terms.image / 32)
    alone = torch.cat([model.loss(captions[i, None], z[i, None]) for i in range(len(z))])
    torch.testing.assert_close(model.loss(captions, z), alone)


def test_nothing_is_lost_to_padding():
    """Neither value nor gradient: of a one-word caption only the first place's words take part."""
    torch.manual_seed(0)
    model = DALLE(Table(torch.randn(V, T)), Pixels(), N_WORDS, N_TEXT, GRID, text_weight=1.0)
    terms = model.terms(SHORT, ALL_GRIDS[:4])
    first = model.model.logits[:N_WORDS, 0].log_softmax(0)
    torch.testing.assert_close(terms.text, first)
    (gradient,) = torch.autograd.grad(model.loss(SHORT, ALL_GRIDS[:4]).mean(), model.model.logits)
    assert gradient.ne(0).nonzero().tolist() == [[word, 0] for word in range(N_WORDS)]
    (gradient,) = torch.autograd.grad(model.loss(LONG, ALL_GRIDS).mean(), model.model.logits)
    assert gradient.ne(0).any(0).nonzero()[:, 0].tolist() == [0, 1]


# --- images of a caption ----------------------------------------------------------------------


def sharpened(model, caption, temperature, top_k):
    """The probabilities of all grids, their conditionals sharpened place by place, by hand."""
    with torch.no_grad():
        logits = model.model(model.tokens(*pairs(caption[None], ALL_GRIDS)))
    logits = logits[:, N_WORDS:-1, N_TEXT:]  # (G, K, 4)
    if top_k is not None:
        least = logits.sort(1, descending=True).values[:, top_k - 1 : top_k]
        logits = logits.masked_fill(logits < least, -math.inf)
    p = (logits / temperature).softmax(1).gather(1, ALL_GRIDS.flatten(1)[:, None])
    return p.prod(2)[:, 0]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 2), (1.0, 1)])
@pytest.mark.parametrize("caption", [LONG[5], SHORT[1]], ids=["two words", "one word"])
def test_images_are_drawn_from_their_distribution(model, caption, temperature, top_k):
    """χ² over the grids expected five times or more, the rest as one: below its 1 − 10⁻⁴."""
    n = 4000
    images = model.generate(caption, n, temperature=temperature, top_k=top_k, generator=3)
    assert images.shape == (n, 1, *GRID)
    number = (images.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1)
    counts = number.bincount(minlength=16).double()
    expected = n * sharpened(model, caption, temperature, top_k)
    assert expected.sum().item() == pytest.approx(n)
    many = expected >= 5
    observed = torch.cat([counts[many], counts[~many].sum()[None]])
    expected = torch.cat([expected[many], expected[~many].sum()[None]])
    rest = slice(None) if expected[-1] > 1 else slice(-1)
    assert observed[-1] <= expected[-1] + 10
    squared = ((observed - expected).square() / expected.clamp_min(1e-9))[rest].sum().item()
    freedom = len(observed[rest]) - 1
    assert squared < 1e-9 or squared < freedom + 4 * math.sqrt(2 * freedom) + 16 / 3


def test_the_same_seed_draws_the_same_images():
    model = gpt()
    first, again, other = (model.generate(LONG[5], 50, generator=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(model.generate(LONG[5], 50, generator=generator), first)


# --- captions of an image ---------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("prior", ["the model's", "equal", "given"])
def test_a_captions_probability_is_by_bayes_rule(model, prior, monkeypatch):
    """By the sums of joint probabilities, one pair at a time."""
    log_prior = {
        "the model's": None,
        "equal": torch.zeros(16),
        "given": torch.linspace(-2, 3, 16),
    }[prior]
    x = ALL_GRIDS[::4, None]
    found = model.caption_log_prob(x, LONG, log_prior)
    for i, image in enumerate(x):
        joint = []
        for m, caption in enumerate(LONG):
            text, of_image = by_hand(model, caption.tolist(), image.flatten().tolist())
            p = math.exp(text) if log_prior is None else log_prior[m].exp().item()
            joint.append(p * math.exp(of_image))
        expected = torch.tensor(joint).double() / sum(joint)
        torch.testing.assert_close(found[i].exp(), expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(len(x)).double())
    monkeypatch.setattr(dalle, "CHUNK", 1)  # one image at a time
    torch.testing.assert_close(model.caption_log_prob(x, LONG, log_prior), found)


@torch.no_grad()
def test_of_one_caption_there_is_no_doubt():
    assert gpt().caption_log_prob(ALL_GRIDS[:3, None], SHORT[:1]).tolist() == [[0.0]] * 3


# --- training ---------------------------------------------------------------------------------


def test_it_learns_what_captions_say():
    """Word 0 or 1: the left column's code; then 2, 3 or nothing: the right one's, or either's."""
    seed_everything(0)
    captions = torch.tensor([[a, b] for a in (0, 1) for b in (2, 3, -1)])

    def batch(n):
        chosen = captions[torch.randint(6, (n,))]
        right = torch.where(chosen[:, 1] == -1, torch.randint(2, (n,)), chosen[:, 1] - 2)
        return chosen, torch.stack([chosen[:, 0], right], 1)[:, None].expand(-1, 2, -1)

    model = DALLE(GPT(4 + 2 + 1, 6, 1, 2, 16), Pixels(), 4, 2, (2, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in training_steps(lambda step: model.loss(*batch(32)), optimizer, 150):
        pass
    for caption in captions:
        images = model.generate(caption, 100, generator=0)[:, 0]  # (100, 2, 2)
        assert (images[:, :, 0] == caption[0]).double().mean() > 0.95
        share = (images[:, :, 1] == 1).double().mean()
        low, high = {2: (0, 0.05), 3: (0.95, 1), -1: (0.25, 0.75)}[caption[1].item()]
        assert low <= share <= high
    whole = captions[captions[:, 1] != -1]
    found = model.caption_log_prob(
        (whole - torch.tensor([0, 2]))[:, None, None].expand(-1, 1, 2, 2), whole
    )
    assert found.argmax(1).tolist() == [0, 1, 2, 3]


def test_the_first_stage_learns_nothing():
    class Stage(Pixels, nn.Module):
        def __init__(self):
            nn.Module.__init__(self)
            self.n_codes, self.weight = K, nn.Parameter(torch.ones(1))

    model = DALLE(MODELS["GPT"](), Stage(), N_WORDS, N_TEXT, GRID)
    model.loss(LONG[:3], model.encode(ALL_GRIDS[:3, None])).mean().backward()
    assert model.codes.weight.grad is None
    assert all(p.grad is not None for p in model.model.parameters())


# --- bad input --------------------------------------------------------------------------------

Z, C = ALL_GRIDS[:2], LONG[:2]


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (torch.tensor([[0, 4]] * 2), "captions must hold integers -1 to 3, got values from 0 to 4"),
        (torch.tensor([[0, -2]] * 2), "captions must hold integers -1 to 3, got values from -2 "),
        (C.double(), "captions must hold integers -1 to 3, got dtype torch.float64"),
        (torch.tensor([[0], [1]]), r"captions must have shape \(N, 2\), got \(2, 1\)"),
        (torch.tensor([0, 1]), r"captions must have shape \(N, 2\), got \(2,\)"),
        (C[:0], r"captions must have shape \(N, 2\), got \(0, 2\)"),
        ("bright three left", "captions must be a torch.Tensor, got str"),
        (torch.tensor([[-1, 0]] * 2), "captions must be words, then padding of -1"),
        (torch.tensor([[-1, -1]] * 2), "captions must be words, then padding of -1"),
        (LONG[:3], "captions and z must be of equal number, got 3 and 2"),
    ],
)
def test_what_are_no_captions_is_refused(captions, message):
    for call in (gpt().terms, gpt().tokens, gpt().loss):
        with pytest.raises(ValueError, match=message):
            call(captions, Z)


def test_padding_is_at_the_end():
    model = DALLE(GPT(V, 7, 1, 1, 4), Pixels(), N_WORDS, 3, GRID)
    model.terms(torch.tensor([[0, 1, 2], [0, 1, -1], [0, -1, -1]]), ALL_GRIDS[:3])
    with pytest.raises(ValueError, match="got a caption without a word or with padding before one"):
        model.terms(torch.tensor([[0, 1, 2], [0, -1, 2]]), Z)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.full((2, 2, 2), 2), "z must hold integers 0 to 1, got values from 2 to 2"),
        (Z.float(), "z must hold integers 0 to 1, got dtype torch.float32"),
        (Z[:, :1], r"z must have shape \(N, 2, 2\), got \(2, 1, 2\)"),
        (Z[:, None], r"z must have shape \(N, 2, 2\), got \(2, 1, 2, 2\)"),
        (Z[:0], r"z must have shape \(N, 2, 2\), got \(0, 2, 2\)"),
        ([[0]], "z must be a torch.Tensor, got list"),
    ],
)
def test_what_are_no_grids_is_refused(z, message):
    with pytest.raises(ValueError, match=message):
        gpt().terms(C, z)


def test_images_must_have_the_grid():
    with pytest.raises(ValueError, match=r"z must have shape \(N, 2, 2\), got \(2, 3, 3\)"):
        gpt().log_prob(C, torch.zeros(2, 1, 3, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"caption": LONG[:1]}, r"caption must have shape \(2,\), got \(1, 2\)"),
        ({"caption": LONG[0, :1]}, r"captions must have shape \(N, 2\), got \(3, 1\)"),
        ({"caption": "bright three left"}, "caption must be a torch.Tensor, got str"),
        ({"caption": torch.tensor([0, 4])}, "captions must hold integers -1 to 3"),
        ({"n": 0}, "n must be an int of at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"top_k": 0}, "top_k must be an int of at least 1, got 0"),
        ({"top_k": 3}, "top_k must be at most 2, got 3"),
        ({"generator": 1.5}, "seed must be an int or a torch.Generator, got float"),
    ],
)
def test_images_cannot_be_asked_for_otherwise(arguments, message):
    with pytest.raises(ValueError, match=message):
        gpt().generate(**{"caption": LONG[0], "n": 3} | arguments)


@pytest.mark.parametrize(
    ("log_prior", "message"),
    [
        (torch.zeros(3), r"log_prior must have shape \(16,\), got shape \(3,\)"),
        (torch.full((16,), math.nan), "log_prior must be finite, got"),
        ("equal", "log_prior must be a tensor or a list of numbers, got 'equal'"),
    ],
)
def test_a_prior_is_one_number_a_caption(log_prior, message):
    with pytest.raises(ValueError, match=message):
        gpt().caption_log_prob(Z[:, None], LONG, log_prior)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": GPT(V + 1, T, 1, 1, 4)}, r"n_words \+ n_codes \+ 1 = 7 tokens, .* \(1, 8, 6\)"),
        (
            {"model": GPT(V, T - 1, 1, 1, 4)},
            "length of tokens must be at most the context, 5, got 6",
        ),
        ({"model": WaveNet(2, 4)}, "dtype"),
        ({"model": nn.Embedding(V, 9)}, r"model must .* logits \(1, 7, 6\), got shape \(1, 6, 9"),
        ({"model": len}, "model must be a Module, got builtin_function_or_method"),
        ({"codes": object()}, "codes.n_codes must be an int of at least 1, got None"),
        ({"n_words": 0}, "n_words must be an int of at least 1, got 0"),
        ({"n_text": 0}, "n_text must be an int of at least 1, got 0"),
        ({"size": 4}, r"size must be a height and a width, \(H, W\), got 4"),
        ({"size": (2, 0)}, "size's width must be an int of at least 1, got 0"),
        ({"text_weight": -0.1}, "text_weight must be at least 0 and finite, got -0.1"),
        ({"text_weight": 1.1}, "text_weight must be from 0 to 1, got 1.1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    settings = {"n_words": N_WORDS, "n_text": N_TEXT, "size": GRID}
    with pytest.raises(ValueError, match=message):
        DALLE(**{"model": MODELS["GPT"](), "codes": Pixels(), **settings} | arguments)


def test_its_line_says_what_it_is():
    assert "n_words=4, n_text=2, n_codes=2, size=(2, 2), text_weight=0.125" in repr(gpt())


# --- the committed run ------------------------------------------------------------------------


@pytest.fixture
def maker():
    """The command that makes the stored run, by its path: the package has a module of its name."""
    path = Path(__file__).parent.parent / "notebooks" / "results" / "dalle.py"
    spec = importlib.util.spec_from_file_location("results_of_dalle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_stage_of_the_run_sees_what_is_held_out(maker, monkeypatch):
    """Ten steps of the run itself, watched where images come in and where the loss is taken."""
    canvases = maker.shown()
    few = {"CAPTIONS": data.CAPTIONS[4::10], "EVERY": maker.EVERY[4::10], "TEMPERATURES": (1.0,)}
    few |= {"N_PICTURES": 1, "N_CANVASES": 1, "shown": lambda: canvases}
    for name, value in few.items():
        monkeypatch.setattr(maker, name, value)
    of_patches, of_loss, shown, read = maker.patches, DALLE.loss, [], []
    unseen = {
        tuple(image) for image in captioned_digits("train", "unseen").images.flatten(1).tolist()
    }

    def stage(x, n_steps):
        shown.extend(x.flatten(1).tolist())
        return of_patches(x, n_steps)

    def loss(self, captions, z):
        read.extend(decode_caption(caption) for caption in captions)
        return of_loss(self, captions, z)

    monkeypatch.setitem(maker.STAGES, "patches", stage)
    monkeypatch.setattr(DALLE, "loss", loss)
    found = maker.one_seed("patches", 0, 10, CaptionJudge())
    assert len(read) == 10 * maker.BATCH
    assert not {*read} & {*HELD_OUT}
    assert not {tuple(image) for image in shown} & unseen
    stored = {key.split("/", 1)[1] for key in results("dalle") if key.startswith("patches/")}
    assert found.keys() == stored, "the stored run is of this command"


def test_the_stored_run_draws_what_it_has_seen():
    """In every seed: 85 of 100 pictures, and 9 of 10 of what the first stage lets through."""
    stored = results("dalle")
    unseen = stored["held_out"]
    assert [caption in HELD_OUT for caption in data.CAPTIONS] == unseen.tolist()
    assert stored["temperatures"][-1] == 1
    for stage, ceiling in (("patches", 0.97), ("vqvae", 0.91)):
        assert len(stored[f"{stage}/ceiling"]) >= 3
        assert stored[f"{stage}/ceiling"].min() >= ceiling
        seen = stored[f"{stage}/right"][:, -1, ~unseen].mean(1)
        assert seen.min() >= 0.85
        assert (seen / stored[f"{stage}/ceiling"]).min() >= 0.9


def test_the_stored_weights_draw_what_is_asked_for(maker):
    """By the judge, eight pictures of every fifth caption; each is 14 in 15 of the full run's."""
    stored = results("dalle")
    codes = PatchTokens(64)
    codes.quantizer.codebook.copy_(torch.from_numpy(stored["patches/codebook"]))
    model = maker.new_model(codes)
    weights = torch.from_numpy(stored["patches/weights"].astype("float32"))
    vector_to_parameters(weights, model.model.parameters())
    judge, right = CaptionJudge(), []
    for caption in [c for c in data.CAPTIONS if c not in HELD_OUT][::5]:
        tokens = encode_caption(caption)
        right.append(judge.right(model.generate(tokens, 8, generator=0), tokens))
    assert torch.cat(right).double().mean() >= 0.8
