EXERCISES = {
    "kept": (
        "kept = lambda eta: eta",
        [
            "kept = lambda eta: -eta",
            "kept = lambda eta: 0",
            "kept = lambda eta: eta**2",
            "kept = lambda eta: 2 * eta",
            "kept = lambda eta: 1 / eta",
            "kept = 0.3",
        ],
        [
            "def kept(eta):\n    return 1.0 * eta",
            "kept = lambda eta: torch.as_tensor(eta)",
            "kept = float",
        ],
    ),
    "best_gamma": (
        "best_gamma = 1",
        [
            "best_gamma = 0",
            "best_gamma = 0.5",
            "best_gamma = 2.0",
            "best_gamma = -1",
            "best_gamma = '1'",
            "best_gamma = True",
        ],
        ["best_gamma = 1.0", "best_gamma = torch.tensor(1.0)", "best_gamma = np.float64(1)"],
    ),
    "pull": (
        "pull = 100",
        ["pull = 10", "pull = 0", "pull = 200", "pull = 50", "pull = 1000", "pull = '100'"],
        ["pull = 100.0", "pull = -100", "pull = torch.tensor(100.0)", "pull = 1 / 0.1**2"],
    ),
    "smoothed": (
        "def smoothed(p, q, alpha, beta):\n    return ((1 - alpha) * p + beta * q) / (p + q)",
        [
            "smoothed = lambda p, q, alpha, beta: p / (p + q)",
            "smoothed = lambda p, q, alpha, beta: (1 - alpha) * p / (p + q)",  # β is forgotten
            "smoothed = lambda p, q, alpha, beta: ((1 - alpha) * q + beta * p) / (p + q)",
            "smoothed = lambda p, q, alpha, beta: (1 - alpha) * p / ((1 - alpha) * p + q)",
            "smoothed = lambda p, q, alpha, beta: ((1 - alpha) * p + beta * q)",
            "smoothed = lambda p, q, alpha, beta: torch.tensor(0.5)",
            # the two sides exchanged
            "smoothed = lambda p, q, alpha, beta: ((1 - beta) * p + alpha * q) / (p + q)",
        ],
        [
            "def smoothed(p, q, alpha, beta):\n"
            "    d = p / (p + q)\n"
            "    return beta + (1 - alpha - beta) * d",
            "def smoothed(p, q, alpha, beta):\n"
            "    return gan.optimal_discriminator(p.log(), q.log(), alpha=alpha, beta=beta)",
        ],
    ),
    "leaky": (
        "leaky = 'BD'",
        [
            "leaky = 'B'",
            "leaky = 'D'",
            "leaky = 'AC'",
            "leaky = 'BCD'",
            "leaky = 'ABCD'",
            "leaky = 'BDE'",
            "leaky = 2",
        ],
        [
            "leaky = 'DB'",
            "x = images[:4]\n"
            "leaky = ''.join(\n"
            "    k for k, d in suspects.items() if (d(x)[0] - d(x[:2])[0]).abs() > 1e-6)",
        ],
    ),
    "ranks": (
        "ranks = (16, 64)",
        [
            "ranks = (16, 100)",
            "ranks = (64, 64)",
            "ranks = (16, 16)",
            "ranks = 16",
            "ranks = (64, 100)",
        ],
        ["ranks = [16, 64]", "ranks = torch.tensor([16, 64])", "ranks = rank(narrow), rank(wide)"],
    ),
}
