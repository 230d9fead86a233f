# The way back of exercise 1, and what it may return.
PARTS = "    kept, moved = x[:, :d], x[:, d:]\n"
NETWORK = "    s, t = net(kept).chunk(2, dim=1)\n"
BACK = "torch.cat([kept, (moved - t) * torch.exp(-s)], dim=1)"


def inverse(returns: str, parts: str = PARTS, network: str = NETWORK) -> str:
    return f"def coupling_inverse(x, d, net):\n{parts}{network}    return {returns}"


# The test of exercise 7: what two ways leave, what two log-dets leave, what autograd says.
WAYS = (
    "def is_sound(layer, dim):\n"
    "    z = torch.randn(5, dim).double()\n"
    "    x, there = layer.forward(z)\n"
    "    again, back = layer.inverse(x)\n"
)
AUTOGRAD = (
    "    jacobian = torch.autograd.functional.jacobian(lambda z: layer.forward(z)[0].sum(0), z)\n"
    "    exact = torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet\n"
)
ROUND, CANCEL, EXACT = (
    f"({what}).abs().max() < 1e-8" for what in ("again - z", "there + back", "there - exact")
)


def sound(*conditions: str) -> str:
    return f"{WAYS}{AUTOGRAD}    return bool({' and '.join(conditions)})"


# The module of exercise 8.
MODULE = "def started(x):\n    norm = torch.nn.Module()\n"


def started(mean: str, scale: str, keep: str = "norm.register_buffer(") -> str:
    return f'{MODULE}    {keep}"mean", {mean})\n    {keep}"scale", {scale})\n    return norm'


