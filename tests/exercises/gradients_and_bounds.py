# What each draw's value is compared with, in exercise 1.
OTHERS = "(f.sum() - f) / (len(f) - 1)"


def leave_one_out(baseline: str, returns: str = "(f - b)[:, None] * score") -> str:
    return f"def leave_one_out(f, score):\n    b = {baseline}\n    return {returns}"


# The bound of exercise 2: one draw for numerator and denominator.
DRAW = "def bound(log_joint, q, k):\n    z = q.sample((k,))\n"


def bound(returns: str, log_w: str = "log_joint(z) - q.log_prob(z)") -> str:
    return f"{DRAW}    log_w = {log_w}\n    return {returns}"


EXERCISES = {
    "leave_one_out": (
        leave_one_out(OTHERS),
        [
            leave_one_out("f.mean()"),  # its own draw is in it
            leave_one_out("0.0"),
            leave_one_out("f.sum() - f"),  # a sum
            leave_one_out(OTHERS, "(b - f)[:, None] * score"),
            leave_one_out(OTHERS, "((f - b)[:, None] * score).mean(0)"),  # the average at once
            leave_one_out(OTHERS, "(f - b) @ score"),
            leave_one_out("(f.sum() - f) / len(f)"),
        ],
        [
            # a covariance: the mean of all, and S − 1 instead of S
            leave_one_out("f.mean()", "(f - b)[:, None] * score * len(f) / (len(f) - 1)"),
            # draw by draw
            "def leave_one_out(f, score):\n"
            "    rows = []\n"
            "    for s in range(len(f)):\n"
            "        others = torch.cat([f[:s], f[s + 1 :]])\n"
            "        rows.append((f[s] - others.mean()) * score[s])\n"
            "    return torch.stack(rows)",
            "def leave_one_out(f, score):\n"
            "    values = f.numpy()\n"
            "    b = (values.sum() - values) / (len(values) - 1)\n"
            "    return (values - b)[:, None] * score.numpy()",
        ],
    ),
    "bound": (
        bound("torch.logsumexp(log_w, 0) - math.log(k)"),
        [
            bound("log_w.mean(0)"),  # an average of logarithms
            bound("torch.logsumexp(log_w, 0)"),  # the sum's
            bound("log_w.exp().mean(0).log()"),  # underflow
            bound("torch.logsumexp(log_w, 1) - math.log(k)"),  # over images
            bound("torch.logsumexp(log_w, 0) - math.log(k)", "log_joint(z)"),  # q forgotten
            # a second draw below
            bound(
                "torch.logsumexp(log_w, 0) - math.log(k)",
                "log_joint(z) - q.log_prob(q.sample((k,)))",
            ),
            # the entropy in closed form inside each weight
            bound("torch.logsumexp(log_w, 0) - math.log(k)", "log_joint(z) + q.entropy()"),
            # means over latents
            bound(
                "torch.logsumexp(log_w, 0) - math.log(k)",
                "log_joint(z) - q.base_dist.log_prob(z).mean(-1)",
            ),
            bound("(torch.softmax(log_w, 0) * log_w).sum(0)"),  # the surrogate
            bound("torch.logsumexp(log_w, 0).mean() - math.log(k)"),  # one number a batch
        ],
        [
            bound("log_mean_exp(log_w, 0)"),
            bound("m + (log_w - m).exp().mean(0).log()", "log_joint(z) - q.log_prob(z)").replace(
                "    return m", "    m = log_w.max(0).values\n    return m"
            ),
            # code by code
            "def bound(log_joint, q, k):\n"
            "    total = None\n"
            "    for _ in range(k):\n"
            "        z = q.rsample((1,))\n"
            "        log_w = (log_joint(z) - q.log_prob(z))[0]\n"
            "        total = log_w if total is None else torch.logaddexp(total, log_w)\n"
            "    return total - np.log(k)",
        ],
    ),
    "moves": (
        'moves = ("rises", "falls")',
        [
            'moves = ("rises", "rises")',
            'moves = ("falls", "falls")',
            'moves = ("falls", "rises")',
            'moves = "rises"',
            "moves = (1, -1)",
        ],
    ),
    "best_b": (
        "best_b = 1 + 3 * 0.1**2",
        [
            "best_b = 1.01",  # E f
            "best_b = 1.0",  # f(μ)
            "best_b = 0.0",
            "best_b = 2.0",
            "best_b = 1.3",  # 3σ for 3σ²
        ],
        ["best_b = 1.03", "best_b = np.float64(1.03)", "best_b = torch.tensor(1.03)"],
    ),
    "biased": (
        'biased = "BD"',
        [
            'biased = "B"',
            'biased = "D"',
            'biased = "ABD"',  # a far constant costs variance only
            'biased = "BCD"',
            'biased = "BDE"',  # all but z_j may be known
            'biased = ""',
            'biased = "ABCDE"',
            'biased = "xyz"',
            "biased = 2",
        ],
        ['biased = "DB"', 'biased = "".join(["B", "D"])'],
    ),
    "n_codes": (
        "n_codes = round(((2 / math.sqrt(3)) ** 20 - 1) / (2 * 0.01))",
        [
            "n_codes = 1676",  # without the 2
            "n_codes = 155",  # variances added
            "n_codes = 8",  # one latent
            "n_codes = 1",  # variances multiplied
            "n_codes = 17",  # 1 / k for 1 / 2k, of 0.5 nats
        ],
        ["n_codes = 838", "n_codes = 837.9", "n_codes = np.ceil(((4 / 3) ** 10 - 1) / 0.02)"],
    ),
    "lower": (
        'lower = "AB"',
        [
            'lower = "A"',
            'lower = "B"',
            'lower = "ABC"',  # the surrogate
            'lower = "ABD"',
            'lower = "ABE"',
            'lower = "CDE"',
            "lower = True",
        ],
        ['lower = "BA"'],
    ),
}
