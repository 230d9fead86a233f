EXERCISES = {
    "still_one": (
        "still_one = ['pairs', 'vote']",
        [
            "still_one = ['MIG']",
            "still_one = ['pairs', 'vote', 'MIG']",
            "still_one = []",
            "still_one = 'vote'",
            "still_one = ['pairs']",
            "still_one = ['deck']",
            "still_one = 2",
        ],
        ["still_one = ('vote', 'pairs')", "still_one = {'pairs', 'vote'}"],
    ),
    "shuffled": (
        "def shuffled(z):\n"
        "    columns = [z[torch.randperm(len(z)), j] for j in range(z.shape[1])]\n"
        "    return torch.stack(columns, 1)",
        [
            # whole rows move, and the joint distribution stays as it is
            "def shuffled(z):\n    return z[torch.randperm(len(z))]",
            "def shuffled(z):\n    return z",
            "def shuffled(z):\n    return z.flip(0)",
            # columns move within a row: the marginals are mixed
            "def shuffled(z):\n    return z[:, torch.randperm(z.shape[1])]",
            "def shuffled(z):\n    return z.flatten()[torch.randperm(z.numel())].view_as(z)",
            "def shuffled(z):\n    return z.sort(0).values",
            "def shuffled(z):\n    return torch.randn_like(z)",
            # one column is moved, the others stay joined
            "def shuffled(z):\n"
            "    out = z.clone()\n"
            "    out[:, 0] = z[torch.randperm(len(z)), 0]\n"
            "    return out",
            "def shuffled(z):\n    return z[torch.randperm(len(z)), 0]",
        ],
        [
            "shuffled = dis.permute_dimensions",
            "def shuffled(z):\n    return z.gather(0, torch.rand_like(z).argsort(0))",
            # shifts of their own: no column meets its old neighbour again
            "def shuffled(z):\n"
            "    return torch.stack([z[:, j].roll(j + 1) for j in range(z.shape[1])], 1)",
            "def shuffled(z):\n"
            "    out = z.clone()\n"
            "    for j in range(z.shape[1]):\n"
            "        out[:, j] = out[torch.randperm(len(z)), j]\n"
            "    return out",
        ],
    ),
    "lost_at_45": (
        "lost_at_45 = math.log(10 / 8)",
        [
            "lost_at_45 = -math.log(1.25)",
            "lost_at_45 = 2 * math.log(1.25)",
            "lost_at_45 = 0.5 * math.log(81 / 45)",
            "lost_at_45 = 0",
            "lost_at_45 = '0.22'",
        ],
        ["lost_at_45 = 0.2231", "lost_at_45 = torch.tensor(0.22314)", "lost_at_45 = np.log(1.25)"],
    ),
    "my_code": (
        "my_code = truth.clone()\nmy_code[:, 0] = truth[:, 0] + 0.3 * truth[:, 1]",
        [
            "my_code = truth",
            "my_code = torch.cat([truth, truth], 1)",
            "my_code = turned(30)",
            "my_code = torch.randn(2592, 5)",
            "my_code = truth[:, [0, 0, 2, 3, 4]]",
            "my_code = truth[:5]",
        ],
    ),
    "capacity_term": (
        "def capacity_term(kl, gamma, capacity):\n    return gamma * abs(kl.mean() - capacity)",
        [
            "def capacity_term(kl, gamma, capacity):\n"
            "    return gamma * (kl - capacity).abs().mean()",
            "def capacity_term(kl, gamma, capacity):\n    return gamma * (kl.mean() - capacity)",
            "def capacity_term(kl, gamma, capacity):\n    return (kl.mean() - capacity).abs()",
            "def capacity_term(kl, gamma, capacity):\n"
            "    return -gamma * (kl.mean() - capacity).abs()",
            "def capacity_term(kl, gamma, capacity):\n"
            "    return gamma * (kl.sum() - capacity).abs()",
            "def capacity_term(kl, gamma, capacity):\n"
            "    return gamma * (kl.mean() - capacity) ** 2",
            "def capacity_term(kl, gamma, capacity):\n"
            "    return gamma * (kl.mean() - capacity).clamp_min(0)",
        ],
        [
            "def capacity_term(kl, gamma, capacity):\n"
            "    return gamma * (kl.mean() - capacity).abs()",
            "def capacity_term(kl, gamma, capacity):\n"
            "    return float(gamma * np.abs(kl.numpy().mean() - capacity))",
        ],
    ),
}
