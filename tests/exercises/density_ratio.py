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
    "corrected": (
        "def corrected(logit, n_p, n_q):\n    return logit - math.log(n_p / n_q)",
        [
            "def corrected(logit, n_p, n_q):\n    return logit",
            "def corrected(logit, n_p, n_q):\n    return logit + math.log(n_p / n_q)",
            "def corrected(logit, n_p, n_q):\n    return logit - math.log(n_p / (n_p + n_q))",
            "def corrected(logit, n_p, n_q):\n    return logit * n_q / n_p",
        ],
    ),
    "factor": (
        "factor = 2.0",
        ["factor = 1.0", "factor = 0.5", "factor = math.e"],
    ),
    "jsd_from_value": (
        "def jsd_from_value(v):\n    return (v + math.log(4)) / 2",
        [
            "def jsd_from_value(v):\n    return v + math.log(4)",  # the 2 forgotten
            "def jsd_from_value(v):\n    return (v - math.log(4)) / 2",
            "def jsd_from_value(v):\n    return v / 2",
        ],
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
    ),
}
