EXERCISES = {
    "best_critic": (
        "def best_critic(z, m, s):\n    return z**2 / 2 - ((z - m) / s) ** 2 / 2 - math.log(s)",
        [
            # the ratio turned round
            "def best_critic(z, m, s):\n    return ((z - m) / s) ** 2 / 2 - z**2 / 2 + math.log(s)",
            # the normaliser is missing
            "def best_critic(z, m, s):\n    return z**2 / 2 - ((z - m) / s) ** 2 / 2",
            # the ratio itself
            "def best_critic(z, m, s):\n"
            "    return (Normal(m, s).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).exp()",
            "def best_critic(z, m, s):\n    return Normal(m, s).log_prob(z)",
            # a probability, not log-odds
            "def best_critic(z, m, s):\n"
            "    return torch.sigmoid(Normal(m, s).log_prob(z) - Normal(0.0, 1.0).log_prob(z))",
            # s² for s
            "def best_critic(z, m, s):\n"
            "    return z**2 / 2 - (z - m) ** 2 / s / 2 - math.log(s) / 2",
            "def best_critic(z, m, s):\n"
            "    return (z**2 / 2 - ((z - m) / s) ** 2 / 2 - math.log(s)).mean()",
            "best_critic = 1.0",
        ],
        [
            "def best_critic(z, m, s):\n"
            "    return Normal(m, s).log_prob(z) - Normal(0.0, 1.0).log_prob(z)",
            "def best_critic(z, m, s):\n    return gaussian_log_ratio(z[:, None], m, s)",
            "def best_critic(z, m, s):\n"
            "    z = z.numpy()\n"
            "    return (z**2 - ((z - m) / s) ** 2) / 2 - np.log(s)",
        ],
    ),
    "value": (
        "def value(log_likelihood, turned):\n    return (log_likelihood + turned).mean()",
        [
            "def value(log_likelihood, turned):\n    return (log_likelihood - turned).mean()",
            "def value(log_likelihood, turned):\n    return -(log_likelihood + turned).mean()",
            "def value(log_likelihood, turned):\n    return (log_likelihood + turned).sum()",
            "def value(log_likelihood, turned):\n    return log_likelihood + turned",
            "def value(log_likelihood, turned):\n    return log_likelihood.mean()",
            "def value(log_likelihood, turned):\n"
            "    return (log_likelihood + torch.sigmoid(turned)).mean()",
            "value = 1.0",
        ],
        [
            "def value(log_likelihood, turned):\n"
            "    return float(np.mean(log_likelihood.numpy() + turned.numpy()))",
            "def value(log_likelihood, turned):\n    return log_likelihood.mean() + turned.mean()",
        ],
    ),
    "said_too_much": (
        "said_too_much = math.log(2) - 3 / 8",
        [
            "said_too_much = math.log(2)",
            "said_too_much = 1.5 - math.log(2)",  # the other way round
            "said_too_much = math.log(2) - 1 / 4",  # widths, not their squares
            "said_too_much = 3 / 8 - math.log(2)",
            "said_too_much = '0.318'",
        ],
        ["said_too_much = 0.318", "said_too_much = too_much(torch.tensor(0.5), 1.0)"],
    ),
    "highest_value": (
        "highest_value = -math.log(0.3 * math.sqrt(2 * math.pi))",
        [
            "highest_value = math.log(0.3 * math.sqrt(2 * math.pi))",
            "highest_value = -math.log(0.3 * math.sqrt(2 * math.pi)) - 0.5",
            "highest_value = 1 / (0.3 * math.sqrt(2 * math.pi))",
            "highest_value = TARGETS['banana'][3].log_evidence",
            "highest_value = 0",
            "highest_value = math.inf",
            "highest_value = 'high'",
        ],
        ["highest_value = 0.285", "highest_value = Normal(0.0, 0.3).log_prob(torch.tensor(0.0))"],
    ),
    "cost_of_lost": (
        "cost_of_lost = math.log(5 / 2)",
        [
            "cost_of_lost = math.log(5 / 3)",
            "cost_of_lost = math.log(5)",
            "cost_of_lost = 3 * math.log(2)",
            "cost_of_lost = math.log(2)",
            "cost_of_lost = -math.log(5 / 2)",
            "cost_of_lost = 0.6",
            "cost_of_lost = '0.916'",
        ],
        [
            "cost_of_lost = 0.916",
            "cost_of_lost = torch.tensor(2.5).log()",
            "cost_of_lost = np.log(2.5)",
        ],
    ),
    "least_of_joint": (
        "least_of_joint = (2 / 1.25 - 1 + math.log(1.25)) / 2",
        [
            "least_of_joint = 0",
            "least_of_joint = (1.25 + 1 - 1 - math.log(1.25)) / 2",  # KL(p ‖ q)
            "least_of_joint = 0.5",
            "least_of_joint = -(2 / 1.25 - 1 + math.log(1.25)) / 2",
            "least_of_joint = (1 / 1.25 + 1 - 1 + math.log(1.25)) / 2",  # the shift is not scaled
            "least_of_joint = '0.41'",
        ],
        [
            "least_of_joint = 0.4116",
            "least_of_joint = torch.distributions.kl_divergence(\n"
            "    Normal(1.0, 1.0), Normal(torch.tensor(0.0), 1.25**0.5)\n"
            ")",
        ],
    ),
}
