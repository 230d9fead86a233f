# The layer of exercise 2, and the log-determinant of its neuron.
MOVED = "    x = z + torch.arctan(z @ w + b)[:, None] * u\n"
LOG_DET = "(1 + (w @ u) / (1 + (z @ w + b) ** 2)).abs().log()"


def layer(log_det: str, moved: str = MOVED) -> str:
    return f"def arctan_layer(z, u, w, b):\n{moved}    return x, {log_det}"


EXERCISES = {
    "factor": (
        "factor = 2.0",
        [
            "factor = 0.5",  # the factor by which volume shrinks
            "factor = 1.5",  # u added instead of u subtracted
            "factor = 'two'",
        ],
        ["factor = np.float64(2)", "factor = torch.tensor(2.0)"],
    ),
    "arctan_layer": (
        layer(LOG_DET),
        [
            # at the layer's output
            layer("(1 + (w @ u) / (1 + (x @ w + b) ** 2)).abs().log()"),
            # tanh's derivative
            layer("(1 + (1 - torch.tanh(z @ w + b) ** 2) * (w @ u)).abs().log()"),
            # tanh in the layer
            layer(LOG_DET, "    x = z + torch.tanh(z @ w + b)[:, None] * u\n"),
            # no derivative
            layer("(1 + (w @ u) * torch.ones(len(z))).abs().log()"),
            # no absolute value
            layer(LOG_DET.replace(".abs()", "")),
            # no logarithm
            layer(LOG_DET.replace(".log()", "")),
            # the inverse's
            layer("-" + LOG_DET),
            # one number for the batch
            layer(LOG_DET + ".sum()"),
            # the log-determinant alone
            f"def arctan_layer(z, u, w, b):\n    return {LOG_DET}",
            # the identity is missing
            layer(LOG_DET, "    x = torch.arctan(z @ w + b)[:, None] * u\n"),
        ],
        [
            # one Jacobian after the other
            "def arctan_layer(z, u, w, b):\n"
            "    h = 1 / (1 + (z @ w + b) ** 2)\n"
            "    jacobian = torch.eye(3) + h[:, None, None] * torch.outer(u, w)\n"
            "    x = z + torch.outer(torch.arctan(z @ w + b), u)\n"
            "    return x, torch.linalg.slogdet(jacobian).logabsdet",
            # NumPy, in single precision
            "def arctan_layer(z, u, w, b):\n"
            "    z, u, w, b = (np.asarray(a, dtype=np.float32) for a in (z, u, w, b))\n"
            "    a = z @ w + b\n"
            "    return z + np.outer(np.arctan(a), u), np.log(np.abs(1 + w @ u / (1 + a**2)))",
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
        [
            # in place, and in single precision
            "def repair(u, w):\n"
            "    c = w @ u\n"
            "    u += (torch.logaddexp(c, torch.zeros(())) - 1 - c) * w / (w @ w)\n"
            "    return u.float()",
            # NumPy
            "def repair(u, w):\n"
            "    u, w = np.asarray(u), np.asarray(w)\n"
            "    return u + (np.logaddexp(0, u @ w) - 1 - u @ w) * w / (w @ w)",
        ],
    ),
    "seeking_costs": (
        "seeking_costs = math.log(2)",
        [
            "seeking_costs = 0.5",
            "seeking_costs = 0.0",
            "seeking_costs = -math.log(2)",
            "seeking_costs = 1.0",  # in bits
        ],
        ["seeking_costs = 0.69", "seeking_costs = np.log(2)"],
    ),
    "equations": (
        "equations = (0, 256 * 16, 256 * 16, 0)",
        [
            "equations = (0, 16, 16, 0)",
            "equations = (256 * 16, 0, 0, 256 * 16)",  # f and g exchanged
            "equations = (0, 256 * 16, 256 * 16, 256 * 16)",
            "equations = (256 * 16, 0)",
            "equations = 4096",
        ],
        ["equations = [0, 4096, 4096, 0]", "equations = torch.tensor([0, 4096, 4096, 0])"],
    ),
}
