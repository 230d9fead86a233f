"""Classifiers of y = 1 against y = 0, by their log-odds: logistic regression, an MLP, any other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count, check_number
from dgm_course.losses import log_loss
from dgm_course.training import fit


class Classifier(Protocol):
    """What `DensityRatio` needs of a classifier."""

    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Classifier:
        """Learn from points ``(N, D)`` and labels 0 and 1 ``(N,)``, float64; return itself."""

    def logit(self, x: Tensor) -> Tensor:
        """log P(y = 1 | x) / P(y = 0 | x) at the training counts, ``(N, D)`` to nats ``(N,)``."""


class Logistic:
    """log-odds a + wᵀx, or with ``degree=2`` a + wᵀx + Σ_{i≤j} v_ij x_i x_j.

    The loss is convex: Newton's method finds its minimum, without a step size or a seed. Features
    are standardised. ``ridge`` times half the squared weights keeps them finite where the classes
    are separable; at a thousand examples it moves them by about 10⁻⁵ of themselves.

    Args:
        degree: 1, exact for Gaussians of one covariance, or 2, exact for any two Gaussians.
        ridge: the weight of that penalty beside the summed loss, in nats.

    Omits: more than about two thousand features, whose Hessian is dense.
    """

    def __init__(self, degree: int = 1, ridge: float = 1e-2) -> None:
        if degree not in (1, 2):
            raise ValueError(f"degree must be 1 or 2, got {degree!r}")
        check_number(ridge, "ridge")
        self.degree, self.ridge = degree, ridge

    def n_weights(self, n_features: int) -> int:
        """The number P of weights, the intercept included."""
        quadratic = n_features * (n_features + 1) // 2
        return 1 + n_features + (quadratic if self.degree == 2 else 0)

    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Logistic:
        """Minimise the log loss; ``generator`` is not used."""
        self._scale = Standardise(x, y)
        self.weights = newton(self._features(x), y, self.ridge)
        return self

    def logit(self, x: Tensor) -> Tensor:
        """The log-odds, differentiable in x."""
        return self._features(x) @ self.weights

    def _features(self, x: Tensor) -> Tensor:
        x = self._scale(x)
        columns = [torch.ones_like(x[:, :1]), x]
        if self.degree == 2:
            i, j = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
            columns.append(x[:, i] * x[:, j])
        return torch.cat(columns, 1)  # (N, P)


class MLP:
    """log-odds a + wᵀx + a network of two hidden layers, trained by Adam on mini-batches.

    The straight part makes a linear answer easy, and the network's share grows linearly far out.

    Args:
        hidden: neurons of each hidden layer.
        n_steps: steps of Adam, with a learning rate that falls along a cosine.
        batch: examples a step, or all where there are fewer.
        loss: per example, of logits and labels: a proper scoring rule such as `log_loss`.
    """

    def __init__(
        self,
        hidden: int = 32,
        n_steps: int = 300,
        batch: int = 256,
        loss: Callable[[Tensor, Tensor], Tensor] = log_loss,
    ) -> None:
        self.hidden, self.n_steps = check_count(hidden, "hidden"), check_count(n_steps, "n_steps")
        self.batch, self.loss = check_count(batch, "batch"), loss

    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator) -> MLP:
        """Train a new network; its initial weights and its batches come from ``generator``."""
        self._scale = Standardise(x, y)
        x = self._scale(x)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            self.network = Network(x.shape[1], self.hidden).to(x)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=1e-2, weight_decay=1e-2, fused=True
        )
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.n_steps)

        def loss(step: int) -> Tensor:
            chosen = torch.randint(len(x), (min(self.batch, len(x)),), generator=generator)
            return self.loss(self.network(x[chosen]), y[chosen])

        fit(loss, optimizer, self.n_steps, scheduler=decay, progress=False)
        self.network.requires_grad_(False)
        return self

    def logit(self, x: Tensor) -> Tensor:
        """The log-odds, differentiable in x."""
        return self.network(self._scale(x))


class Network(nn.Module):
    """The log-odds of an `MLP` as a module, ``(N, D)`` to nats ``(N,)``, for joint training."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.straight = nn.Linear(dim, 1)
        self.bent = nn.Sequential(
            nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return (self.straight(x) + self.bent(x)).squeeze(1)  # (N,)


class ScikitLearn:
    """The log-odds of a scikit-learn classifier with ``predict_proba``; no gradient in x.

    Probabilities are kept 1/(2N) from 0 and 1: N examples cannot tell a smaller one from nothing.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> ScikitLearn:
        """Fit a clone; ``generator`` is not used, for the estimator has its ``random_state``."""
        from sklearn.base import clone

        self.fitted = clone(self.estimator).fit(x.detach().cpu().numpy(), y.cpu().numpy())
        self._least = 1 / (2 * len(x))
        return self

    def logit(self, x: Tensor) -> Tensor:
        """The log-odds, in x's dtype and on its device."""
        ones = list(self.fitted.classes_).index(1)
        probability = self.fitted.predict_proba(x.detach().cpu().numpy())[:, ones]
        return torch.logit(torch.as_tensor(probability).to(x), eps=self._least)


class Standardise:
    """(x − mean) / std per feature; a heavy tail is bent: beyond a limit it goes on by a logarithm.

    The middle 80 % of a class, widened by three times their width on either side, are what the
    feature is expected to stay in: 8.9 standard deviations from the mean, for a Gaussian. Where it
    does, mean and std are those of the points. Where it does not, one far point would set them and
    leave every other point at 0: the median stands for the mean, the width for the std, and what
    lies beyond the wider of the two classes' limits is bent. Constant features stay.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        # (2, D) each, a row for a class
        low, high, width = torch.stack([_middle(x[y == label]) for label in (0, 1)], 1)
        low = torch.where(width > 0, low - 3 * width, x.amin(0)).amin(0)
        high = torch.where(width > 0, high + 3 * width, x.amax(0)).amax(0)
        is_heavy = ((x < low) | (x > high)).any(0)
        self.low = torch.where(is_heavy, low, -torch.inf)
        self.high = torch.where(is_heavy, high, torch.inf)
        self.mean = torch.where(is_heavy, x.median(0).values, x.mean(0))
        std = torch.where(is_heavy, width.mean(0) / 2.563, x.std(0))  # a Gaussian's width in std
        self.std = torch.where(std > 0, std, 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        within = x.clamp(self.low, self.high)
        beyond = (x - within) / self.std
        return (within - self.mean) / self.std + beyond.sign() * beyond.abs().log1p()


def _middle(x: Tensor) -> Tensor:
    """Where the middle 80 % of points ``(N, D)`` begin, end, and how wide they are, ``(3, D)``."""
    ordered = x.sort(0).values
    low, high = ordered[len(x) // 10], ordered[-1 - len(x) // 10]
    return torch.stack([low, high, high - low])


def newton(features: Tensor, y: Tensor, ridge: float, start: Tensor | None = None) -> Tensor:
    """The weights w that minimise Σ log_loss(features @ w, y) + ridge/2 Σ_{k≥1} (w_k − start_k)².

    Newton's method with its step halved while the loss rises; the first weight, the intercept, is
    free.

    Shapes: features ``(N, P)``, labels ``(N,)``, to weights ``(P,)``.
    """
    origin = torch.zeros(features.shape[1]).to(features) if start is None else start
    penalty = torch.full_like(origin, ridge).index_fill(0, torch.tensor([0]).to(y.device).long(), 0)

    def objective(w: Tensor) -> Tensor:
        return log_loss(features @ w, y).sum() + (penalty * (w - origin).square()).sum() / 2

    w = origin.clone()
    value = objective(w)
    for _ in range(100):
        d = torch.sigmoid(features @ w)
        gradient = features.T @ (d - y) + penalty * (w - origin)
        hessian = (features.T * (d * (1 - d))) @ features + torch.diag(penalty)
        hessian.diagonal().add_(1e-9 * len(y))  # the intercept's curvature dies when all is sure
        step = torch.linalg.solve(hessian, gradient)
        for halving in range(30):
            new = w - step / 2**halving
            if (new_value := objective(new)) <= value:
                break
        w, gain, value = new, value - new_value, new_value
        if gain <= 1e-10 * (1 + value):
            break
    return w


def check_classifier(classifier: Any) -> Classifier:
    """A classifier as `DensityRatio` uses it: ours as it is, scikit-learn's wrapped."""
    if hasattr(classifier, "logit") and hasattr(classifier, "fit"):
        return classifier
    if hasattr(classifier, "predict_proba") and hasattr(classifier, "fit"):
        return ScikitLearn(classifier)
    raise ValueError(
        "classifier must give probabilities: fit and predict_proba (scikit-learn), or fit and "
        f"logit; got {type(classifier).__name__}"
    )


def fitted(
    classifier: Classifier, x_p: Tensor, x_q: Tensor, generator: torch.Generator
) -> Classifier:
    """A copy of the classifier, fitted to x_p as label 1 and x_q as label 0."""
    y = torch.cat([torch.ones(len(x_p)), torch.zeros(len(x_q))]).to(x_p)
    return copy.deepcopy(classifier).fit(torch.cat([x_p, x_q]), y, generator)
