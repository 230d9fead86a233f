EXERCISES = {
    "penalised_value": (
        "penalised_value = 2.2",
        [
            "penalised_value = 2",  # W₁
            "penalised_value = 1.1",  # the slope
            "penalised_value = 2.1",  # less the penalty
            "penalised_value = 2.4",  # without the half
            "penalised_value = '2.2'",
        ],
        [
            "penalised_value = 2 * (1 + 2 / (2 * 10))",
            "penalised_value = torch.tensor(2.2)",
            "penalised_value = np.float64(2.2)",
        ],
    ),
    "clip": (
        "def clip(critic, c):\n"
        "    with torch.no_grad():\n"
        "        for weight in critic.parameters():\n"
        "            weight.clamp_(-c, c)",
        [
            # new parameters, which the optimiser does not hold
            "def clip(critic, c):\n"
            "    for layer in critic.modules():\n"
            "        if isinstance(layer, nn.Linear):\n"
            "            layer.weight = nn.Parameter(layer.weight.clamp(-c, c))\n"
            "            layer.bias = nn.Parameter(layer.bias.clamp(-c, c))",
            # biases are left
            "def clip(critic, c):\n"
            "    for layer in critic.modules():\n"
            "        if isinstance(layer, nn.Linear):\n"
            "            layer.weight.data.clamp_(-c, c)",
            # the layers inside of a layer are left
            "def clip(critic, c):\n"
            "    for layer in critic:\n"
            "        if isinstance(layer, nn.Linear):\n"
            "            for weight in layer.parameters():\n"
            "                weight.data.clamp_(-c, c)",
            "def clip(critic, c):\n"
            "    for weight in critic.parameters():\n"
            "        weight.clamp(-c, c)",  # computed, and thrown away
            "def clip(critic, c):\n"
            "    for weight in critic.parameters():\n"
            "        weight.clamp_(-c, c)",  # autograd refuses
            "def clip(critic, c):\n"
            "    for weight in critic.parameters():\n"
            "        weight.requires_grad_(False).clamp_(-c, c)",
            "def clip(critic, c):\n"
            "    for weight in critic.parameters():\n"
            "        weight.data.clamp_max_(c)",
            "def clip(critic, c):\n"
            "    for weight in critic.parameters():\n"
            "        weight.data.mul_(c / weight.data.abs().max())",
            "def clip(critic, c):\n    nn.utils.clip_grad_value_(critic.parameters(), c)",
        ],
        [
            "def clip(critic, c):\n"
            "    for weight in critic.parameters():\n"
            "        weight.data.clamp_(-c, c)",
            "@torch.no_grad()\n"
            "def clip(critic, c):\n"
            "    for weight in critic.parameters():\n"
            "        weight.copy_(weight.clamp(-c, c))",
            "def clip(critic, c):\n"
            "    for weight in critic.parameters():\n"
            "        weight.data = weight.data.clamp(-c, c)",
        ],
    ),
    "w1_of_samples": (
        "def w1_of_samples(a, b):\n    return (a.sort().values - b.sort().values).abs().mean()",
        [
            "def w1_of_samples(a, b):\n    return (a - b).abs().mean()",
            "def w1_of_samples(a, b):\n    return (a.mean() - b.mean()).abs()",
            "def w1_of_samples(a, b):\n    return (a.sort().values - b.sort().values).abs().sum()",
            "def w1_of_samples(a, b):\n"
            "    return (a.sort().values - b.sort(descending=True).values).abs().mean()",
            "def w1_of_samples(a, b):\n    return (a.sort().values - b.sort().values).abs()",
            "def w1_of_samples(a, b):\n"
            "    return (a.sort().values - b.sort().values).square().mean().sqrt()",
        ],
        [
            "w1_of_samples = wasserstein_distance",
            "def w1_of_samples(a, b):\n"
            "    both = torch.cat([a, b]).sort().values\n"
            "    f_a = (a[:, None] <= both[:-1]).double().mean(0)\n"
            "    f_b = (b[:, None] <= both[:-1]).double().mean(0)\n"
            "    return ((f_a - f_b).abs() * both.diff()).sum()",
            "def w1_of_samples(a, b):\n"
            "    return float(np.abs(np.sort(a.numpy()) - np.sort(b.numpy())).mean())",
        ],
    ),
    "end_of_descent": (
        "end_of_descent = 1",
        [
            "end_of_descent = 0.6",
            "end_of_descent = 0.5",
            "end_of_descent = 0",
            "end_of_descent = '1'",
        ],
        ["end_of_descent = 1.0", "end_of_descent = torch.tensor(1.0)"],
    ),
    "times_as_many": (
        "times_as_many = 2**64",
        [
            "times_as_many = 2",
            "times_as_many = 4",
            "times_as_many = 64",
            "times_as_many = 128",
            "times_as_many = 2**63",
            "times_as_many = '2**64'",
        ],
        ["times_as_many = 1.845e19", "times_as_many = np.exp2(64)", "times_as_many = 2.0**64"],
    ),
    "slope_of_wrong": (
        "slope_of_wrong = 16",
        [
            "slope_of_wrong = 1",
            "slope_of_wrong = 256",
            "slope_of_wrong = 768",
            "slope_of_wrong = math.sqrt(768)",
            "slope_of_wrong = 8",
            "slope_of_wrong = 'all'",
        ],
        ["slope_of_wrong = math.sqrt(256)", "slope_of_wrong = 16.0"],
    ),
}
