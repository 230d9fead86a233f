BEFORE_CHANGED = (
    "def leaks(model, height, width):\n"
    "    x = torch.randint(3, (32, 1, height, width))\n"
    "    before = model(x).flatten(2)\n"
    "    for i in range(height * width):\n"
    "        y = x.clone()\n"
    "        y.flatten(1)[:, i] = (y.flatten(1)[:, i] + 1) % 3\n"
    "        moved = (model(y).flatten(2) - before).abs().amax((0, 1))\n"
)

FULL_PASSES = (
    "def draw(model, n, height, width):\n"
    "    x = torch.zeros(n, 1, height, width, dtype=torch.long)\n"
    "    for i in range(height):\n"
    "        for j in range(width):\n"
    "            p = model(x)[:, :, 0, i, j].softmax(1)\n"
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
        [
            "def blind(k, n_layers):\n    r = (k - 1) / 2\n"
            "    return sum(r * (n_layers - min(j, n_layers)) for j in range(1, 100))"
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
            # its own logits only
            BEFORE_CHANGED + "        if moved[i] > 1e-6:\n"
            "            return True\n"
            "    return False",
            # all instead of any
            BEFORE_CHANGED + "        if (moved[: i + 1] > 1e-6).all():\n"
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
            # a single white image, in which a leak may rest
            BEFORE_CHANGED.replace("torch.randint(3, (32,", "torch.zeros((1,").replace(
                "width))", "width), dtype=torch.long)"
            )
            + "        if (moved[: i + 1] > 1e-6).any():\n"
            "            return True\n"
            "    return False",
            # columns first
            BEFORE_CHANGED.replace("flatten(1)[:, i]", "mT.flatten(1)[:, i]")
            + "        if (moved[: i + 1] > 1e-6).any():\n"
            "            return True\n"
            "    return False",
            # a look at the mask
            "def leaks(model, height, width):\n    return bool(model.first.mask[0, 0, 1, 1])",
            # what the old course test looked at
            "def leaks(model, height, width):\n"
            "    x = torch.zeros(1, 1, height, width, dtype=torch.long)\n"
            "    return model(x).shape != (1, 3, 1, height, width)",
            "def leaks(model, height, width):\n    return True",
            # one pixel is changed; it was accepted
            BEFORE_CHANGED.replace("range(height * width)", "[height * width // 2]")
            + "        if (moved[: i + 1] > 1e-6).any():\n"
            "            return True\n"
            "    return False",
        ],
        [
            # of probabilities; it was refused
            BEFORE_CHANGED.replace("model(x)", "model(x).softmax(1)").replace(
                "model(y)", "model(y).softmax(1)"
            )
            + "        if (moved[: i + 1] > 1e-6).any():\n"
            "            return True\n"
            "    return False",
            # without a tolerance, in NumPy, with a tensor as the verdict
            BEFORE_CHANGED.replace("abs().amax((0, 1))", "abs().numpy().max((0, 1))")
            + "        if (moved[: i + 1] != 0).any():\n"
            "            return np.bool_(True)\n"
            "    return torch.tensor(False)",
        ],
    ),
    "draw": (
        FULL_PASSES + "            x[:, 0, i, j] = torch.multinomial(p, 1)[:, 0]\n"
        "    return x  # (n, 1, height, width)",
        [
            # all pixels from one pass
            "def draw(model, n, height, width):\n"
            "    logits = model(torch.zeros(n, 1, height, width, dtype=torch.long))\n"
            "    return torch.distributions.Categorical(logits=logits.movedim(1, -1)).sample()",
            # the likeliest level
            FULL_PASSES + "            x[:, 0, i, j] = p.argmax(1)\n    return x",
            # drawn, and never put where the next pass sees it
            FULL_PASSES.replace("    for i", "    y = x.clone()\n    for i", 1)
            + "            y[:, 0, i, j] = torch.multinomial(p, 1)[:, 0]\n    return y",
            # column by column
            FULL_PASSES.replace("for i in range(height)", "for j in range(width)").replace(
                "        for j in range(width)", "        for i in range(height)"
            )
            + "            x[:, 0, i, j] = torch.multinomial(p, 1)[:, 0]\n    return x",
            # one image, n times
            FULL_PASSES.replace("zeros(n", "zeros(1")
            + "            x[:, 0, i, j] = torch.multinomial(p, 1)[:, 0]\n"
            "    return x.repeat(n, 1, 1, 1)",
            # each level as likely as any other
            "def draw(model, n, height, width):\n"
            "    return torch.randint(2, (n, 1, height, width))",
            # the square of p: the logits doubled
            FULL_PASSES.replace(".softmax", ".mul(2).softmax")
            + "            x[:, 0, i, j] = torch.multinomial(p, 1)[:, 0]\n    return x",
            # without the axis of the channels
            FULL_PASSES + "            x[:, 0, i, j] = torch.multinomial(p, 1)[:, 0]\n"
            "    return x[:, 0]",
        ],
        [
            # Gumbel's way, one pixel after the other in a flat view
            "def draw(model, n, height, width):\n"
            "    x = torch.zeros(n, 1, height, width, dtype=torch.int32)\n"
            "    for i in range(height * width):\n"
            "        logits = model(x).flatten(2)[:, :, i]\n"
            "        noise = -(-torch.rand_like(logits).log()).log()\n"
            "        x.view(n, -1)[:, i] = (logits + noise).argmax(1)\n"
            "    return x",
            # NumPy at the end
            FULL_PASSES + "            x[:, 0, i, j] = torch.multinomial(p, 1)[:, 0]\n"
            "    return x.numpy()",
        ],
    ),
    "differing_pixels": (
        "differing_pixels = 0",
        [
            "differing_pixels = 32",
            "differing_pixels = 16",
            "differing_pixels = 'none'",
            "differing_pixels = False",
        ],
        ["differing_pixels = 0.0", "differing_pixels = np.int64(0)"],
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
            # out of the logs too soon
            "def posterior(x):\n"
            "    p = [conditional.log_prob(x, torch.full((len(x),), y)).exp() for y in range(10)]\n"
            "    return torch.stack(p, 1) / torch.stack(p, 1).sum(1, keepdim=True)",
            # decisions
            "def posterior(x):\n"
            "    log_p = [conditional.log_prob(x, torch.full((len(x),), y)) for y in range(10)]\n"
            "    return torch.nn.functional.one_hot(torch.stack(log_p, 1).argmax(1), 10).float()",
            "def posterior(x):\n    return torch.full((len(x), 10), 0.1)",
        ],
        [
            "def posterior(x):\n"
            "    log_p = [conditional.log_prob(x, torch.full((len(x),), y)) for y in range(10)]\n"
            "    p = np.exp(torch.stack(log_p, 1).double().numpy())\n"
            "    return p / p.sum(1, keepdims=True)"
        ],
    ),
    "times_computed": (
        "times_computed = (28 * 28, 1)",
        [
            "times_computed = (1, 784)",
            "times_computed = (784, 784)",
            "times_computed = 784",
            "times_computed = (28 * 28 - 1, 1)",
        ],
        ["times_computed = [784, 1]"],
    ),
}
