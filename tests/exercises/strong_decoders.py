def free_bits_of(kl: str) -> str:
    """Exercise 4: the mean reconstruction less what is charged."""
    head = "def free_bits_of(reconstruction, kl, threshold):"
    return f"{head}\n    return reconstruction.mean() - {kl}"


def push(u: str, log_q: str) -> str:
    """Exercise 5: what a flow reads, and a density."""
    return f"def push(f, z, log_q):\n    u, log_det = {u}\n    return u, {log_q}"


# Exercise 2, of the means over seeds of both dictionaries.
WORTH = "worth = {w: log_p[w].mean() - alone[w].mean() for w in log_p}"
# Exercise 3, of the histogram of all pixels.
SHARE = "torch.bincount(train_images.flatten(), minlength=17) / train_images.numel()"
BLIND = "blind_log_p = 64 * torch.xlogy(share, share).sum()"

EXERCISES = {
    "foreseen": (
        'foreseen = ("over 3", "higher")',
        [
            'foreseen = ("under 0.5", "higher")',  # collapse
            'foreseen = ("0.5 to 3", "higher")',
            'foreseen = ("over 3", "lower")',
            'foreseen = ("under 0.5", "lower")',
            'foreseen = "over 3"',
            "foreseen = (6.7, 1)",
        ],
    ),
    "worth": (
        WORTH,
        [
            "worth = {w: alone[w].mean() - log_p[w].mean() for w in log_p}",  # the sign
            "worth = {w: rate[w].mean() for w in log_p}",
            "worth = {w: log_p[w] - alone[w] for w in log_p}",  # of every seed
            "worth = {w: log_p[w].mean() - alone[7].mean() for w in log_p}",
            "worth = {w: log_p[w].mean() for w in log_p}",
            "worth = 3.2",
            "worth = {0: 23.0}",
        ],
        [
            "worth = {w: float(np.mean(log_p[w] - alone[w])) for w in (0, 1, 2, 7)}",
            "worth = {w: torch.tensor(log_p[w] - alone[w]).mean() for w in log_p}",
        ],
    ),
    "blind_log_p": (
        f"share = {SHARE}\n{BLIND}",
        [
            f"share = {SHARE}\n{BLIND}".replace("64 * ", ""),  # of one pixel
            f"share = {SHARE}\n{BLIND}".replace("64 *", "-64 *"),
            f"share = {SHARE}\n{BLIND} / math.log(2)".replace("64 *", "-64 *"),  # bits
            "blind_log_p = -64 * math.log(17)",  # all levels alike
            # each pixel by itself
            "share = torch.nn.functional.one_hot(train_images.flatten(1), 17).double().mean(0)\n"
            "blind_log_p = torch.xlogy(share, share).sum()",
        ],
        [
            "levels, counts = np.unique(train_images.numpy(), return_counts=True)\n"
            "blind_log_p = 64 * (counts / counts.sum() * np.log(counts / counts.sum())).sum()",
            f"share = {SHARE}\nblind_log_p = share.log()[train_images].sum((1, 2, 3)).mean()",
        ],
    ),
    "free_bits_of": (
        free_bits_of("torch.maximum(kl.mean(0), torch.tensor(threshold)).sum()"),
        [
            free_bits_of("kl.sum(1).mean().clamp_min(threshold)"),  # on the total
            free_bits_of("kl.clamp_min(threshold).sum(1).mean()"),  # example by example
            free_bits_of("(kl.mean(0) - threshold).relu().sum()"),  # only the excess
            free_bits_of("kl.mean(0).clamp_min(threshold).mean()"),  # a mean over latents
            free_bits_of("(-kl.mean(0).clamp_min(threshold)).sum()"),  # added
            free_bits_of("kl.mean(0).clamp_max(threshold).sum()"),  # capped
            free_bits_of("kl.mean(0).clamp_min(threshold)"),  # one number a latent
            free_bits_of("kl.sum(1).mean()"),  # the ELBO
            "free_bits_of = 0.5",
        ],
        [
            free_bits_of("kl.mean(0).clamp(min=threshold).sum()"),
            free_bits_of("np.maximum(kl.numpy().mean(0), threshold).sum()"),
            free_bits_of("sum(max(threshold, m) for m in kl.mean(0))"),
        ],
    ),
    "push": (
        push("f.inverse(z)", "log_q - log_det"),
        [
            push("f.inverse(z)", "log_q + log_det"),  # the sign
            push("f.inverse(z)", "log_q"),  # no volume
            push("f(z)", "log_q - log_det"),  # writes
            push("f.inverse(z)", "log_det - 0.5 * (u**2).sum(1) - 1.5 * math.log(2 * math.pi)"),
            push("f.inverse(z)", "(log_q - log_det).mean()"),
            "def push(f, z, log_q):\n    return log_q - f.inverse(z)[1]",
        ],
        [
            # by the way back
            "def push(f, z, log_q):\n    u = f.inverse(z)[0]\n    return u, log_q + f(u)[1]",
            "def push(f, z, log_q):\n    u, log_det = f.inverse(z)\n"
            "    return u, (log_q.exp() / log_det.exp()).log()",
        ],
    ),
    "safe": (
        'safe = "AC"',
        [
            'safe = "A"',
            'safe = "C"',
            'safe = "ABC"',  # a bound as the larger number
            'safe = "ACD"',
            'safe = "B"',
            'safe = ""',
            "safe = 2",
        ],
        ['safe = "CA"', 'safe = "".join(["A", "C"])'],
    ),
}
