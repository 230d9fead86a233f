"""Words of nested brackets: a language with a grammar, exact probabilities and an exact check."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_integers, check_sequences
from dgm_course.data.toy import Seed, as_generator

SYMBOLS = "()[]{}<>"


class Brackets:
    """p(x) = 1 / C(T): every well-nested word of T brackets is as likely as any other.

    A word is empty, or an opening bracket, a word, the closing bracket of the same kind, and a
    word: a context-free language. Which bracket may close depends on one that may lie arbitrarily
    far back, so no window of the last m tokens is enough. With K kinds and no limit of the depth,
    C(T) = Catalan(T/2) · K^(T/2).

    With r tokens left and d pairs open, f(r, d) = f(r − 1, d + 1) + f(r − 1, d − 1) ways lead to
    the end, apart from the kinds; so the next token opens with probability f(r − 1, d + 1) / f(r,
    d), any kind with 1/K of it, and else closes the innermost pair.

    Source: Chomsky & Schützenberger 1963 for the language; the counts are a ballot problem's.

    Args:
        n_kinds: K, 1 to 4, of () [] {} <>. Kind i opens with token 2i and closes with 2i + 1.
        max_depth: most pairs that may be open at once; None for no limit.

    Shapes: words ``(N, T)``, integers 0 … 2K − 1; T is even, and at most 2048.

    Raises:
        ValueError: for arguments outside these bounds; for x that is not ``(N, T)``, is empty, or
            not integers 0 … 2K − 1.

    Omits: words of several lengths in one batch, for which an end token would be needed.

    Example:
        >>> brackets = Brackets(n_kinds=2)
        >>> x = brackets.encode("([])", "([)]")
        >>> brackets.is_valid(x)
        tensor([ True, False])
        >>> brackets.count(4), brackets.log_prob(x).exp()
        (8, tensor([0.1250, 0.0000], dtype=torch.float64))
    """

    def __init__(self, n_kinds: int = 2, max_depth: int | None = None) -> None:
        self.n_kinds = check_count(n_kinds, "n_kinds", most=len(SYMBOLS) // 2)
        self.max_depth = None if max_depth is None else check_count(max_depth, "max_depth")
        self.levels = 2 * self.n_kinds

    def count(self, length: int) -> int:
        """C(T), how many words of this length there are: 0 for an odd one."""
        ways, _ = self._ways(check_count(length, "length", most=2048))
        return ways * self.n_kinds ** (length // 2)

    def entropy(self, length: int) -> Tensor:
        """H(x_t | x_<t) of each token in nats, ``(T,)``, float64; they add up to ln C(T)."""
        opening = self._opening(length)
        at_depth = torch.zeros_like(opening[0])
        at_depth[0] = 1.0
        steps = []
        for p in opening:
            split = -torch.xlogy(p, p) - torch.xlogy(1 - p, 1 - p) + p * math.log(self.n_kinds)
            steps.append((at_depth * split).sum())
            up, down = at_depth * p, at_depth * (1 - p)
            at_depth = up.roll(1) + down.roll(-1)  # nothing opens at the deepest, or closes at 0
        return torch.stack(steps)

    def sample(self, n: int, length: int, generator: Seed | None = None) -> Tensor:
        """n words ``(n, length)``, int64; without a seed or a generator, from torch's own."""
        n, opening = check_count(n, "n"), self._opening(length)
        generator = None if generator is None else as_generator(generator)
        u = torch.rand(n, length, generator=generator, dtype=torch.float64)
        kinds = torch.randint(self.n_kinds, (n, length), generator=generator)
        rows, depth = torch.arange(n), torch.zeros(n, dtype=torch.long)
        stack, x = kinds.new_zeros(n, length + 1), torch.empty_like(kinds)
        for t in range(length):
            opens = u[:, t] < opening[t, depth]
            x[:, t] = torch.where(opens, 2 * kinds[:, t], 2 * stack[rows, depth] + 1)
            depth = torch.where(opens, depth + 1, depth - 1)
            stack[rows[opens], depth[opens]] = kinds[opens, t]
        return x

    def is_valid(self, x: Tensor) -> Tensor:
        """Whether each is a word of the language, ``(N, T)`` to ``(N,)``, of any length."""
        return self._read(x)[2]

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, ``(N,)``, float64: −ln C(T), and −inf for what is no word."""
        valid = self.is_valid(x)
        log_p = torch.full((len(x),), -math.inf, dtype=torch.float64)
        return log_p.masked_fill(valid, -math.log(self.count(x.shape[1]) or 1))

    def conditionals(self, x: Tensor) -> Tensor:
        """log p(x_t = v | x_<t) of words x, ``(N, V, T)``, float64; −inf for what cannot follow.

        Raises:
            ValueError: for x with a word that is none: nothing can follow its first mistake.
        """
        depth, innermost, valid = self._read(x)
        if not valid.all():
            raise ValueError(f"x must hold words, got {int((~valid).sum())} of {len(x)} not valid")
        p = self._opening(x.shape[1])[torch.arange(x.shape[1]), depth]  # (N, T)
        law = p.new_zeros(*p.shape, self.levels)
        law[..., ::2] = p[..., None] / self.n_kinds
        closing = (2 * innermost + 1).clamp(min=0)[..., None]  # where none can close, 1 - p is 0
        return law.scatter_add_(2, closing, 1 - p[..., None]).log().transpose(1, 2)

    def encode(self, *words: str) -> Tensor:
        """The tokens ``(N, T)`` of N words of one length, such as "([])"."""
        symbols = SYMBOLS[: self.levels]
        lengths = {len(word) for word in words if isinstance(word, str)}
        if len(lengths) != 1 or 0 in lengths or not all(isinstance(w, str) for w in words):
            raise ValueError(f"words must be strings of one length, not empty, got {words!r}")
        if unknown := {*"".join(words)} - {*symbols}:
            raise ValueError(f"words must be made of {symbols}, got {''.join(sorted(unknown))!r}")
        return torch.tensor([[symbols.index(symbol) for symbol in word] for word in words])

    def decode(self, x: Tensor) -> list[str]:
        """The words of tokens ``(N, T)``, valid or not."""
        self._check(x)
        return ["".join(SYMBOLS[token] for token in row) for row in x.tolist()]

    def _ways(self, length: int) -> tuple[int, Tensor]:
        """How many ways of opening and closing there are, and p(open | depth) at each t."""
        deepest = min(length // 2, self.max_depth or length)
        p = torch.zeros(length, deepest + 1, dtype=torch.float64)
        ways = [1] + [0] * (deepest + 1)  # f(r, d) of d = 0 …; whole numbers of any size
        for t in reversed(range(length)):
            both = [up + down for up, down in zip(ways[1:], [0, *ways[:-2]], strict=True)]
            p[t] = torch.tensor(
                [up / of if of else 0.0 for up, of in zip(ways[1:], both, strict=True)]
            )
            ways = [*both, 0]
        return ways[0], p

    def _opening(self, length: int) -> Tensor:
        """p(open | depth) at each t, ``(T, depths)``."""
        if check_count(length, "length", 2, most=2048) % 2:
            raise ValueError(f"length must be even, got {length}")
        return self._ways(length)[1]

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Open pairs and the innermost one's kind before each token; which rows are words."""
        self._check(x)
        rows, depth = torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)
        stack = torch.full((len(x), x.shape[1] + 1), -1)  # at depth 0 there is none to close
        valid, depths, innermost = torch.ones(len(x), dtype=torch.bool), [], []
        for token in x.cpu().long().unbind(1):
            kind, closes = token // 2, token % 2 == 1
            depths.append(depth)
            innermost.append(stack[rows, depth])
            room = depth < (self.max_depth or x.shape[1])
            valid = valid & torch.where(closes, innermost[-1] == kind, room)
            depth = torch.where(closes, depth - 1, depth + 1)  # below 0 in no word
            stack[rows[~closes], depth[~closes]] = kind[~closes]
        return torch.stack(depths, 1), torch.stack(innermost, 1), valid & (depth == 0)

    def _check(self, x: Tensor) -> None:
        check_integers(x, 0, self.levels - 1, "x")
        check_sequences(x, "x")
