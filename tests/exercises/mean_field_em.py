"""Lecture 2's exercises."""

EXERCISES = {
    "factor_variance": (
        "factor_variance = 0.36",
        [
            "factor_variance = 1.0",  # the marginal's
            "factor_variance = 0.6",  # the width
            "factor_variance = 1 / 0.36",  # the precision
            "factor_variance = 0.2",
            "factor_variance = (0.36, 0.6)",
        ],
        ["factor_variance = (0.36, 0.36)", "factor_variance = np.array([0.36, 0.36])"],
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
            # in reverse order
            "def sweep(m, mean, precision):\n"
            "    for j in reversed(range(len(m))):\n"
            "        others = precision[j] @ (m - mean) - precision[j, j] * (m[j] - mean[j])\n"
            "        m[j] = mean[j] - others / precision[j, j]\n"
            "    return m",
            # two sweeps
            "def sweep(m, mean, precision):\n"
            "    for j in [*range(len(m))] * 2:\n"
            "        others = precision[j] @ (m - mean) - precision[j, j] * (m[j] - mean[j])\n"
            "        m[j] = mean[j] - others / precision[j, j]\n"
            "    return m",
        ],
        [
            # in place: the caller's means are its own
            "def sweep(m, mean, precision):\n"
            "    for j in range(len(m)):\n"
            "        others = precision[j] @ (m - mean) - precision[j, j] * (m[j] - mean[j])\n"
            "        m[j] = mean[j] - others / precision[j, j]\n"
            "    return m",
            # a list, in NumPy
            "def sweep(m, mean, precision):\n"
            "    m, mean, precision = m.numpy().copy(), mean.numpy(), precision.numpy()\n"
            "    for j in range(len(m)):\n"
            "        i = [k for k in range(len(m)) if k != j]\n"
            "        m[j] = mean[j] - precision[j, i] @ (m[i] - mean[i]) / precision[j, j]\n"
            "    return list(m)",
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
            # one component's share lost: what an earlier check let pass
            "def responsibilities(log_weights, log_densities):\n"
            "    joint = log_weights + log_densities\n"
            "    joint[:, 1] = -math.inf\n"
            "    return np.exp(joint - np.logaddexp.reduce(joint, 1, keepdims=True))",
            # one weight forgotten, likewise
            "def responsibilities(log_weights, log_densities):\n"
            "    log_weights[1] = 0\n"
            "    joint = log_weights + log_densities\n"
            "    return np.exp(joint - np.logaddexp.reduce(joint, 1, keepdims=True))",
            # a choice
            "def responsibilities(log_weights, log_densities):\n"
            "    best = (log_weights + log_densities).argmax(1)\n"
            "    return np.eye(3)[best]",
        ],
        [
            "def responsibilities(log_weights, log_densities):\n"
            "    return torch.softmax(torch.as_tensor(log_weights + log_densities), 1)",
            "def responsibilities(log_weights, log_densities):\n"
            "    joint = log_weights + log_densities\n"
            "    joint = np.exp(joint - joint.max(1, keepdims=True))\n"
            "    return joint / joint.sum(1, keepdims=True)",
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
