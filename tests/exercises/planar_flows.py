EXERCISES = {
    "factor": (
        "factor = 2.0",
        [
            "factor = 0.5",  # the factor by which volume shrinks
            "factor = 1.5",  # u added instead of u subtracted
            "factor = 'two'",
        ],
    ),
    "repair": (
        "def repair(u, w):\n"
        "    c = w @ u\n"
        "    return u + (softplus(c) - 1 - c) * w / w.square().sum()",
        [
            "def repair(u, w):\n    c = w @ u\n    return u + (m(c) - c) * w / w.norm()",
            "def repair(u, w):\n    return u",
            "def repair(u, w):\n    c = w @ u\n    return u + (m(c) - c) / (w @ w)",
            "def repair(u, w):\n    c = w @ u\n    return u + (m(c) - c) * u / (w @ u)",
            # overflows
            "def repair(u, w):\n"
            "    c = w @ u\n"
            "    return u + (torch.log(1 + c.exp()) - 1 - c) * w / (w @ w)",
        ],
    ),
    "layer_log_det": (
        "def layer_log_det(z, u, w, b):\n"
        "    return (1 + (w @ u) / (1 + (z @ w + b) ** 2)).abs().log()",
        [
            # at the layer's output
            "def layer_log_det(z, u, w, b):\n"
            "    x = z + torch.arctan(z @ w + b)[:, None] * u\n"
            "    return (1 + (w @ u) / (1 + (x @ w + b) ** 2)).abs().log()",
            # tanh's derivative
            "def layer_log_det(z, u, w, b):\n"
            "    return (1 + (1 - torch.tanh(z @ w + b) ** 2) * (w @ u)).abs().log()",
            # no absolute value
            "def layer_log_det(z, u, w, b):\n"
            "    return (1 + (w @ u) / (1 + (z @ w + b) ** 2)).log()",
            # no logarithm
            "def layer_log_det(z, u, w, b):\n"
            "    return (1 + (w @ u) / (1 + (z @ w + b) ** 2)).abs()",
            # one number for the batch
            "def layer_log_det(z, u, w, b):\n"
            "    return (1 + (w @ u) / (1 + (z @ w + b) ** 2)).abs().log().sum()",
        ],
    ),
    "seeking_costs": (
        "seeking_costs = math.log(2)",
        ["seeking_costs = 0.5", "seeking_costs = 0.0", "seeking_costs = -math.log(2)"],
    ),
    "equations": (
        "equations = (256 * 16, 0)",
        ["equations = (16, 0)", "equations = (256 * 16, 256 * 16)", "equations = 4096"],
    ),
}
