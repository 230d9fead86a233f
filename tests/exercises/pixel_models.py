# Exercise 3, by a loop over the rows.
SKEW = (
    "def skew_rows(x):\n"
    "    height, width = x.shape\n"
    "    y = torch.zeros(height, height + width - 1)\n"
    "    for i in range(height):\n"
    "        y[i, {place}] = x[i]\n"
    "    return y"
)


def log_bin(terms: str, half: str = "1 / (n_levels - 1)", edges: bool = True) -> str:
    """Exercise 4, from the bin's edges a and b, and log masses of inner levels."""
    lines = [
        "def log_bin(level, mean, log_s, n_levels):",
        f"    x, half = 2 * level / (n_levels - 1) - 1, {half}",
        "    a, b = (x - half - mean) / log_s.exp(), (x + half - mean) / log_s.exp()",
        f"    inner = {terms}",
    ]
    if edges:
        lines.append("    inner = torch.where(level == 0, logsigmoid(b), inner)")
        lines.append("    inner = torch.where(level == n_levels - 1, logsigmoid(-a), inner)")
    return "\n".join([*lines, "    return inner"])


WIDTH = "torch.log(-torch.expm1(-2 * half / log_s.exp()))"
THREE = f"logsigmoid(b) + logsigmoid(-a) + {WIDTH}"

EXERCISES = {
    "n_seen": (
        "n_seen = 51",
        ["n_seen = 49", "n_seen = 58", "n_seen = 57", "n_seen = True", "n_seen = '51'"],
        ["n_seen = 51.0", "n_seen = 3 + 7 + 8 + 4 * 9 - 3"],
    ),
    "missed": (
        "missed = (4, 7)",
        ["missed = (7, 4)", "missed = (4, 6)", "missed = (5, 4)", "missed = 39"],
        ["missed = [4, 7]", "missed = torch.tensor([4, 7])"],
    ),
    "skew_rows": (
        SKEW.format(place="i : i + width"),
        [
            SKEW.format(place="height - 1 - i : height - 1 - i + width"),  # the other way
            SKEW.format(place=":width"),  # not at all
            "def skew_rows(x):\n    return x",
            "def skew_rows(x):\n    return torch.nn.functional.pad(x, (0, len(x) - 1)).roll(1, 1)",
        ],
        [
            "skew_rows = skew",
            "def skew_rows(x):\n"
            "    h, w = x.shape\n"
            "    longer = torch.cat([x, torch.zeros(h, h)], 1).flatten()\n"
            "    return longer[:-h].view(h, h + w - 1)",
            "def skew_rows(x):\n"
            "    x = np.asarray(x)\n"
            "    h, w = x.shape\n"
            "    return np.stack([np.concatenate([np.zeros(i), x[i], np.zeros(h - 1 - i)])\n"
            "        for i in range(h)])",
        ],
    ),
    "log_bin": (
        log_bin(THREE),
        [
            log_bin("torch.log(torch.sigmoid(b) - torch.sigmoid(a))"),  # as it stands
            log_bin(THREE, edges=False),  # closed at both ends
            log_bin(THREE, half="1 / 255"),  # of 256 levels, whatever V is
            log_bin("logsigmoid(b) + logsigmoid(-a)"),  # the third term
            log_bin(THREE).replace("return inner", "return inner.sum()"),
            # a floor under the mass: finite, and no gradient
            log_bin("torch.log((torch.sigmoid(b) - torch.sigmoid(a)).clamp_min(1e-12))"),
        ],
        [
            log_bin(
                f"-torch.nn.functional.softplus(-b) - torch.nn.functional.softplus(a) + {WIDTH}"
            ),
            log_bin(
                "logsigmoid(b) + logsigmoid(-a) + torch.log1p(-torch.exp(-2 * half / log_s.exp()))"
            ),
            "def log_bin(level, mean, log_s, n_levels):\n"
            "    numbers = (mean * torch.ones(1, 1), log_s * torch.ones(1, 1))\n"
            "    zero = torch.zeros(1, 1).double()\n"
            "    return discretised_logistics(zero, *numbers, n_levels=n_levels)[0][level]",
        ],
    ),
    "leaky": (
        "leaky = 'BC'",
        ["leaky = 'B'", "leaky = 'AC'", "leaky = 'ABCD'", "leaky = ''", "leaky = ['B', 'C']"],
        [
            "leaky = 'CB'",
            "leaky = ''.join(name for name, model in suspects.items() if abs(\n"
            "    model.log_prob(all_images(2, 1, (2, 4))).exp().sum() - 1) > 1e-6)",
        ],
    ),
    "worth": (
        "worth = 'under 2'",
        ["worth = 'over 5'", "worth = '2 to 5'", "worth = 0.9"],
    ),
}
