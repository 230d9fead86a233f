# Exercise 5, by what each version makes of maps that are not normalised.
FIND = (
    "h, s, t = 3 * torch.randn(6, 2, 8, 8) + 2, torch.rand(6, 2) + 0.3, torch.randn(6, 2)\n"
    "wrong = ''\n"
    "for name, f in suspects.items():\n"
    "    after = f(h, s, t)\n"
    "    off = (after.std((2, 3), correction=0) - s).abs() + (after.mean((2, 3)) - t).abs()\n"
    "    wrong += name if off.max() > 0.01 else ''"
)

EXERCISES = {
    "moments": (
        "moments = (2, 0.5)",
        [
            "moments = (-7, 8)",  # of 5 − 4h
            "moments = (2, -0.5)",  # a deviation below 0
            "moments = (0.5, 2)",
            "moments = 2",
            "moments = (2, 1)",
        ],
        [
            "moments = [2.0, 0.5]",
            "moments = torch.tensor([2, 0.5])",
            "moments = np.array([2, 0.5])",
        ],
    ),
    "hue_holder": (
        "hue_holder = 16",
        ["hue_holder = 4", "hue_holder = 8", "hue_holder = 2", "hue_holder = '16'"],
        ["hue_holder = g.sizes[-1]", "hue_holder = torch.tensor(16)", "hue_holder = 16.0"],
    ),
    "bias_of_100": (
        "bias_of_100 = 0.26",
        [
            "bias_of_100 = 0.52",  # of two samples
            "bias_of_100 = 0.08",  # the mean's part
            "bias_of_100 = 0.18",
            "bias_of_100 = 26",
            "bias_of_100 = '0.26'",
        ],
        ["bias_of_100 = (8 + 8 * 9 / 4) / 100", "bias_of_100 = torch.tensor(0.26)"],
    ),
    "at_infinity": (
        "def at_infinity(n, distances):\n"
        "    return np.polyfit(1 / np.asarray(n), np.asarray(distances), 1)[1]",
        [
            "def at_infinity(n, distances):\n"
            "    return np.polyfit(np.asarray(n), np.asarray(distances), 1)[1]",
            "def at_infinity(n, distances):\n"
            "    return np.polyfit(1 / np.asarray(n), np.asarray(distances), 1)[0]",
            "def at_infinity(n, distances):\n    return distances[-1]",
            "def at_infinity(n, distances):\n    return distances.mean()",
            # through the two ends only
            "def at_infinity(n, distances):\n"
            "    slope = (distances[0] - distances[-1]) / (1 / n[0] - 1 / n[-1])\n"
            "    return distances[-1] - slope / n[-1]",
        ],
        [
            "def at_infinity(n, distances):\n"
            "    u = torch.stack([torch.ones(len(n)).to(n), 1 / n], 1)\n"
            "    return torch.linalg.lstsq(u, distances[:, None]).solution[0, 0]",
            "def at_infinity(n, distances):\n"
            "    u = 1 / n\n"
            "    v = u - u.mean()\n"
            "    return distances.mean() - u.mean() * (v * distances).sum() / (v * v).sum()",
        ],
    ),
    "wrong": (
        FIND,
        [
            "wrong = 'AC'",
            "wrong = 'B'",
            "wrong = 'ABCD'",
            "wrong = 'ACE'",
            "wrong = 3",
            "wrong = ''",
        ],
        ["wrong = 'ACD'", "wrong = 'DCA'"],
    ),
}
