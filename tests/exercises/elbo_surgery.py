EXERCISES = {
    "reconstruction": (
        "def reconstruction(mean, scale):\n"
        "    square = (x_seen - mean) ** 2 + scale**2\n"
        "    return -0.5 * math.log(2 * math.pi * 0.25) - square / (2 * 0.25)",
        [
            # at the mean of q only
            "def reconstruction(mean, scale):\n    return Normal(mean, 0.5).log_prob(x_seen)",
            # no normaliser
            "def reconstruction(mean, scale):\n"
            "    return -((x_seen - mean) ** 2 + scale**2) / (2 * 0.25)",
            # the likelihood of x averaged, not its logarithm
            "def reconstruction(mean, scale):\n"
            "    return Normal(mean, math.sqrt(0.25 + scale**2)).log_prob(x_seen)",
            # the KL left in
            "def reconstruction(mean, scale):\n    return readings(mean, scale)[2].sum()",
        ],
    ),
    "growth": (
        "growth = math.log(2)",
        ["growth = 0.0", "growth = math.log(12)", "growth = 12 * math.log(2)", "growth = 0.5"],
    ),
    "ceilings": (
        "ceilings = (math.log(64), 2981)",
        [
            "ceilings = (math.log(60_000), 2981)",
            "ceilings = (math.log(64), 2980)",
            "ceilings = (math.log(64), 3000)",
            "ceilings = (math.log(64 * 60_000), 64)",
            "ceilings = 4.16",
        ],
    ),
    "log_q": (
        "def log_q(pairs, n):\n"
        "    size = len(pairs)\n"
        "    log_weights = torch.full_like(pairs, math.log((n - 1) / (n * (size - 1))))\n"
        "    log_weights.fill_diagonal_(-math.log(n))\n"
        "    return (pairs + log_weights).logsumexp(1)",
        [
            # the batch mean
            "def log_q(pairs, n):\n    return pairs.logsumexp(1) - math.log(len(pairs))",
            # the weighted sum of β-TCVAE
            "def log_q(pairs, n):\n    return pairs.logsumexp(1) - math.log(len(pairs) * n)",
            # the own posterior left out
            "def log_q(pairs, n):\n"
            "    others = pairs.clone().fill_diagonal_(-math.inf)\n"
            "    return others.logsumexp(1) - math.log(len(pairs) - 1)",
            # the right weights over the wrong index
            "def log_q(pairs, n):\n"
            "    size = len(pairs)\n"
            "    log_weights = torch.full_like(pairs, math.log((n - 1) / (n * (size - 1))))\n"
            "    log_weights.fill_diagonal_(-math.log(n))\n"
            "    return (pairs + log_weights).logsumexp(0)",
            # the own weight one cell beside the diagonal, as in public code
            "def log_q(pairs, n):\n"
            "    size = len(pairs)\n"
            "    weights = torch.full_like(pairs, (n - 1) / (n * (size - 1)))\n"
            "    weights.view(-1)[1 :: size + 1] = 1 / n\n"
            "    return (pairs + weights.log()).logsumexp(1)",
            # one number
            "def log_q(pairs, n):\n    return pairs.logsumexp(1).mean() - math.log(n)",
        ],
    ),
    "corner_rate": (
        "corner_rate = math.log(5000)",
        ["corner_rate = 0.0", "corner_rate = 5000", "corner_rate = math.log2(5000)"],
    ),
}
