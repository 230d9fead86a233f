"""Simulators: easy to run, hard to evaluate, and here with every history enumerated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Binomial

from dgm_course.checks import check_count, check_number, check_points, check_tensor
from dgm_course.data.toy import Seed, as_generator


class Epidemic:
    """Each day each who is ill infects each who is well with p = σ(z + offset), and is then immune.

    One is ill at first, n are well; x is the share of them that fall ill before it ends. Who was
    ill when is not observed, and p(x|z) adds up all those histories: a simulator runs one, and
    `log_likelihood` carries the probability of each (well, ill) from day to day.

    With z ~ N(0, 1) a small x has two stories, a harmless germ or a lucky end, and x near 1 has
    one: the posteriors have very different widths.

    Source: the Reed–Frost model, Andersson & Britton 2000, section 1.2,
    https://doi.org/10.1007/978-1-4612-1158-7.

    Args:
        n_people: n.
        offset: where the prior's middle lies, on the scale of log-odds.

    Example:
        >>> x, z = torch.tensor([[0.0]]), torch.zeros(1, 1, 1)
        >>> Epidemic(2, offset=0.0).log_likelihood(x, z).exp()  # both escape once: (1/2)²
        tensor([[0.2500]])
    """

    def __init__(self, n_people: int = 20, offset: float = -2.5) -> None:
        self.n_people = check_count(n_people, "n_people", most=100)
        check_number(offset, "offset", or_negative=True)
        self.offset = float(offset)

    def __repr__(self) -> str:
        return f"Epidemic({self.n_people}, offset={self.offset})"

    def simulate(self, z: Tensor, generator: Seed | None = None) -> Tensor:
        """A draw of p(x|z) for each of ``(N, 1)``, ``(N, 1)``; without a seed, from torch's own."""
        check_points(z, 1, None, "z")
        source = None if generator is None else as_generator(generator)
        escape = torch.sigmoid(-(z.detach() + self.offset))  # from one who is ill, for a day
        well, ill = torch.full_like(escape, self.n_people), torch.ones_like(escape)
        while (ill > 0).any():
            ill = torch.binomial(well, 1 - escape**ill, generator=source)
            well = well - ill
        return 1 - well / self.n_people

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats: shares ``(N, 1)``, z ``(S, N, 1)``, to ``(S, N)``."""
        check_points(x, 1, None, "x")
        count = (x[:, 0] * self.n_people).round().long()
        if (count / self.n_people - x[:, 0]).abs().max() > 1e-3 or not (
            0 <= count.min() and count.max() <= self.n_people
        ):
            raise ValueError(f"x must hold multiples of 1/{self.n_people} from 0 to 1, got {x}")
        check_tensor(z, "z")
        if z.ndim != 3 or z.shape[1:] != x.shape:
            raise ValueError(f"z must have shape (S, {len(x)}, 1), got {tuple(z.shape)}")
        table = self.distribution(z[..., 0])
        return table.gather(-1, count.expand(z.shape[:2])[..., None])[..., 0].log().to(z.dtype)

    def distribution(self, z: Tensor) -> Tensor:
        """p(x|z) of x = 0, 1/n, …, 1, by all histories: ``(...)`` to ``(..., n + 1)``, float64."""
        check_tensor(z, "z")
        n = self.n_people
        escape = torch.sigmoid(-(z.double() + self.offset))
        # at[well][..., ill]: the probability that a day begins so; a day only lowers well.
        at = torch.zeros(n + 1, *z.shape, n + 2, dtype=torch.float64)
        at[n, ..., 1] = 1
        ended = [at[n, ..., 0]] * (n + 1)
        for well in range(n, -1, -1):
            now = at[well, ..., 1:]  # (..., n + 1) people ill
            infected = 1 - escape[..., None] ** torch.arange(1, n + 2, dtype=torch.float64)
            law = Binomial(well, probs=infected[..., None], validate_args=False)
            new = law.log_prob(torch.arange(well + 1, dtype=torch.float64)).exp()
            flow = (now[..., None] * new).sum(-2)  # (..., well + 1), by how many fall ill
            ended[n - well] = flow[..., 0]
            for fallen in range(1, well + 1):
                at[well - fallen, ..., fallen] = flow[..., fallen]
        return torch.stack(ended, -1)
