def _elbo_terms(
    codes="mean",
    square="r**2 + variance @ (W**2).T",
    noise="psi",
    constant="(2 * math.pi * psi).log()",
    per_feature="sum(1)",
    half="0.5",
    log="variance.log()",
    per_latent="sum(1)",
):
    return f"""def elbo_terms(x, W, b, psi, mean, variance):
    r = x - ({codes}) @ W.T - b
    reconstruction = -0.5 * ({constant} + ({square}) / {noise}).{per_feature}
    kl = {half} * (mean**2 + variance - 1 - {log}).{per_latent}
    return reconstruction, kl"""


EXERCISES = {
    "worth_one_nat": (
        "worth_one_nat = (1 - math.exp(-2)) ** 0.5",
        [
            "worth_one_nat = 1 - math.exp(-2)",  # ρ², not ρ
            "worth_one_nat = (1 - math.exp(-1)) ** 0.5",  # the ½ forgotten
            "worth_one_nat = 0.8",
            "worth_one_nat = 1.0",
            "worth_one_nat = -((1 - math.exp(-2)) ** 0.5)",  # the other sign
        ],
        [
            "worth_one_nat = 0.93",
            "worth_one_nat = np.sqrt(1 - np.exp(-2))",
            "worth_one_nat = torch.tensor(1 - math.exp(-2)).sqrt()",
        ],
    ),
    "effective_beta": (
        "effective_beta = 64.0",
        [
            "effective_beta = 1 / 64",  # turned round
            "effective_beta = 1.0",
            "effective_beta = 32.0",  # a half counted twice
            "effective_beta = 64 / 3",  # the KL averaged too
        ],
        ["effective_beta = 64", "effective_beta = torch.tensor(64.0)"],
    ),
    "elbo_terms": (
        _elbo_terms(),
        [
            _elbo_terms(square="r**2"),  # the code's variance forgotten
            _elbo_terms(square="r**2 + variance @ W.T"),  # W where W² belongs
            _elbo_terms(square="r**2 + variance.sqrt() @ (W**2).T"),  # a deviation for a variance
            _elbo_terms(constant="psi.log()"),  # without 2π
            _elbo_terms(noise="psi.sqrt()"),  # a deviation for a variance
            _elbo_terms(per_feature="mean(1)"),  # a mean over features
            _elbo_terms(per_latent="mean(1)"),  # a mean over latents
            _elbo_terms(per_latent="sum()"),  # one number for the batch
            _elbo_terms(half="1"),  # no half
            _elbo_terms(half="-0.5"),  # the other sign
            _elbo_terms(log="variance.sqrt().log()"),  # a deviation for a variance
            _elbo_terms(codes="torch.randn_like(mean)"),  # the prior's codes
            _elbo_terms(codes="mean + variance.sqrt() * torch.randn_like(mean)", square="r**2"),
            "def elbo_terms(x, W, b, psi, mean, variance):\n    return x[:, 0]",
        ],
        [
            # by distributions
            "def elbo_terms(x, W, b, psi, mean, variance):\n"
            "    Normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence\n"
            "    of_mean_code = Normal(mean @ W.T + b, psi.sqrt()).log_prob(x).sum(1)\n"
            "    reconstruction = of_mean_code - 0.5 * (variance @ (W**2).T / psi).sum(1)\n"
            "    prior = Normal(torch.zeros_like(mean), 1.0)\n"
            "    return reconstruction, kl(Normal(mean, variance.sqrt()), prior).sum(1)",
            # in NumPy
            "def elbo_terms(*given):\n"
            "    x, W, b, psi, m, s2 = (g.numpy() for g in given)\n"
            "    r2 = (x - m @ W.T - b) ** 2 + s2 @ (W**2).T\n"
            "    rec = -0.5 * (np.log(2 * np.pi * psi) + r2 / psi).sum(1)\n"
            "    return rec, 0.5 * (m**2 + s2 - 1 - np.log(s2)).sum(1)",
        ],
    ),
    "bound_from": (
        "def bound_from(log_w):\n    return log_w.logsumexp(0) - math.log(len(log_w))",
        [
            # an average of logarithms: the ELBO
            "def bound_from(log_w):\n    return log_w.mean(0)",
            # underflows
            "def bound_from(log_w):\n    return log_w.exp().mean(0).log()",
            # a sum of weights
            "def bound_from(log_w):\n    return log_w.logsumexp(0)",
            # over the examples
            "def bound_from(log_w):\n    return log_w.logsumexp(1) - math.log(log_w.shape[1])",
        ],
        [
            # by hand
            "def bound_from(log_w):\n"
            "    top = log_w.max(0).values\n"
            "    return top + (log_w - top).exp().mean(0).log()",
            # in NumPy, which was refused
            "def bound_from(log_w):\n"
            "    log_w = log_w.numpy()\n"
            "    top = log_w.max(0)\n"
            "    return top + np.log(np.exp(log_w - top).mean(0))",
        ],
    ),
    "charged": (
        "charged = 0.5 + 0.5 + 0.7 + 1.0",
        [
            "charged = 2.0",  # the plain sum, or the maximum of the sum
            "charged = 1.7",  # the small ones for nothing
            "charged = 0.7",  # only what is above the threshold
            "charged = 0.5 + 2.0",  # one allowance on top
        ],
        ["charged = torch.tensor(2.7)", "charged = np.float32(2.7)"],
    ),
}
