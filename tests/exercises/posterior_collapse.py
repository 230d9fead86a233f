EXERCISES = {
    "worth_one_nat": (
        "worth_one_nat = (1 - math.exp(-2)) ** 0.5",
        [
            "worth_one_nat = 1 - math.exp(-2)",  # ρ², not ρ
            "worth_one_nat = (1 - math.exp(-1)) ** 0.5",  # the ½ forgotten
            "worth_one_nat = 0.8",
            "worth_one_nat = -((1 - math.exp(-2)) ** 0.5)",  # the other sign
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
    ),
    "kl_of_batch": (
        "def kl_of_batch(mean, log_variance):\n"
        "    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)",
        [
            # a mean over latents
            "def kl_of_batch(mean, log_variance):\n"
            "    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean(1)",
            # the axis kept, which would broadcast
            "def kl_of_batch(mean, log_variance):\n"
            "    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)\n"
            "    return kl.sum(1, keepdim=True)",
            # one number for the batch
            "def kl_of_batch(mean, log_variance):\n"
            "    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum()",
            # no half
            "def kl_of_batch(mean, log_variance):\n"
            "    return (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)",
            # the standard deviation where the variance belongs
            "def kl_of_batch(mean, log_variance):\n"
            "    return 0.5 * (mean**2 + (0.5 * log_variance).exp() - 1 - log_variance).sum(1)",
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
    ),
    "charged": (
        "charged = 0.5 + 0.5 + 0.7 + 1.0",
        [
            "charged = 2.0",  # the plain sum, or the maximum of the sum
            "charged = 1.7",  # the small ones for nothing
            "charged = 0.7",  # only what is above the threshold
        ],
    ),
}