EXERCISES = {
    "slope": (
        "slope = math.exp(2)",
        [
            "slope = math.exp(-2)",  # of the way back
            "slope = 2 * math.exp(2)",  # one mode alone
            "slope = 2.0",  # the logarithm
            "slope = 1.0",
        ],
        ["slope = np.exp(2.0)", "slope = 7.39", "slope = torch.tensor(2.0).exp()"],
    ),
    "coupling_inverse": (
        inverse(f"{BACK}, -s.sum(1)"),
        [
            inverse(f"{BACK}, s.sum(1)"),  # the log-det of the way out
            # the shift undone last
            inverse(f"{BACK}, -s.sum(1)".replace("(moved - t) * torch.exp(-s)", "X")).replace(
                "X", "moved * torch.exp(-s) - t"
            ),
            # half of the coordinates instead of d
            inverse(f"{BACK}, -s.sum(1)", PARTS.replace(":d]", ":2]").replace("d:]", "2:]")),
            # the joined halves out of order
            inverse(f"{BACK}, -s.sum(1)".replace("[kept, (", "[(").replace("(-s)]", "(-s), kept]")),
            # shift and scale exchanged
            inverse(f"{BACK}, -s.sum(1)", network=NETWORK.replace("s, t", "t, s")),
            inverse(BACK),  # the log-det forgotten
            inverse(f"{BACK}, -s.sum()"),  # one number for the batch
            inverse(f"{BACK}, -s.mean(1)"),
            inverse(f"{BACK}, (-s).exp().prod(1)"),  # the determinant
            inverse(f"{BACK}, -s.sum(1)".replace("* torch.exp(-s)", "/ s")),
        ],
        [
            inverse(f"[{BACK}, -s.sum(1)]"),  # the two in brackets
            inverse(f"{BACK}, torch.exp(-s).prod(1).log()"),
            # into a copy, with the log-det as a loop finds it
            "def coupling_inverse(x, d, net):\n"
            "    z, out = x.clone(), net(x[:, :d])\n"
            "    n = x.shape[1] - d\n"
            "    z[:, d:] = (x[:, d:] - out[:, n:]) / out[:, :n].exp()\n"
            "    return z, torch.stack([-row[:n].sum() for row in out])",
        ],
    ),
    "least_nats": (
        "least_nats = math.log(2 * math.pi) + 0.01",
        [
            "least_nats = -1.77",  # the entropy
            "least_nats = 1 + math.log(2 * math.pi)",  # the noise's entropy
            "least_nats = 0.5 * math.log(2 * math.pi)",  # one coordinate
            "least_nats = 0.0",
        ],
        ["least_nats = 1.84", "least_nats = 1.85", "least_nats = np.log(2 * np.pi)"],
    ),
    "extra_bits": (
        "extra_bits = 0.5 * math.log2(2 * math.pi * math.e / 12)",
        [
            "extra_bits = 1.2546",  # with the bit itself
            "extra_bits = 0.509",  # twice
            "extra_bits = 0",
            "extra_bits = 1.0",
            "extra_bits = -0.2546",
            "extra_bits = 0.25",  # to two digits
            "extra_bits = 0.1273",  # half of it
        ],
        ["extra_bits = 0.2546", "extra_bits = 0.255", "extra_bits = np.float32(0.2546)"],
    ),
    "plu_log_det": (
        "def plu_log_det(lower, upper, s, h, w):\n    return h * w * s.abs().log().sum()",
        [
            # one pixel
            "def plu_log_det(lower, upper, s, h, w):\n    return s.abs().log().sum()",
            # negative entries
            "def plu_log_det(lower, upper, s, h, w):\n    return h * w * s.log().sum()",
            # the way back
            "def plu_log_det(lower, upper, s, h, w):\n    return -h * w * s.abs().log().sum()",
            # the determinant
            "def plu_log_det(lower, upper, s, h, w):\n    return s.abs().prod() ** (h * w)",
            # s is taken for its logarithm
            "def plu_log_det(lower, upper, s, h, w):\n    return h * w * s.sum()",
        ],
        [
            "def plu_log_det(lower, upper, s, h, w):\n"
            "    matrix = lower @ (upper + torch.diag(s))\n"
            "    return h * w * torch.linalg.slogdet(matrix).logabsdet",
            "def plu_log_det(lower, upper, s, h, w):\n"
            "    return h * w * np.log(np.abs(s.numpy())).sum()",
        ],
    ),
    "bits_of": (
        "def bits_of(nats, width, n_dims):\n"
        "    return nats / n_dims / math.log(2) - math.log2(width)",
        [
            # no change of units
            "def bits_of(nats, width, n_dims):\n    return nats / (n_dims * math.log(2))",
            # its sign
            "def bits_of(nats, width, n_dims):\n"
            "    return nats / (n_dims * math.log(2)) + math.log2(width)",
            # in nats
            "def bits_of(nats, width, n_dims):\n    return nats / n_dims - math.log(width)",
            # of an image
            "def bits_of(nats, width, n_dims):\n"
            "    return nats / math.log(2) - n_dims * math.log2(width)",
            # once instead of in each dimension
            "def bits_of(nats, width, n_dims):\n"
            "    return (nats - math.log(width)) / (n_dims * math.log(2))",
        ],
        [
            "def bits_of(nats, width, n_dims):\n"
            "    return (nats - n_dims * np.log(width)) / (n_dims * np.log(2))",
        ],
    ),
    "is_sound": (
        sound(ROUND, CANCEL, EXACT),
        [
            sound(ROUND),
            sound(ROUND, CANCEL),
            sound(CANCEL, EXACT),  # it never looks at the points
            sound(ROUND, EXACT),  # nor at the log-det of the way back
            # nor at the log-det of the way out
            sound(ROUND, "(back - exact).abs().max() < 1e-8")
            .replace("layer.forward(z)[0].sum", "layer.inverse(z)[0].sum")
            .replace("sum(0), z)", "sum(0), x)"),
            f"{WAYS}    return bool(torch.equal(again, z))",  # refuses rounding
            "def is_sound(layer, dim):\n    return True",
        ],
        [
            # both ways by automatic differentiation, each log-det by itself
            "def is_sound(layer, dim):\n"
            "    for point in torch.randn(4, 1, dim).double():\n"
            "        x, there = layer.forward(point)\n"
            "        again, back = layer.inverse(x)\n"
            "        ways = (layer.forward, point, there), (layer.inverse, x, back)\n"
            "        for way, at, found in ways:\n"
            "            j = torch.autograd.functional.jacobian(lambda p: way(p)[0][0], at)[:, 0]\n"
            "            exact = torch.linalg.det(j).abs().log()\n"
            "            if not torch.isclose(exact, found[0], atol=1e-6):\n"
            "                return False\n"
            "        if not torch.allclose(again, point):\n"
            "            return False\n"
            "    return True",
        ],
    ),
    "started": (
        started("x.mean(0)", "x.std(0)"),
        [
            started("x.mean()", "x.std()"),  # over the wrong axes
            started("x.mean(0)", "x.var(0)"),
            started("x.mean(0)", "1 / x.std(0)"),
            # a plain attribute is not in the state dict
            started("x.mean(0)", "x.std(0)", "setattr(norm, "),
        ],
        [
            started("x.mean(0, keepdim=True)[0]", "x.var(0, correction=0).sqrt()"),
            started(
                "torch.nn.Parameter(x.mean(0))",
                "torch.nn.Parameter(x.std(0))",
                "norm.register_parameter(",
            ),
        ],
    ),
}
