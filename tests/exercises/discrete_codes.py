# Exercise 1, by a loop over the words.
LLOYD = (
    "def lloyd_step(points, words):\n"
    "    nearest = torch.cdist(points, words).argmin({axis})\n"
    "    new = words.clone()\n"
    "    for k in range(len(words)):\n"
    "        {guard}new[k] = points[nearest == k].{middle}\n"
    "    return new"
)
GUARD = "if (nearest == k).any(): "


def lloyd(axis: str = "1", guard: str = GUARD, middle: str = "mean(0)") -> str:
    return LLOYD.format(axis=axis, guard=guard, middle=middle)


EXERCISES = {
    "lloyd_step": (
        lloyd(),
        [
            lloyd(guard=""),  # a word of nobody becomes NaN
            lloyd(middle="median(0).values"),
            lloyd(middle="sum(0)"),
            "def lloyd_step(points, words):\n    return words",
            # an empty cell goes to the origin
            "def lloyd_step(points, words):\n"
            "    hot = one_hot(torch.cdist(points, words).argmin(1), len(words)).to(points)\n"
            "    return hot.T @ points / hot.sum(0)[:, None].clamp_min(1)",
            "def lloyd_step(points, words):\n    return words.mean(0)",
        ],
        [
            "def lloyd_step(points, words):\n"
            "    hot = one_hot(torch.cdist(points, words).argmin(1), len(words)).to(points)\n"
            "    n = hot.sum(0)[:, None]\n"
            "    return torch.where(n > 0, hot.T @ points / n.clamp_min(1), words)",
            "def lloyd_step(points, words):\n"
            "    quantizer = VectorQuantizer(*words.shape, decay=0.0).to(words)\n"
            "    quantizer.codebook.copy_(words)\n"
            "    quantizer(points)\n"
            "    return quantizer.codebook",
        ],
    ),
    "straight_through": (
        "def straight_through(h, e):\n    return h + (e - h).detach()",
        [
            "def straight_through(h, e):\n    return e",  # nothing reaches h
            "def straight_through(h, e):\n    return h",
            "def straight_through(h, e):\n    return e.detach()",
            "def straight_through(h, e):\n    return e + h - h.detach()",  # e is moved, too
            "def straight_through(h, e):\n    return (h + e) / 2",
            "def straight_through(h, e):\n    return h + (e - h)",
            "def straight_through(h, e):\n    return e.detach() + 2 * (h - h.detach())",
        ],
        [
            "straight_through = lambda h, e: e.detach() + h - h.detach()",
            "def straight_through(h, e):\n    return h - h.detach() + e.detach()",
        ],
    ),
    "best_beta": (
        "best_beta = 1",
        ["best_beta = 0.25", "best_beta = 0", "best_beta = -1", "best_beta = '1'"],
        ["best_beta = 1.0", "best_beta = torch.tensor(1.0)", "best_beta = np.float64(1)"],
    ),
    "n_nats": (
        "n_nats = 55.5",
        ["n_nats = 80", "n_nats = 512", "n_nats = 44.4", "n_nats = 16 * 3.4", "n_nats = '55.5'"],
        ["n_nats = 16 * math.log(32)", "n_nats = 55.45", "n_nats = np.log(32.0**16)"],
    ),
    "counted_from_0": (
        "counted_from_0 = 'BC'",
        [
            "counted_from_0 = 'B'",
            "counted_from_0 = 'C'",
            "counted_from_0 = 'AD'",
            "counted_from_0 = 'ABC'",
            "counted_from_0 = 'BCE'",
            "counted_from_0 = 2",
        ],
        [
            "counted_from_0 = 'CB'",
            "counted_from_0 = ''.join(\n"
            "    name for name, words in histories.items() if words.norm(dim=2).max() > 10)",
        ],
    ),
    "draw_word": (
        "def draw_word(logits, u):\n    return (logits - torch.log(-torch.log(u))).argmax(1)",
        [
            "def draw_word(logits, u):\n    return (logits + u).argmax(1)",
            "def draw_word(logits, u):\n    return (logits + torch.log(-torch.log(u))).argmax(1)",
            "def draw_word(logits, u):\n    return (logits - torch.log(u)).argmax(1)",
            "def draw_word(logits, u):\n    return logits.argmax()",
            "def draw_word(logits, u):\n    return (logits - torch.log(-torch.log(u))).softmax(1)",
            "def draw_word(logits, u):\n"
            "    return (logits - torch.log(-torch.log(u[:, :1]))).argmax(1)",  # one u for all
        ],
        [
            # the same race of exponentials
            "def draw_word(logits, u):\n    return (-torch.log(u) / logits.exp()).argmin(1)",
            "def draw_word(logits, u):\n"
            "    return torch.searchsorted(logits.softmax(0).cumsum(0), u[:, 0].contiguous())"
            ".clamp_max(3)",
        ],
    ),
}
