"""GPT: every token may look at every one before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count, check_instance
from dgm_course.sequences.transformer import Transformer, causal_attention


class GPT(Transformer):
    """p(x) = Π p(x_t | x_<t), each factor read off all tokens before t by L layers of attention.

    Head by head, with q_t, k_t, v_t linear in the normalised h_t, h_t gains W Σ_s≤t a_ts v_s, where
    a_ts ∝ exp(q_t · k_s / √D) adds up to 1 over s ≤ t. Weights a_ts know nothing of t − s: a
    learned vector for each position is added to the inputs. Without it one layer is blind to the
    order of the tokens before the last, but two are not: how far the mask lets each position see
    differs, and so what the first layer averages.

    Source: Radford et al. 2018, section 3.1,
    https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf;
    norms before each part, and one after the last: Radford et al. 2019, section 2.3,
    https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf.

    Args:
        n_tokens: size V of the vocabulary; 256 for bytes.
        context: the most tokens of a sequence.
        n_layers: layers L.
        n_heads: heads of a layer, a divisor of width.
        width: numbers per position.
        positions: False leaves them out.

    Shapes: integers ``(N, T)``, T ≤ context, to logits ``(N, V, T)``; those at t are of x_t given
    the tokens before t.

    Raises:
        ValueError: for arguments outside these bounds; for tokens that are not ``(N, T)``, empty,
            longer than the context, not integers, or outside the vocabulary.

    Omits: dropout, weights shared between embedding and output, and byte-pair encoding.

    Example:
        >>> model = GPT(n_tokens=5, context=16, n_layers=2, n_heads=2, width=8)
        >>> tokens = model.sample(3, 10, generator=0)
        >>> model(tokens).shape
        torch.Size([3, 5, 10])
        >>> round(model.log_prob(tokens)[0].item(), 3)  # fresh: -10 ln 5
        -16.094
    """

    def __init__(
        self,
        n_tokens: int,
        context: int,
        n_layers: int,
        n_heads: int,
        width: int,
        positions: bool = True,
    ) -> None:
        check_instance(positions, bool, "positions")
        layers = [causal_attention] * check_count(n_layers, "n_layers")
        super().__init__(n_tokens, context, n_heads, width, layers)
        self.positions = nn.Parameter(torch.randn(context, width)) if positions else None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, positions={self.positions is not None}"

    def placed(self, h: Tensor, start: int) -> Tensor:
        return h if self.positions is None else h + self.positions[start : start + h.shape[1]]
