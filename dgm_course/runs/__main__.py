"""``torchrun --nproc-per-node N -m dgm_course.runs RECIPE``: `dgm train` in each of N processes."""

from dgm_course.runs.commands import train

if __name__ == "__main__":
    train(prog_name="python -m dgm_course.runs")
