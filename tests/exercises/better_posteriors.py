# Exercise 1: the layer's slope along u, and what becomes of the density.
SLOPE = "(1 - torch.tanh(z_0 @ w + b) ** 2) * (w @ u)"


def log_q(returns: str, slope: str = SLOPE) -> str:
    return f"def log_q(z_0, log_q_0, u, w, b):\n    slope = {slope}\n    return {returns}"


def independent_gap(returns: str) -> str:
    return f"def independent_gap(precision):\n    return {returns}"


DIAGONAL = "precision.diagonal().log().sum()"


def parts(a: str, b: str, c: str, d: str) -> str:
    return f'parts = {{"a": {a}, "b": {b}, "c": {c}, "d": {d}}}'


A, B = '{"amortisation"}', '{"prior"}'
C, D = '{"prior", "decoder"}', '{"amortisation", "approximation", "prior"}'

EXERCISES = {
    "log_q": (
        log_q("log_q_0 - torch.log1p(slope)"),
        [
            log_q("log_q_0 + torch.log1p(slope)"),  # the sign
            log_q("log_q_0 - (1 + slope)"),  # no logarithm
            log_q("log_q_0"),  # before the layer
            log_q("log_q_0 - torch.log(slope)"),  # the identity forgotten
            log_q("-torch.log1p(slope)"),  # log q_0 forgotten
            log_q("log_q_0.exp() / (1 + slope)"),  # a density, not its logarithm
            log_q("log_q_0 - torch.log1p(slope)", "torch.tanh(z_0 @ w + b) * (w @ u)"),
            # the derivative without the inner one
            log_q("log_q_0 - torch.log1p(slope)", "(1 - torch.tanh(z_0 @ w + b) ** 2) * u.sum()"),
            # the standard normal's density at z_1
            "def log_q(z_0, log_q_0, u, w, b):\n"
            "    z_1 = z_0 + u * torch.tanh(z_0 @ w + b)[:, None]\n"
            "    return Independent(Normal(torch.zeros_like(z_1), 1.0), 1).log_prob(z_1)",
            # the slope behind the layer
            "def log_q(z_0, log_q_0, u, w, b):\n"
            "    z_1 = z_0 + u * torch.tanh(z_0 @ w + b)[:, None]\n"
            "    return log_q_0 - torch.log1p((1 - torch.tanh(z_1 @ w + b) ** 2) * (w @ u))",
            log_q("(log_q_0 - torch.log1p(slope))[:, None]"),  # (40, 1)
            log_q("log_q_0.mean() - torch.log1p(slope).mean()"),  # one number
        ],
        [
            log_q("log_q_0 - (1 + slope).abs().log()"),
            # by automatic differentiation
            "def log_q(z_0, log_q_0, u, w, b):\n"
            "    g = lambda z: z + u * torch.tanh(w @ z + b)\n"
            "    jacobian = torch.vmap(torch.func.jacrev(g))(z_0)\n"
            "    return log_q_0 - torch.linalg.slogdet(jacobian)[1]",
            # draw by draw
            "def log_q(z_0, log_q_0, u, w, b):\n"
            "    rows = []\n"
            "    for z, start in zip(z_0, log_q_0):\n"
            "        psi = (1 - torch.tanh(w @ z + b) ** 2) * w\n"
            "        jacobian = torch.eye(2) + torch.outer(u, psi)\n"
            "        rows.append(start - torch.linalg.det(jacobian).log())\n"
            "    return torch.stack(rows)",
        ],
    ),
    "independent_gap": (
        independent_gap(f"0.5 * ({DIAGONAL} - torch.logdet(precision))"),
        [
            independent_gap(f"{DIAGONAL} - torch.logdet(precision)"),  # the ½
            independent_gap(f"0.5 * (torch.logdet(precision) - {DIAGONAL})"),  # the sign
            independent_gap("0.5 * torch.logdet(precision)"),
            independent_gap(f"0.5 * {DIAGONAL}"),
            # the marginal variances
            independent_gap(f"0.5 * (precision.inverse().diagonal().log().sum() + {DIAGONAL})"),
            # the divergence the other way round
            independent_gap(
                "kl_divergence("
                "MultivariateNormal(torch.zeros(2).double(), precision_matrix=precision), "
                "MultivariateNormal(torch.zeros(2).double(), "
                "precision_matrix=precision.diagonal().diag()))"
            ),
            independent_gap("0.0"),
        ],
        [
            independent_gap(f"({DIAGONAL} - torch.linalg.slogdet(precision)[1]) / 2"),
            independent_gap(
                "0.5 * math.log(precision[0, 0] * precision[1, 1]"
                " / (precision[0, 0] * precision[1, 1] - precision[0, 1] * precision[1, 0]))"
            ),
            # by the variances of the posterior
            independent_gap(
                "0.5 * (torch.logdet(precision) + precision.inverse().diagonal().log().sum())"
            ),
            # by its correlation
            independent_gap(
                "-0.5 * torch.log(1 - precision[0, 1] ** 2 / (precision[0, 0] * precision[1, 1]))"
            ),
            independent_gap(
                "kl_divergence("
                "MultivariateNormal(torch.zeros(2).double(), "
                "precision_matrix=precision.diagonal().diag()), "
                "MultivariateNormal(torch.zeros(2).double(), precision_matrix=precision))"
            ),
        ],
    ),
    "parts": (
        parts(A, B, C, D),
        [
            parts('{"approximation"}', B, C, D),  # one network, though its family would do
            parts(A, '{"decoder"}', C, D),  # a prior can move
            parts(A, B, B, D),  # its noise stays
            parts(A, B, '{"decoder"}', D),
            parts(A, B, C, '{"approximation"}'),
            parts(A, B, C, '{"amortisation", "approximation"}'),
            parts("set()", "set()", "set()", "set()"),
            f"parts = {A}",
            'parts = "a"',
            f'parts = {{"a": {A}}}',
        ],
        [
            'parts = {"a": ["amortisation"], "b": ["prior"], "c": ["decoder", "prior"], '
            '"d": ["prior", "amortisation", "approximation"]}',
        ],
    ),
    "too_high": (
        'too_high = "bc"',
        [
            'too_high = "b"',
            'too_high = "c"',
            'too_high = "abc"',
            'too_high = "bcd"',
            'too_high = "d"',  # the wrong sign lowers it, where the flow stretches
            'too_high = "e"',
            'too_high = ""',
            'too_high = "xyz"',
            "too_high = 2",
        ],
        ['too_high = "cb"', 'too_high = "".join(["b", "c"])'],
    ),
}
