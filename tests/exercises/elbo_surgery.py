TWO_PARTS = (
    "def two_parts(table, prior):\n"
    "    q = table.mean(0)\n"
    "    joint = table / len(table)\n"
    "    return (q * (q / prior).log()).sum(), (joint * (table / q).log()).sum()"
)
LOG_WEIGHTS = (
    "def log_q(pairs, n):\n"
    "    size = len(pairs)\n"
    "    log_weights = torch.full_like(pairs, math.log((n - 1) / (n * (size - 1))))\n"
    "    log_weights.fill_diagonal_(-math.log(n))\n"
)

EXERCISES = {
    "two_parts": (
        TWO_PARTS,
        [
            # the two exchanged
            "def two_parts(table, prior):\n"
            "    q, joint = table.mean(0), table / len(table)\n"
            "    return (joint * (table / q).log()).sum(), (q * (q / prior).log()).sum()",
            # the reverse direction of the marginal KL
            TWO_PARTS.replace("(q * (q / prior).log())", "(prior * (prior / q).log())"),
            # q(z) is a sum, not a mean
            TWO_PARTS.replace("table.mean(0)", "table.sum(0)"),
            # the average KL in place of the marginal
            TWO_PARTS.replace("(q * (q / prior).log())", "(joint * (table / prior).log())"),
            # the average KL in place of the information
            TWO_PARTS.replace("(table / q)", "(table / prior)"),
            # without the weight of an example
            TWO_PARTS.replace("(joint * (table / q)", "(table * (table / q)"),
            # E log q(i|z), without q(i)
            TWO_PARTS.replace("(table / q)", "(joint / q)"),
            # the conditional entropy, which is what is left open
            TWO_PARTS.replace("(table / q).log()", "-(joint / q).log()"),
            # bits
            TWO_PARTS.replace(".log()", ".log2()"),
            # one value for each z
            TWO_PARTS.replace(".sum()", ".sum(-1)"),
            # one number
            "def two_parts(table, prior):\n"
            "    return (table * (table / prior).log()).sum(1).mean()",
        ],
        [
            # by differences and entropies, and as one tensor
            "def two_parts(table, prior):\n"
            "    q, p = Categorical(table.mean(0)), Categorical(prior)\n"
            "    average = kl_divergence(Categorical(table), p).mean()\n"
            "    return torch.stack([kl_divergence(q, p), average - kl_divergence(q, p)])",
            # in NumPy, with H[q(i|z)]
            "def two_parts(table, prior):\n"
            "    table, prior = np.asarray(table), np.asarray(prior)\n"
            "    q, given = table.mean(0), table / table.sum(0)\n"
            "    entropy = -(given * np.log(given)).sum(0)\n"
            "    return (q * np.log(q / prior)).sum(), np.log(len(table)) - (q * entropy).sum()",
        ],
    ),
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
        [
            "growth = 0.0",
            "growth = 0.7",  # once accepted: the tolerance was 0.01
            "growth = math.log(12)",
            "growth = 12 * math.log(2)",
            "growth = -math.log(2)",
            "growth = 1.0",
            "growth = 0.5",
        ],
        ["growth = 0.69", "growth = np.log(2)", "growth = torch.tensor(2.0).log()"],
    ),
    "ceilings": (
        "ceilings = (math.log(64), 2981)",
        [
            "ceilings = (math.log(60_000), 2981)",
            "ceilings = (math.log(64), 2980)",
            "ceilings = (math.log(64), 3000)",
            # once accepted, though none is a whole number
            "ceilings = (math.log(64), 2980.96)",
            "ceilings = (math.log(64), math.exp(8))",
            "ceilings = (math.log(64), 2981.9)",
            "ceilings = (math.log(64 * 60_000), 64)",
            "ceilings = (6, 2981)",
            "ceilings = 4.16",
        ],
        ["ceilings = (4.16, 2981)", "ceilings = [np.log(64), math.ceil(np.exp(8))]"],
    ),
    "log_q": (
        LOG_WEIGHTS + "    return (pairs + log_weights).logsumexp(1)",
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
            LOG_WEIGHTS + "    return (pairs + log_weights).logsumexp(0)",
            # the own weight one cell beside the diagonal, as in public code
            "def log_q(pairs, n):\n"
            "    size = len(pairs)\n"
            "    weights = torch.full_like(pairs, (n - 1) / (n * (size - 1)))\n"
            "    weights.view(-1)[1 :: size + 1] = 1 / n\n"
            "    return (pairs + weights.log()).logsumexp(1)",
            # the others stand for themselves only
            "def log_q(pairs, n):\n    return pairs.logsumexp(1) - math.log(n)",
            # an average of logarithms
            "def log_q(pairs, n):\n"
            "    size = len(pairs)\n"
            "    others = (pairs.sum(1) - pairs.diagonal()) / (size - 1)\n"
            "    return (pairs.diagonal().exp() / n + (n - 1) / n * others.exp()).log()",
            # one number
            "def log_q(pairs, n):\n    return pairs.logsumexp(1).mean() - math.log(n)",
        ],
    ),
    "corner_rate": (
        "corner_rate = math.log(5000)",
        [
            "corner_rate = 0.0",
            "corner_rate = 5000",
            "corner_rate = math.log2(5000)",
            "corner_rate = 8.5",
        ],
        ["corner_rate = 8.52"],
    ),
}
