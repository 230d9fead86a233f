def log_q(*lines: str, returns: str) -> str:
    body = "".join(f"    {line}\n" for line in (*lines, f"return {returns}"))
    return f"def log_q(z_0, log_q_0, u, w, b):\n{body}"


SLOPE = "psi = (1 - torch.tanh(z_0 @ w + b) ** 2)[:, None] * w"
DET = "(1 + psi @ u).abs().log()"


def gap(returns: str) -> str:
    return f"def independent_gap(precision):\n    return {returns}"


LOGS = "precision[0, 0].log() + precision[1, 1].log()"


def parts(**named: str) -> str:
    right = {
        "a": "'amortisation'",
        "b": "'prior'",
        "c": "'prior', 'decoder'",
        "d": "'amortisation', 'approximation', 'prior'",
    }
    sets = ", ".join(f"{name!r}: {{{words}}}" for name, words in (right | named).items())
    return f"parts = {{{sets}}}"


EXERCISES = {
    "log_q": (
        log_q(SLOPE, returns=f"log_q_0 - {DET}"),
        [
            log_q(SLOPE, returns=f"log_q_0 + {DET}"),  # the sign
            log_q(returns="log_q_0"),
            log_q(SLOPE, returns="log_q_0 - (1 + psi @ u).abs()"),  # no logarithm
            log_q(SLOPE, returns=f"(log_q_0 - {DET}).mean()"),
            log_q("return log_q_0[:, None]", returns="None"),
            # the slope at the layer's output
            log_q(
                "z_1 = z_0 + torch.tanh(z_0 @ w + b)[:, None] * u",
                SLOPE.replace("z_0", "z_1"),
                returns=f"log_q_0 - {DET}",
            ),
            log_q("psi = torch.tanh(z_0 @ w + b)[:, None] * w", returns=f"log_q_0 - {DET}"),
        ],
        [
            log_q(
                "slope = 1 / torch.cosh(z_0 @ w + b) ** 2",
                returns="log_q_0 - (1 + slope * (w @ u)).log()",
            ),
            # by automatic differentiation
            log_q(
                "g = lambda z: z + u * torch.tanh(w @ z + b)",
                "jacobian = torch.vmap(torch.func.jacrev(g))(z_0)",
                returns="log_q_0 - torch.linalg.slogdet(jacobian).logabsdet",
            ),
        ],
    ),
    "independent_gap": (
        gap(f"0.5 * ({LOGS} - torch.logdet(precision))"),
        [
            gap(f"{LOGS} - torch.logdet(precision)"),  # the half
            gap(f"0.5 * (torch.logdet(precision) - {LOGS.replace(' +', ' -')})"),
            gap("0.5 * torch.logdet(precision)"),
            gap("0.0"),
            # the marginals' variances for the inverse precisions
            gap("torch.linalg.inv(precision).diagonal().log().sum() + torch.logdet(precision)"),
        ],
        [
            gap("-0.5 * math.log(1 - precision[0, 1] ** 2 / (precision[0, 0] * precision[1, 1]))"),
            gap(
                "0.5 * float(precision.diagonal().log().sum() - torch.linalg.slogdet(precision)[1])"
            ),
        ],
    ),
    "parts": (
        parts(),
        [
            parts(c="'decoder'"),
            parts(c="'prior'"),
            parts(d="'approximation'"),
            parts(a="'approximation'"),
            parts(b="'decoder'"),
            "parts = {'a': {'amortisation'}}",
            "parts = 'amortisation'",
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
            'too_high = "bcd"',
            'too_high = "abc"',
            'too_high = "e"',
            'too_high = ""',
            'too_high = "xyz"',
            "too_high = 3",
        ],
        ['too_high = "cb"', 'too_high = "".join(["b", "c"])'],
    ),
}
