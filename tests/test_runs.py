"""Runs that are killed, stopped and taken up again: the end is the end of a run left alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from dgm_course.runs.checkpoints import newest_checkpoint
from dgm_course.runs.commands import train
from dgm_course.runs.history import read_history
from dgm_course.runs.ranks import joined, seed_of
from dgm_course.runs.recipe import read_recipe, recipe_names
from dgm_course.runs.recipes.iwae import burdas_rate
from dgm_course.runs.train import check_settings
from tests.ranks import Event, free_port, run

pytestmark = pytest.mark.slow  # whole runs, killed and resumed: minutes, which `make test` has

SMALL = ["iwae", "--tiny"]
for pair in (
    "steps=12",
    "batch=24",
    "hidden=8",
    "z_dim=2",
    "samples=5",
    "save_every=3",
    "log_every=2",
):
    SMALL += ["--set", pair]
LAST = "step-0000012.pt"


def state_of(out: Path, name: str = LAST) -> dict[str, Any]:
    return torch.load(out / "checkpoints" / name, weights_only=True)


def history_of(out: Path) -> list[dict[str, Any]]:
    """What was found, without the clock."""
    lines = read_history(out / "history.jsonl")
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def assert_same(out: Path, other: Path, last: str = LAST) -> None:
    """To the bit: weights, optimisers and history."""
    a, b = state_of(out, last), state_of(other, last)
    for key in a["model"]:
        torch.testing.assert_close(a["model"][key], b["model"][key], rtol=0, atol=0)
    assert str(a["optimizers"]) == str(b["optimizers"])
    assert history_of(out) == history_of(other)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs that nothing befell, by the number of ranks."""
    folder = tmp_path_factory.mktemp("alone")
    outs = {n: folder / f"ranks{n}" for n in (1, 2)}
    for n, out in outs.items():
        assert run(out, *SMALL, n=n).codes == [0] * n
    return outs


