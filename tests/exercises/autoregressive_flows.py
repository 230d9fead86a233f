# The masks of exercise 1.
def masks(into: str, out: str) -> str:
    return f"def masks_of(places, degrees):\n    return {into}, {out}"


INTO, OUT = "degrees[:, None] >= places", "places[:, None] > degrees"


# The pair of exercise 2, and the parts that it is made of.
def scored(log_p: str, x: str = "(z - shift) * torch.exp(-a)") -> str:
    return (
        "def draw_and_score(z, net):\n"
        "    shift, a = net(z).unbind(1)\n"
        "    log_noise = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)\n"
        f"    return {x}, {log_p}"
    )


# The search of exercise 3, and by least squares written out.
def search(start: str = "q = 0", test: str = ">= nats", nats: str = "{}", gives: str = "q") -> str:
    optimum = nats.format("linear_student_optimum(a, 1.0, q)[0]")
    return (
        f"def least_taps(a, nats):\n    {start}\n    while {optimum} {test}:\n        q += 1\n"
        f"    return {gives}"
    )


LEAST_SQUARES = """\
def least_taps(a, nats):
    whole = np.array([1.0, -a[0], -a[1]])
    for q in range(200):
        columns = np.zeros((q + 3, q + 1))
        for j in range(q + 1):
            columns[j : j + 3, j] = whole
        taps = np.linalg.lstsq(columns[:, 1:], -columns[:, 0], rcond=None)[0]
        rest = columns[:, 0] + columns[:, 1:] @ taps
        if {half} * np.log(rest @ rest) < nats:
            return q"""


# The step of exercise 6: the window that it makes, what it weighs, what it keeps.
def step(
    seen: str = "window[:, :, ::dilation]",
    kept: str = "window[:, :, 1:]",
    weigh: str = "nck,ock->no",
    window: str = "torch.cat([memory, column[:, :, None]], 2)",
) -> str:
    return (
        f"def cached_step(column, memory, weight, dilation):\n    window = {window}\n"
        f"    return torch.einsum('{weigh}', {seen}, weight), {kept}"
    )


# The test of exercise 4.
GRADIENT = (
    "def leaks(net, length):\n"
    "    x = torch.randn(1, length).double()\n"
    "    slopes = torch.autograd.functional.jacobian(lambda x: net(x)[0], x)[:, 0]\n"
)
PERTURBED = (
    "def leaks(net, length):\n"
    "    x = torch.randn(1, length).double()\n"
    "    for t in {places}:\n"
    "        other = x.clone()\n"
    "        other[:, t] += 1.0\n"
    "        if not torch.equal(net(x)[:, {seen}], net(other)[:, {seen}]):\n"
    "            return True\n"
    "    return False"
)

