def sharpened(kept: str, power: str = "p ** (1 / temperature)") -> str:
    """Exercise 5, from what is kept and the power of it."""
    return (
        "def sharpen(p, temperature, top_k):\n"
        f"    kept = {kept}\n"
        f"    p = torch.where(kept, {power}, 0)\n"
        "    return p / p.sum()"
    )


KEPT = "p >= p.topk(top_k).values[-1]"

EXERCISES = {
    "leaky": (
        "leaky = 'BC'",
        ["leaky = 'B'", "leaky = 'C'", "leaky = 'ABCD'", "leaky = ''", "leaky = ['B', 'C']"],
        [
            "leaky = 'CB'",
            "leaky = ''.join(name for name in suspects if not certified(suspects[name]))",
        ],
    ),
    "rate": (
        "rate = 2 / 3 * 0.5623 + 1 / 3 * 0.6931",
        [
            "rate = 0.874",  # in bits
            "rate = 0.637",  # of who sees nothing
            "rate = 0.628",  # a and b equally frequent
            "rate = True",
            "rate = '0.606'",
        ],
        ["rate = 0.606", "rate = two.entropy_rate()"],
    ),
    "known": (
        "known = {3, 7, 11, 12, 13, 14, 15}",
        [
            "known = set(range(16))",  # near first
            "known = {3, 7, 11, 12, 13, 14}",
            "known = {12, 13, 14, 15}",
            "known = {3, 7, 11, 15}",
            "known = 15",
            "known = set()",
        ],
        [
            "known = [3, 7, 11, 12, 13, 14, 15]",
            "known = torch.tensor([15, 14, 13, 12, 11, 7, 3])",
            "near, far = sequences.fixed_masks(16, 4)\n"
            "known = set(sequences.reach(far, near)[15].nonzero()[:, 0].tolist())",
        ],
    ),
    "n_different": (
        "n_different = (5, 120)",
        [
            "n_different = (1, 120)",  # the last token is no secret
            "n_different = (120, 120)",
            "n_different = (5, 5)",
            "n_different = (20, 120)",
            "n_different = 5",
        ],
        ["n_different = [5, 120]", "n_different = torch.tensor([5, 120])"],
    ),
    "sharpen": (
        sharpened(KEPT),
        [
            sharpened(KEPT, "p / temperature"),
            sharpened(KEPT, "p ** temperature"),
            sharpened("p > p.topk(top_k).values[-1]"),
            sharpened("p > -1"),
            sharpened(KEPT).replace("p / p.sum()", "p"),
            # a logit of 1e-10 where −1e10 was meant
            "def sharpen(p, temperature, top_k):\n"
            f"    logits = torch.where({KEPT}, p.log() / temperature, 1e-10)\n"
            "    return logits.softmax(0)",
        ],
        [
            "def sharpen(p, temperature, top_k):\n"
            f"    logits = torch.where({KEPT}, p.log() / temperature, -math.inf)\n"
            "    return logits.softmax(0)",
            "def sharpen(p, temperature, top_k):\n"
            "    p = np.asarray(p)\n"
            "    p = np.where(p >= np.sort(p)[-top_k], p, 0) ** (1 / temperature)\n"
            "    return p / p.sum()",
        ],
    ),
    "chunk_mask": (
        "def chunk_mask(n_queries, n_keys):\n"
        "    return torch.ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)",
        [
            "def chunk_mask(n_queries, n_keys):\n"
            "    return torch.ones(n_queries, n_keys, dtype=torch.bool).tril()",  # is_causal's
            "def chunk_mask(n_queries, n_keys):\n"
            "    return torch.ones(n_queries, n_keys, dtype=torch.bool)",
            "def chunk_mask(n_queries, n_keys):\n"
            "    return torch.ones(n_queries, n_keys).tril(n_keys - n_queries - 1).bool()",
            "def chunk_mask(n_queries, n_keys):\n"
            "    return torch.ones(n_queries, n_keys).tril(n_keys - n_queries + 1).bool()",
            "def chunk_mask(n_queries, n_keys):\n"
            "    return torch.ones(n_keys, n_keys, dtype=torch.bool).tril()",
        ],
        [
            "def chunk_mask(n_queries, n_keys):\n"
            "    return torch.ones(n_keys, n_keys).tril()[-n_queries:]",
            "def chunk_mask(n_queries, n_keys):\n"
            "    i = torch.arange(n_keys - n_queries, n_keys)[:, None]\n"
            "    return torch.arange(n_keys) <= i",
        ],
    ),
}