def names_in(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_the_last_three_checkpoints_stay_each_with_its_digest(alone: dict[int, Path]) -> None:
    pairs = [(f"step-00000{s:02}.pt", f"step-00000{s:02}.sha256") for s in (6, 9, 12)]
    assert names_in(alone[1]) == [name for pair in pairs for name in pair]


@pytest.mark.parametrize(("n", "rank"), [(1, 0), (2, 1)])
def test_killed_runs_end_as_if_they_had_not_been(
    n: int, rank: int, alone: dict[int, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # The history already has a line of step 8, which the checkpoint of step 6 does not know of.
    codes = run(out, *SMALL, n=n, event=Event("kill", 8, rank)).codes
    assert codes[rank] == -9
    assert 0 not in codes
    ended = run(out, *SMALL, "--resume", n=n)
    assert ended.codes == [0] * n
    assert "resumed at step 6" in ended.said
    assert_same(out, alone[n])


def test_sums_over_three_ranks_round_alike_after_a_resume(tmp_path: Path) -> None:
    given, outs = ["iwae", "--tiny"], (tmp_path / "alone", tmp_path / "killed")
    for pair in ("steps=6", "save_every=2", "batch=24", "shards=3", "hidden=200", "samples=2"):
        given += ["--set", pair]
    run(outs[0], *given, n=3)
    assert run(outs[1], *given, n=3, event=Event("kill", 3, 1)).codes[1] == -9
    assert run(outs[1], *given, "--resume", n=3).codes == [0, 0, 0]
    assert_same(outs[1], outs[0], "step-0000006.pt")


def test_kill_while_a_checkpoint_is_written(alone: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(out, *SMALL, event=Event("kill in writing", 9)).codes == [-9]
    half, digest = (name for name in names_in(out) if "009" in name)
    assert re.fullmatch(r"\.step-0000009\.pt\.\d+\.tmp", half)
    assert digest == "step-0000009.sha256"
    ended = run(out, *SMALL, "--resume")
    assert "resumed at step 6" in ended.said
    assert_same(out, alone[1])
    assert not [name for name in names_in(out) if name.endswith(".tmp")]


def test_full_disk(alone: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = run(out, *SMALL, event=Event("full disk", 6))
    assert ended.codes == [1]
    assert "cannot write" in ended.said
    assert "step-0000006.pt: File too large; the last one is step-0000003.pt" in ended.said
    assert not [name for name in names_in(out) if name.endswith(".tmp")]
    assert run(out, *SMALL, "--resume").codes == [0]
    assert_same(out, alone[1])


@pytest.mark.parametrize("n", [1, 2])
def test_sigterm_saves_and_leaves(n: int, alone: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = run(out, *SMALL, n=n, event=Event("term", 7, rank=n - 1))
    assert ended.codes == [143] * n
    assert "stopped at step 8, which is saved" in ended.said
    assert names_in(out)[-2] == "step-0000008.pt"
    assert run(out, *SMALL, "--resume", n=n).codes == [0] * n
    assert_same(out, alone[n])


def test_sigterm_ends_an_evaluation(alone: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(out, *SMALL, n=2, event=Event("term in evaluation", 12, rank=1)).codes == [143] * 2
    assert not any("test" in line for line in history_of(out))
    assert run(out, *SMALL, "--resume", n=2).codes == [0, 0]
    assert_same(out, alone[2])


def test_damaged_checkpoints_are_named_and_the_one_before_is_used(
    alone: dict[int, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(alone[1], out)
    newest, second, _ = sorted((out / "checkpoints").glob("*.pt"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:1000])
    flipped = bytearray(second.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    second.write_bytes(flipped)
    ended = run(out, *SMALL, "--resume")
    assert f"{newest} is damaged: its 1000 bytes" in ended.said
    assert f"{second} is damaged" in ended.said
    assert "resumed at step 6" in ended.said
    assert_same(out, alone[1])
    for path in (out / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    ended = run(out, *SMALL, "--resume")
    assert ended.codes == [1]
    assert "no checkpoint is whole" in ended.said
    assert ended.said.count("is damaged: its 0 bytes") == 3


def test_a_checkpoint_without_its_digest_is_damaged(alone: dict[int, Path], tmp_path: Path) -> None:
    shutil.copytree(alone[1] / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "step-0000012.sha256").unlink()
    data, (reason,) = newest_checkpoint(tmp_path / "checkpoints")
    assert data == (alone[1] / "checkpoints" / "step-0000009.pt").read_bytes()
    assert "its .sha256 is missing" in reason


def test_what_the_digest_file_says_is_what_sha256sum_reads(alone: dict[int, Path]) -> None:
    folder = alone[1] / "checkpoints"
    digests = [path.name for path in folder.glob("*.sha256")]
    subprocess.run(["sha256sum", "-c", *digests], cwd=folder, check=True, capture_output=True)


def test_a_finished_run_says_so(alone: dict[int, Path]) -> None:
    before = {p: p.read_bytes() for p in alone[1].rglob("*") if p.is_file()}
    ended = run(alone[1], *SMALL, "--resume")
    assert ended.codes == [0]
    assert "iwae is finished: 12 steps" in ended.said
    assert {p: p.read_bytes() for p in alone[1].rglob("*") if p.is_file()} == before


def test_a_final_evaluation_that_was_missed_is_made_up_for(
    alone: dict[int, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(alone[1], out)
    history = out / "history.jsonl"
    *lines, last = history.read_text(encoding="utf-8").splitlines(keepends=True)
    history.write_text("".join(lines) + last[:9], encoding="utf-8")  # killed in that line
    assert run(out, *SMALL, "--resume").codes == [0]
    assert_same(out, alone[1])


def test_resume_without_a_checkpoint_starts_anew_and_says_so(
    alone: dict[int, Path], tmp_path: Path
) -> None:
    ended = run(tmp_path / "run", *SMALL, "--resume")
    assert "no checkpoint in" in ended.said
    assert "starts anew" in ended.said
    assert_same(tmp_path / "run", alone[1])


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_by_two_ranks_and_after_a_kill(name: str, tmp_path: Path) -> None:
    given = [name, "--tiny"]
    for pair in ("steps=5", "batch=24", "log_every=1", "save_every=2", "precision=float64"):
        given += ["--set", pair]
    one, two, killed = (tmp_path / out for out in ("one", "two", "killed"))
    assert run(one, *given).codes == [0]
    assert run(two, *given, n=2).codes == [0, 0]
    assert run(killed, *given, event=Event("kill", 3)).codes == [-9]
    assert run(killed, *given, "--resume").codes == [0]
    assert_same(killed, one, "step-0000005.pt")
    weights, of_two = (state_of(out, "step-0000005.pt")["model"] for out in (one, two))
    for key, value in weights.items():
        assert value.dtype in (torch.float64, torch.int64, torch.bool)
        torch.testing.assert_close(of_two[key], value, rtol=1e-6, atol=1e-9)
    for line, line_of_two in zip(history_of(one), history_of(two), strict=True):
        for key, value in {**line, **line.get("test", {})}.items():
            if key != "test":
                found = {**line_of_two, **line_of_two.get("test", {})}[key]
                assert found == pytest.approx(value, rel=1e-6)
    for picture in ("curve.png", "samples.png"):
        assert (one / picture).read_bytes() == (killed / picture).read_bytes()


def test_another_number_of_ranks_goes_on(alone: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out, *SMALL, event=Event("kill", 7))
    ended = run(out, *SMALL, "--resume", n=2)
    assert ended.codes == [0, 0]
    assert "saved by 1 ranks, resumed by 2: the same run up to rounding" in ended.said
    for key, value in state_of(alone[1])["model"].items():
        torch.testing.assert_close(state_of(out)["model"][key], value, rtol=1e-4, atol=1e-5)


# --- what a run refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["iwae"], "--resume goes on from it, and --out names another folder"),
        (["vae", "--resume"], "the checkpoint is of the recipe iwae, and vae was asked for"),
        (["iwae", "--resume", "--set", "k=7"], "with k=5, got k=7"),
        (["iwae", "--resume", "--set", "q=7"], "the checkpoint has no q"),
    ],
)
def test_what_is_there_is_not_written_over(
    arguments: list[str], problem: str, alone: dict[int, Path]
) -> None:
    answer = CliRunner().invoke(train, [*arguments, "--tiny", "--out", str(alone[1])])
    assert answer.exit_code == 1
    assert problem in answer.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["gan"], "there is no recipe gan; there are"),
        (["iwae", "--set", "kk=1"], "there is no kk; there are seed, steps"),
        (["iwae", "--set", "k=x"], "k must be of type int, as 5 is"),
        (["iwae", "--set", "k"], "must be NAME=VALUE, got k"),
        (["iwae", "--set", "batch=10", "--set", "shards=4"], "got batch=10, shards=4"),
        (["iwae", "--tiny", "--set", "batch=2000"], "at most the 1442 training examples, got 2000"),
        (["iwae", "--tiny", "--set", "steps=0"], "steps must be at least 1, got 0"),
        (["iwae", "--tiny", "--set", "precision=half"], "float32, float64, bfloat16, got half"),
        (["iwae"], "`dgm data` fetches it"),
        ([], "give a recipe: "),
    ],
)
def test_what_cannot_be_run_is_refused(
    arguments: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGM_COURSE_DATA_DIR", str(tmp_path))
    answer = CliRunner().invoke(train, [*arguments, "--out", str(tmp_path / "run")])
    assert answer.exit_code in (1, 2)
    assert problem in answer.output
    assert not (tmp_path / "run").exists()


def test_ranks_must_share_the_shards() -> None:
    settings = read_recipe("iwae").settings_for({}, tiny=True)
    check_settings(settings, 2)
    with pytest.raises(ValueError, match="got shards=4 and 3 ranks"):
        check_settings(settings, 3)


def test_too_few_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="4 processes .* and there are 2"), joined("cuda"):
        pass


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    answer = CliRunner().invoke(
        train, [*SMALL, "--set", "learning_rate=1e30", "--out", str(tmp_path / "run")]
    )
    assert answer.exit_code == 1
    assert re.search("is (nan|inf) at step . and nothing is saved", answer.output.replace(",", ""))


# --- beside the loop as anyone would write it ---------------------------------------------------


def test_one_rank_and_one_shard_are_a_bare_loop(tmp_path: Path) -> None:
    out, pairs = tmp_path / "run", ("steps=5", "shards=1", "batch=721", "max_grad_norm=1.0")
    given = [part for pair in pairs for part in ("--set", pair)]
    assert run(out, "pixelcnn", "--tiny", *given).codes == [0]
    recipe = read_recipe("pixelcnn")
    settings = recipe.settings_for({}, tiny=True)
    torch.default_generator.manual_seed(seed_of(0, "build"))
    task = recipe.build(SimpleNamespace(**settings))
    optimizer, seen = task.players[0].optimizer, []
    optimizer.param_groups[0]["lr"] = settings["learning_rate"]
    for step in range(5):  # two steps an epoch
        order = torch.Generator().manual_seed(seed_of(0, "order", step // 2))
        rows = torch.randperm(1442, generator=order)[step % 2 * 721 :][:721]
        optimizer.zero_grad()
        loss = -task.model.log_prob(task.train[rows]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
        optimizer.step()
        seen += rows.tolist()
    assert sorted(seen[:1442]) == [*range(1442)] == sorted(seen[1442:2884])
    assert seen[:1442] != seen[1442:2884]
    for key, value in state_of(out, "step-0000005.pt")["model"].items():
        torch.testing.assert_close(value, task.model.state_dict()[key])
    nats = -task.model.log_prob(task.test).mean().item()
    assert history_of(out)[-1]["test"]["nats"] == pytest.approx(nats, rel=1e-5)


def test_burdas_stages_have_three_times_the_passes_of_the_one_before() -> None:
    settings = SimpleNamespace(steps=3280 * 3000, learning_rate=1e-3)
    rate = burdas_rate(settings)
    ends = [3000 * sum(3**i for i in range(stage + 1)) for stage in range(8)]
    assert ends[-1] == settings.steps
    for stage, end in enumerate(ends):
        assert rate(end - 1) == pytest.approx(1e-3 * 10 ** (-stage / 7))
    assert rate(ends[0]) == pytest.approx(1e-3 * 10 ** (-1 / 7))


def test_torchrun_starts_ends_and_resumes_a_run(alone: dict[int, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command += ["-m", "dgm_course.runs", *SMALL, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("step 12 of 12") == 1  # one rank speaks
    assert_same(tmp_path / "run", alone[2])


def test_the_page_has_a_row_for_each_recipe_and_no_value_that_was_not_reached() -> None:
    page = (Path(__file__).parent.parent / "docs" / "runs.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", page, flags=re.MULTILINE))
    assert rows == {name: read_recipe(name).reached for name in recipe_names()}
    listed = CliRunner().invoke(train, ["--list"]).output
    for name in recipe_names():
        assert f"{name}: {read_recipe(name).paper}; published" in listed