EXERCISES = {
    "masks_of": (
        masks(f"({INTO}).double()", f"({OUT}).double()"),
        [
            masks(INTO, OUT.replace(">", ">=")),  # an output sees its own feature
            # the features' own numbers instead of their places, at the outputs
            masks(INTO, "1 + torch.arange(len(places))[:, None] > degrees"),
            masks("degrees[:, None] > places", OUT),  # strict twice: pairs are lost
            masks(INTO.replace(">=", "<="), OUT),  # the wrong way round
            masks("(degrees[:, None] >= places).T", f"({OUT}).T"),  # transposed
            masks(INTO, f"2.0 * ({OUT})"),  # no mask
            masks(OUT, INTO),  # exchanged
        ],
        [
            masks(INTO, OUT),  # of truth values
            "def masks_of(places, degrees):\n"
            "    into = np.array([[float(p <= m) for p in places] for m in degrees])\n"
            "    out = np.array([[float(m < p) for m in degrees] for p in places])\n"
            "    return into, out",
        ],
    ),
    "draw_and_score": (
        scored("log_noise + a.sum(1)"),
        [
            scored("log_noise - a.sum(1)"),  # the sign
            scored("log_noise"),  # no determinant
            scored("-a.sum(1)"),  # the determinant alone
            scored("a.sum(1)"),
            scored("log_noise + a.sum(1)", "z * a.exp() + shift"),  # MAF's line, with z seen
            scored("log_noise + a.sum(1)", "z * torch.exp(-a) - shift"),  # the shift last
            scored("(log_noise + a.sum(1)).sum()"),  # one number
        ],
        [
            "def draw_and_score(z, net):\n"
            "    outputs = net(z)\n"
            "    x = (z - outputs[:, 0]) / outputs[:, 1].exp()\n"
            "    log_p = -0.5 * (z**2 + math.log(2 * math.pi)) + outputs[:, 1]\n"
            "    return x, log_p.sum(1)",
        ],
    ),
    "least_taps": (
        search(),
        [
            search(gives="q + 1"),  # with the tap of the newest noise counted
            search(start="q = 1", gives="q - 1"),
            LEAST_SQUARES.format(half="1.0"),  # the ½ is missing
            search(test="<= nats"),  # stops at once
            "def least_taps(a, nats):\n    return len(a)",  # the teacher's lags
        ],
        [
            LEAST_SQUARES.format(half="0.5"),
            "def least_taps(a, nats):\n"
            "    fits = [q for q in range(100) if linear_student_optimum(a, 1.0, q)[0] < nats]\n"
            "    return np.int64(min(fits))",
        ],
    ),
    "leaks": (
        GRADIENT + "    return bool(slopes.triu().any())",
        [
            GRADIENT + "    return bool(slopes.triu(1).any())",  # x_t itself is let through
            GRADIENT + "    return bool(slopes.tril().any())",  # the past is forbidden
            GRADIENT + "    return bool(slopes[0].any())",  # the first output alone
            PERTURBED.format(places="[length - 1]", seen=":t + 1"),  # the last sample alone
            PERTURBED.format(places="range(length)", seen=":t"),  # x_t itself is let through
            "def leaks(net, length):\n    return True",
        ],
        [
            PERTURBED.format(places="range(length)", seen=":t + 1"),
            "def leaks(net, length):\n"
            "    x = torch.randn(length, length).double()\n"
            "    x[:] = x[0]\n"
            "    came = net(x + torch.eye(length)) - net(x)\n"
            "    return bool(came.tril().any())",
        ],
    ),
    "field_of": (
        "def field_of(kernel, dilations):\n    return 1 + (kernel - 1) * sum(dilations)",
        [
            # right for kernel 2 and doubled dilations
            "def field_of(kernel, dilations):\n    return 2 ** len(dilations)",
            "def field_of(kernel, dilations):\n    return kernel ** len(dilations)",
            "def field_of(kernel, dilations):\n    return 1 + sum(dilations)",  # kernel 2
            # without the shift
            "def field_of(kernel, dilations):\n    return (kernel - 1) * sum(dilations)",
            "def field_of(kernel, dilations):\n    return 1 + kernel * sum(dilations)",
        ],
        [
            "def field_of(kernel, dilations):\n"
            "    back = 1\n"
            "    for dilation in dilations:\n"
            "        back += dilation * (kernel - 1)\n"
            "    return np.int64(back)",
        ],
    ),
    "cached_step": (
        step(),
        [
            step(kept="window[:, :, :-1]"),  # keeps the oldest and forgets the newest
            step(seen="window[:, :, -weight.shape[2] :]"),  # the last k, whatever the dilation
            step(seen="window[:, :, ::dilation].flip(2)"),  # the kernel the other way round
            step(kept="window"),  # never forgets
            step(kept="window[:, :, 2:]"),  # one short
            step(weigh="nck,ock->nok"),  # not summed over the kernel
            step(window="torch.cat([column[:, :, None], memory], 2)"),  # the newest first
        ],
        [
            # in place, as a ring that turns
            "def cached_step(column, memory, weight, dilation):\n"
            "    n_taps = weight.shape[2]\n"
            "    out = column @ weight[:, :, -1].T\n"
            "    for j in range(n_taps - 1):\n"
            "        out = out + memory[:, :, j * dilation] @ weight[:, :, j].T\n"
            "    memory = memory.roll(-1, 2)\n"
            "    memory[:, :, -1] = column\n"
            "    return out, memory",
        ],
    ),
    "collapsed_loss": (
        "collapsed_loss = 0.5 * math.log(8 * math.pi)",
        [
            "collapsed_loss = 0.5 * math.log(2 * math.pi * math.e * 4)",  # the entropy
            "collapsed_loss = 0.0",  # of the divergence
            "collapsed_loss = 0.5 * math.log(2 * math.pi)",  # of a teacher with variance 1
            "collapsed_loss = 0.5 * math.log(2 * math.pi * 16)",  # 4 taken for the scale
            "collapsed_loss = -math.inf",  # minus its entropy
        ],
        ["collapsed_loss = 1.61", "collapsed_loss = np.log(2 * np.sqrt(2 * np.pi))"],
    ),
}
