"""Lecture 2's exercises."""

EXERCISES = {
    "factor_variance": (
        "factor_variance = 0.36",
        [
            "factor_variance = 1.0",  # the marginal's
            "factor_variance = 0.6",  # the width
            "factor_variance = 1 / 0.36",  # the precision
            "factor_variance = 0.2",
        ],
    ),
    "sweep": (
        "def sweep(m, mean, precision):\n"
        "    m = m.clone()\n"
        "    for j in range(len(m)):\n"
        "        others = precision[j] @ (m - mean) - precision[j, j] * (m[j] - mean[j])\n"
        "        m[j] = mean[j] - others / precision[j, j]\n"
        "    return m",
        [
            # all at once, with the old values
            "def sweep(m, mean, precision):\n"
            "    d = precision.diagonal()\n"
            "    return mean - (precision @ (m - mean) - d * (m - mean)) / d",
            # the argument changed
            "def sweep(m, mean, precision):\n"
            "    for j in range(len(m)):\n"
            "        others = precision[j] @ (m - mean) - precision[j, j] * (m[j] - mean[j])\n"
            "        m[j] = mean[j] - others / precision[j, j]\n"
            "    return m",
            # i = j left in the sum
            "def sweep(m, mean, precision):\n"
            "    m = m.clone()\n"
            "    for j in range(len(m)):\n"
            "        m[j] = mean[j] - precision[j] @ (m - mean) / precision[j, j]\n"
            "    return m",
            # the sign
            "def sweep(m, mean, precision):\n"
            "    m = m.clone()\n"
            "    for j in range(len(m)):\n"
            "        others = precision[j] @ (m - mean) - precision[j, j] * (m[j] - mean[j])\n"
            "        m[j] = mean[j] + others / precision[j, j]\n"
            "    return m",
            "def sweep(m, mean, precision):\n    return mean",
        ],
    ),
    "responsibilities": (
        "def responsibilities(log_weights, log_densities):\n"
        "    joint = log_weights + log_densities\n"
        "    return np.exp(joint - np.logaddexp.reduce(joint, 1, keepdims=True))",
        [
            # over the points
            "def responsibilities(log_weights, log_densities):\n"
            "    joint = log_weights + log_densities\n"
            "    return np.exp(joint - np.logaddexp.reduce(joint, 0, keepdims=True))",
            # underflows
            "def responsibilities(log_weights, log_densities):\n"
            "    with np.errstate(all='ignore'):\n"
            "        joint = np.exp(log_weights + log_densities)\n"
            "        return joint / joint.sum(1, keepdims=True)",
            # without the weights
            "def responsibilities(log_weights, log_densities):\n"
            "    total = np.logaddexp.reduce(log_densities, 1, keepdims=True)\n"
            "    return np.exp(log_densities - total)",
            # the joint, not the posterior
            "def responsibilities(log_weights, log_densities):\n"
            "    return np.exp(log_weights + log_densities)",
            # transposed
            "def responsibilities(log_weights, log_densities):\n"
            "    joint = log_weights + log_densities\n"
            "    return np.exp(joint - np.logaddexp.reduce(joint, 1, keepdims=True)).T",
        ],
    ),
    "naming_costs": (
        "naming_costs = math.log(6)",
        ["naming_costs = math.log(3)", "naming_costs = 6", "naming_costs = -math.log(6)"],
    ),
    "digit_gains": (
        "digit_gains = 2 * math.log(10)",
        [
            "digit_gains = math.log(10)",
            "digit_gains = math.log(2)",
            "digit_gains = 4 * math.log(10)",
        ],
    ),
}
