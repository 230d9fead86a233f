BEFORE_CHANGED = (
    "def leaks(model):\n"
    "    x = torch.randint(3, (32, 1, 4, 4))\n"
    "    before = model(x).flatten(2)\n"
    "    for i in range(16):\n"
    "        y = x.clone()\n"
    "        y.flatten(1)[:, i] = (y.flatten(1)[:, i] + 1) % 3\n"
    "        moved = (model(y).flatten(2) - before).abs().amax((0, 1))\n"
)

EXERCISES = {
    "blind": (
        "def blind(k, n_layers):\n    return (k // 2) * n_layers * (n_layers - 1) // 2",
        [
            "def blind(k, n_layers):\n    return (k // 2) * n_layers * (n_layers + 1) // 2",
            "def blind(k, n_layers):\n    return n_layers * (n_layers - 1) // 2",  # r left out
            "def blind(k, n_layers):\n    return k * n_layers * (n_layers - 1) // 2",
            "blind = 6",
        ],
    ),
    "leaks": (
        BEFORE_CHANGED + "        if (moved[: i + 1] > 1e-6).any():\n"
        "            return True\n"
        "    return False",
        [
            # only what comes before the changed pixel: its own logits are not looked at
            BEFORE_CHANGED + "        if (moved[:i] > 1e-6).any():\n"
            "            return True\n"
            "    return False",
            # any logits
            BEFORE_CHANGED + "        if (moved > 1e-6).any():\n"
            "            return True\n"
            "    return False",
            # later logits, which may move
            BEFORE_CHANGED + "        if (moved[i + 1 :] > 1e-6).any():\n"
            "            return True\n"
            "    return False",
            # what the old course test looked at
            "def leaks(model):\n    x = torch.zeros(1, 1, 4, 4, dtype=torch.long)\n"
            "    return model(x).shape != (1, 3, 1, 4, 4)",
            "def leaks(model):\n    return True",
        ],
    ),
    "differing_pixels": (
        "differing_pixels = 0",
        ["differing_pixels = 32", "differing_pixels = 16", "differing_pixels = 'none'"],
    ),
    "posterior": (
        "def posterior(x):\n"
        "    log_p = [conditional.log_prob(x, torch.full((len(x),), y)) for y in range(10)]\n"
        "    return torch.stack(log_p, 1).softmax(1)",
        [
            # normalised over the images
            "def posterior(x):\n"
            "    log_p = [conditional.log_prob(x, torch.full((len(x),), y)) for y in range(10)]\n"
            "    return torch.stack(log_p, 1).softmax(0)",
            # logs in proportion, not probabilities
            "def posterior(x):\n"
            "    log_p = [conditional.log_prob(x, torch.full((len(x),), y)) for y in range(10)]\n"
            "    return torch.stack(log_p, 1) / torch.stack(log_p, 1).sum(1, keepdim=True)",
            # per pixel: a temperature of 64
            "def posterior(x):\n"
            "    log_p = [conditional.log_prob(x, torch.full((len(x),), y)) for y in range(10)]\n"
            "    return (torch.stack(log_p, 1) / 64).softmax(1)",
            # the wrong way round: the classes transposed
            "def posterior(x):\n"
            "    log_p = [conditional.log_prob(x, torch.full((len(x),), y)) for y in range(10)]\n"
            "    return torch.stack(log_p).softmax(0)",
            "def posterior(x):\n    return torch.full((len(x), 10), 0.1)",
        ],
    ),
    "times_computed": (
        "times_computed = (28 * 28, 1)",
        ["times_computed = (1, 784)", "times_computed = (784, 784)", "times_computed = 784"],
    ),
}
