EXERCISES = {
    "odds_there": (
        "odds_there = 0.25",
        [
            "odds_there = 4.0",  # the label the usual way
            "odds_there = 0.8",
            "odds_there = 0.2",
            "odds_there = 'a quarter'",
        ],
    ),
    "log_ratio_by_hand": (
        """\
def log_ratio_by_hand(x, x_p, x_q):
    y = torch.cat([torch.ones(len(x_p)), torch.zeros(len(x_q))]).to(x)
    w = fit_logistic(torch.cat([x_p, x_q]), y)
    return w[0] + w[1] * x - math.log(len(x_p) / len(x_q))""",
        [
            """\
def log_ratio_by_hand(x, x_p, x_q):  # the counts forgotten
    y = torch.cat([torch.ones(len(x_p)), torch.zeros(len(x_q))]).to(x)
    w = fit_logistic(torch.cat([x_p, x_q]), y)
    return w[0] + w[1] * x""",
            """\
def log_ratio_by_hand(x, x_p, x_q):  # the other sign
    y = torch.cat([torch.ones(len(x_p)), torch.zeros(len(x_q))]).to(x)
    w = fit_logistic(torch.cat([x_p, x_q]), y)
    return w[0] + w[1] * x + math.log(len(x_p) / len(x_q))""",
            """\
def log_ratio_by_hand(x, x_p, x_q):  # the label turned round
    y = torch.cat([torch.zeros(len(x_p)), torch.ones(len(x_q))]).to(x)
    w = fit_logistic(torch.cat([x_p, x_q]), y)
    return w[0] + w[1] * x - math.log(len(x_q) / len(x_p))""",
            """\
def log_ratio_by_hand(x, x_p, x_q):  # the share of p for the odds
    y = torch.cat([torch.ones(len(x_p)), torch.zeros(len(x_q))]).to(x)
    w = fit_logistic(torch.cat([x_p, x_q]), y)
    return w[0] + w[1] * x - math.log(len(x_p) / (len(x_p) + len(x_q)))""",
            """\
def log_ratio_by_hand(x, x_p, x_q):  # the ratio, not its logarithm
    y = torch.cat([torch.ones(len(x_p)), torch.zeros(len(x_q))]).to(x)
    w = fit_logistic(torch.cat([x_p, x_q]), y)
    return (w[0] + w[1] * x).exp() * len(x_q) / len(x_p)""",
            """\
def log_ratio_by_hand(x, x_p, x_q):  # the intercept forgotten
    y = torch.cat([torch.ones(len(x_p)), torch.zeros(len(x_q))]).to(x)
    return fit_logistic(torch.cat([x_p, x_q]), y)[1] * x""",
        ],
        [
            """\
def log_ratio_by_hand(x, x_p, x_q):  # NumPy, labels by comparison, the counts in D
    data = torch.cat([x_p, x_q])
    w = fit_logistic(data, (torch.arange(len(data)) < len(x_p)).to(data)).numpy()
    d = 1 / (1 + np.exp(-w[0] - w[1] * x.numpy()))
    return np.log(d / (1 - d) * len(x_q) / len(x_p))""",
            """\
def log_ratio_by_hand(x, x_p, x_q):  # the library's classifier
    return DensityRatio(Logistic()).fit(x_p[:, None], x_q[:, None]).log_ratio(x[:, None])""",
        ],
    ),
    "jsd_from_value": (
        "def jsd_from_value(v):\n    return (v + math.log(4)) / 2",
        [
            "def jsd_from_value(v):\n    return v + math.log(4)",  # the 2 forgotten
            "def jsd_from_value(v):\n    return (v - math.log(4)) / 2",
            "def jsd_from_value(v):\n    return v / 2",
        ],
        ["jsd_from_value = lambda v: np.log(2) + v / 2"],
    ),
    "sum_sees": (
        "sum_sees = (0.9 - math.log(1.9)) / 2",
        [
            "sum_sees = -math.log(1 - 0.9**2) / 2",  # the whole total correlation
            "sum_sees = 0.0",  # what a linear classifier sees
            "sum_sees = (1 / 1.9 - 1 + math.log(1.9)) / 2",  # KL turned round
            "sum_sees = (1.9**0.5 - 1 - math.log(1.9**0.5)) / 2",  # deviations for variances
            "sum_sees = 0.9 - math.log(1.9)",  # the half forgotten
        ],
        ["sum_sees = 0.129", "sum_sees = np.array(0.12907)"],
    ),
    "factor": (
        "factor = 2.0",
        [
            "factor = 1.0",
            "factor = 0.5",
            "factor = math.e",
            "factor = 2.05",  # was accepted: the grid that found the minimum was coarse
            "factor = 1.99",
        ],
        ["factor = 2", "factor = np.float32(2)"],
    ),
}
