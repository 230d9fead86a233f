"""Right submissions of the light assignment, as people leave them in Jupyter, Colab and VS Code.

Each must get all points from the grader, and in the student's own check. `LIVED` is the table:
name, part of a note, and what is done to the notebook. A cell of the student's own that defines
`mark` must have run up to there: the answer to task 1 then needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.grading.bad import delete, marks
from tests.grading.light import RIGHT, cell

Notebook = dict[str, Any]
Change = Callable[[Notebook], object]


class Lived(NamedTuple):
    """What is done to a right notebook, and part of a note that it leaves: "" for none at all."""

    change: Change
    note: str | None = None


NEEDS_MARK = RIGHT["answer-1"].replace("    ###", "    assert mark == 1\n    ###", 1)


def above(source: str, *, uses: bool = True, **metadata: Any) -> Change:
    """An own cell above the first answer, which uses ``mark`` from it."""

    def change(made: Notebook) -> None:
        one = cell("code", source)
        one["metadata"] = metadata
        made["cells"].insert(2, one)
        if uses:
            marks(made, "answer-1")["source"] = NEEDS_MARK

    return change


def answer(source: str) -> Change:
    """Another answer to task 1."""
    return lambda made: marks(made, "answer-1").update(source=source)


def after(grade_id: str, source: str, kind: str = "code") -> Change:
    def change(made: Notebook) -> None:
        at = made["cells"].index(marks(made, grade_id))
        made["cells"].insert(at + 1, cell(kind, source))

    return change


def all_of(*changes: Change) -> Change:
    def change(made: Notebook) -> None:
        for one in changes:
            one(made)

    return change


def every(do: Callable[[dict[str, Any]], object]) -> Change:
    return lambda made: [do(one) for one in made["cells"]]


SOFTMAX, BISECT = RIGHT["answer-1"], RIGHT["answer-3"]
WRONG = SOFTMAX.replace("return e / ", "return 2 * e / ")
STUB = "def softmax(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
HELPER = "def shifted(x):\n    return np.exp(x - x.max(-1, keepdims=True))"
USES_HELPER = "def softmax(x):\n    e = shifted(x)\n    return e / e.sum(-1, keepdims=True)"
TEST_1 = "# 1 · softmax, 3 points"


def lost(grade_id: str) -> Change:
    return lambda made: marks(made, grade_id)["metadata"].clear()


def copied(grade_id: str, source: str) -> Change:
    """A cell pasted at the end with its id, as JupyterLab does, and then changed."""
    return lambda made: made["cells"].append({**marks(made, grade_id), "source": source})


CELLS = {
    "an own cell that begins as the set-up": Lived(
        all_of(above(f"import math\n\n{HELPER}", uses=False), answer(USES_HELPER)), ""
    ),
    "an own cell at the end that begins as an answer": Lived(
        lambda made: made["cells"].append(cell("code", "class Polynomial:\n    pass")), ""
    ),
    "an own cell that begins as a test": Lived(
        all_of(above(f"{TEST_1}\n{HELPER}", uses=False), answer(USES_HELPER)), ""
    ),
    "a test copied without its id, and changed": Lived(
        lambda made: after("answer-1", marks(made, "test-1")["source"] + "\nmark = 1")(made), ""
    ),
    "a test copied with its id, and changed": Lived(
        all_of(
            copied("test-1", "mark = 1"),
            lambda made: made["cells"].insert(2, made["cells"].pop()),
            answer(NEEDS_MARK),
        ),
        "changed copy of test-1",
    ),
    "the set-up copied with its id, and changed": Lived(
        all_of(
            copied("setup", "mark = 1"),
            lambda made: made["cells"].insert(2, made["cells"].pop()),
            answer(NEEDS_MARK),
        ),
        "changed copy of setup",
    ),
    "an exact copy of a test at the top": Lived(
        lambda made: made["cells"].insert(0, cell("code", marks(made, "test-3")["source"])), ""
    ),
    "an exact copy of a test at the end": Lived(
        lambda made: made["cells"].append(cell("code", marks(made, "test-1")["source"])), ""
    ),
    "a stub kept at the end": Lived(lambda made: made["cells"].append(cell("code", STUB))),
    "a stub kept above": Lived(above(STUB, uses=False)),
    "an id lost, and a stub kept": Lived(
        all_of(lost("answer-1"), lambda made: made["cells"].append(cell("code", STUB))),
        "has lost its id; taken for answer-1",
    ),
    "an id lost, and two candidates": Lived(
        all_of(lost("answer-1"), lambda made: made["cells"].append(cell("code", WRONG))),
        "answer-1 is missing, or its id is (cells 3, 10?)",
    ),
    "an answer pasted at the end with its id, and changed": Lived(
        copied("answer-1", WRONG), "answer-1 occurs twice"
    ),
    "all ids lost, a second one at the end": Lived(
        all_of(
            lambda made: made["cells"].append(cell("code", WRONG)),
            every(lambda one: one["metadata"].clear()),
        ),
        "answer-1 is missing, or its id is",
    ),
    "an import added to the set-up": Lived(
        all_of(
            lambda made: marks(made, "setup").update(
                source=marks(made, "setup")["source"] + "\nfrom functools import reduce\nmark = 1"
            ),
            answer(NEEDS_MARK.replace("x.max", "reduce(lambda a, b: b, [0, x]).max")),
        ),
        "cell 2 is setup, but changed: it runs after the release's",
    ),
    "a helper alone in the set-up": Lived(
        all_of(lambda made: marks(made, "setup").update(source="mark = 1"), answer(NEEDS_MARK)),
        "cell 2 is setup, but changed",
    ),
    "a set-up that fails": Lived(
        lambda made: marks(made, "setup").update(source="import google.colab"), "cell 2 stopped"
    ),
    "set-up below the answers": Lived(lambda made: made["cells"].append(made["cells"].pop(1)), ""),
    "a helper below the answer": Lived(all_of(answer(USES_HELPER), after("answer-1", HELPER)), ""),
    "a helper below the answer, its test deleted": Lived(
        all_of(answer(USES_HELPER), after("answer-1", HELPER), lambda made: delete(made, "test-1")),
        "",
    ),
    "helpers below the answers, all tests deleted": Lived(
        all_of(
            answer(USES_HELPER),
            after("answer-1", HELPER),
            after("answer-3", "def unused(): pass"),
            lambda made: delete(made, "test-1", "test-2", "test-3"),
        ),
        "",
    ),
    "a helper below the last answer, its test deleted": Lived(
        all_of(
            lambda made: marks(made, "answer-3").update(
                source="def bisect(*limits):\n    return bisected(*limits)"
            ),
            after("answer-3", BISECT.replace("def bisect", "def bisected")),
            lambda made: delete(made, "test-3"),
        ),
        "",
    ),
    "tests deleted, and worse answers at the end": Lived(
        all_of(
            lambda made: delete(made, "test-1", "test-2", "test-3"),
            lambda made: made["cells"].append(cell("code", f"{WRONG}\nbisect = Polynomial = None")),
        ),
        "",
    ),
    "an answer and its helper moved below the test": Lived(
        all_of(
            answer(USES_HELPER),
            lambda made: made["cells"].insert(3, made["cells"].pop(2)),
            lambda made: made["cells"].insert(3, cell("code", HELPER)),
        ),
        "",
    ),
    "an answer split in two": Lived(all_of(answer(HELPER), after("answer-1", USES_HELPER)), ""),
    "an answer split in two by JupyterLab, which doubles the id": Lived(
        all_of(
            answer(USES_HELPER),
            lambda made: made["cells"].insert(2, {**marks(made, "answer-1"), "source": HELPER}),
        ),
        "answer-1 occurs twice",
    ),
    "answers merged into one cell": Lived(
        all_of(
            answer(f"{SOFTMAX}\n\n{RIGHT['answer-2']}\n\n{BISECT}"),
            lambda made: delete(made, "answer-2", "answer-3"),
        ),
        "answer-2 is missing",
    ),
    "a cell that raises above the answers": Lived(above("mark = 1\n1 / 0"), "ZeroDivisionError"),
    "a cell that cannot be parsed above the answers": Lived(
        above("def f(:", uses=False), "SyntaxError"
    ),
    "an own training cell": Lived(above("1 / 0", uses=False, tags=["training"]), ""),
    "an error that cannot be printed": Lived(
        above("mark = 1\nclass E(Exception):\n    def __str__(self): raise SystemExit\nraise E"),
        "stopped: E (line 4)",
    ),
}
FILES = {
    "sources as one string, CRLF": Lived(
        every(lambda one: one.update(source=one["source"].replace("\n", "\r\n"))), ""
    ),
    "sources as lists": Lived(
        every(lambda one: one.update(source=one["source"].splitlines(keepends=True))), ""
    ),
    "format 4.2: no cells' ids": Lived(
        all_of(lambda made: made.update(nbformat_minor=2), every(lambda one: one.pop("id"))), ""
    ),
    "no metadata where there is nothing to say": Lived(
        all_of(above("mark = 1"), lambda made: made["cells"][2].pop("metadata")), ""
    ),
    "metadata that are null": Lived(
        all_of(above("mark = 1"), lambda made: made["cells"][2].update(metadata=None)), ""
    ),
    "Colab's metadata": Lived(
        all_of(
            lambda made: made["metadata"].update(colab={"provenance": []}, accelerator="GPU"),
            every(lambda one: one["metadata"].update(id="a1B2", colab={"base_uri": "https://x"})),
            every(lambda one: one.update(id="a1B2")),
        ),
        "",
    ),
    "VS Code's metadata": Lived(
        every(lambda one: one["metadata"].update(vscode={"languageId": "python"})), ""
    ),
    "raw cells": Lived(
        lambda made: made["cells"].insert(2, cell("raw", "def softmax(x): no Python")), ""
    ),
    "a note turned into code": Lived(
        lambda made: made["cells"].insert(2, cell("code", "Here I use softmax!")), "SyntaxError"
    ),
}


def runs(source: str, note: str | None = "") -> Lived:
    """An own cell that must run to its end, where it stands."""
    return Lived(above(f"{source}\nmark = 1" if "mark" not in source else source), note)


MAGICS = {
    "%matplotlib inline": runs("%matplotlib inline", "left out %matplotlib inline"),
    "%config": runs("%config InlineBackend.figure_format = 'retina'", "left out %config"),
    "%load_ext autoreload": runs("%load_ext autoreload\n%autoreload 2", "%autoreload 2"),
    "!pip": runs("!pip install -q einops", "left out !pip"),
    "!pip over two lines": runs("!pip install -q \\\n    einops", "left out !pip"),
    "%pip and pip": runs("%pip install einops\npip install einops", "left out %pip"),
    "a shell's line in a block": runs("if True:\n    !ls -l", "left out !ls"),
    "lines of a shell": runs("files = !ls\nassert list(files) == files", "files = !ls"),
    "a magic's value": runs("where = %pwd", "where = %pwd"),
    "%time": runs("%time mark = 1"),
    "%time in a loop": runs("for i in range(2):\n    %time mark = i"),
    "%timeit": runs("%timeit -n 1 sum(range(9))", "left out %timeit"),
    "%timeit -o": runs("r = %timeit -o sum([])\nprint(f'{r.average:.3f} s', r)", "%timeit -o"),
    "%%time": runs("%%time\nmark = 1", "left out %%time"),
    "%%timeit": runs("%%timeit -n 1\nmark = 1", "left out %%timeit"),
    "%%capture": runs("%%capture out\nmark = 1", "left out %%capture"),
    "what %%capture took": Lived(
        all_of(
            above("print(out.stdout); out.show()\nmark = 1"), above("%%capture out\n1", uses=False)
        ),
        "left out %%capture",
    ),
    "%%bash": Lived(above("%%bash\necho mark", uses=False), "left out %%bash"),
    "%%html": Lived(above("%%html\n<b>mark</b>", uses=False), "left out %%html"),
    "%%script false": Lived(
        above("%%script false --no-raise-error\n1 / 0", uses=False), "%%script"
    ),
    "%%writefile and an import": Lived(
        all_of(above("from mine import mark"), above("%%writefile mine.py\nmark = 1", uses=False)),
        "left out %%writefile",
    ),
    "help": runs("np.exp?\n?np.exp\nnp.exp??", "left out np.exp?"),
    "help on a cell's magic": Lived(above("%%timeit?", uses=False), "left out %%timeit?"),
    "a percent sign in a text": runs("text = '''\n%a\n!b\n?'''\nassert '%a' in text"),
    "a rest on a line of its own": runs("rest = 7 \\\n% 4"),
    "get_ipython": runs("get_ipython().run_line_magic('matplotlib', 'inline')"),
    "get_ipython().system": runs("get_ipython().system('pip install einops')"),
    "IPython's get_ipython": runs(
        "from IPython import get_ipython\nif (shell := get_ipython()) is not None:\n"
        "    shell.run_line_magic('load_ext', 'autoreload')\n"
        "get_ipython().run_line_magic('matplotlib', 'inline')"
    ),
    "in Colab or not": runs("IN_COLAB = 'google.colab' in str(get_ipython())"),
}
KERNEL = {
    "IPython's display": runs(
        "from IPython.display import Markdown, clear_output, display\n"
        "clear_output(wait=True)\ndisplay(Markdown('**1**'), 1)"
    ),
    "display and its handle": runs("shown = display(1, display_id=True)\nshown.update(2)"),
    "Colab's drive": Lived(
        above("from google.colab import drive\ndrive.mount('/content/drive')", uses=False),
        "No module named 'google",
    ),
    "Colab's drive, tried": runs(
        "try:\n    from google.colab import drive\n    drive.mount('/content')\n"
        "except ImportError:\n    print('not in Colab')"
    ),
    "Colab's form": runs("# @title Choose { run: 'auto' }\nrate = 0.1  # @param {type:'number'}"),
    "tqdm": runs("from tqdm.notebook import tqdm\nfor _ in tqdm(range(3)):\n    pass"),
    "tqdm.auto": runs("from tqdm.auto import trange\nfor _ in trange(3):\n    pass"),
    "ipywidgets": runs(
        "from ipywidgets import interact\n@interact(n=(0, 3))\ndef show(n=1):\n    print(n)"
    ),
    "the last value": Lived(all_of(above("mark = _ - 40"), above("20\n41", uses=False)), ""),
    "an own _": Lived(
        all_of(above("mark = _"), above("for _ in range(2):\n    pass\n7", uses=False)), ""
    ),
    "a last value that is not shown": runs("mark = 1\nmark;"),
    "await": runs("import asyncio\nawait asyncio.sleep(0)"),
    "await's value": runs("async def one():\n    return 1\n\nmark = await one()"),
    "asynchronous loops": runs(
        "async def count():\n    for i in range(2):\n        yield i\n\n"
        "mark = [i async for i in count()][-1]"
    ),
    "annotations of the future": Lived(
        all_of(
            above("def f(x: NotYet) -> NotYet: ...\nmark = f.__annotations__['x'] == 'NotYet'"),
            above("from __future__ import annotations", uses=False),
        ),
        "",
    ),
    "annotations that are read": runs(
        "def typed(f):\n    assert f.__annotations__['n'] is int\n    return f\n\n"
        "@typed\ndef f(n: int) -> int:\n    return n"
    ),
    "a data class": runs(
        "from dataclasses import dataclass, fields\n@dataclass\nclass Point:\n    x: int = 1\n\n"
        "assert fields(Point)[0].type is int\nmark = Point().x"
    ),
    "type hints": runs(
        "from typing import NamedTuple, get_type_hints\nclass P(NamedTuple):\n    x: 'list[int]'"
        "\n\n"
        "assert get_type_hints(P) == {'x': list[int]}"
    ),
    "an enum, a protocol": runs(
        "from enum import Enum\nfrom typing import Protocol\nclass K(Enum):\n    A = 1\n"
        "class Q(Protocol): ...\nmark = K.A.value"
    ),
    "a function's source": runs(
        "import inspect\ndef f():\n    return 17\n\nassert '17' in inspect.getsource(f)"
    ),
    "functools.cache": runs("from functools import cache\n@cache\ndef f(): return 1\nmark = f()"),
    "pickle": runs(
        "import copy, pickle\nclass A:\n    x = 1\n\n"
        "mark = copy.deepcopy(pickle.loads(pickle.dumps(A()))).x"
    ),
    "if __name__": runs("if __name__ == '__main__':\n    mark = 1"),
    "the module __main__": runs("import __main__\nx = 5\nassert __main__.x == 5"),
    "warnings": runs("import warnings\nwarnings.filterwarnings('ignore')"),
    "plots": runs(
        "import matplotlib.pyplot as plt\nplt.style.use('ggplot')\nplt.plot([1, 2])\nplt.show()"
    ),
    "a window's backend": runs(
        "import matplotlib as mpl\nmpl.use('TkAgg')\nimport matplotlib.pyplot as plt\n"
        "plt.switch_backend('QtAgg')\nplt.plot([1])",
        "left out mpl.use('TkAgg'), plt.switch_backend('QtAgg')",
    ),
    "paths": runs(
        "import os, sys\nsys.path.append('..')\nos.environ['OMP_NUM_THREADS'] = '64'\n"
        "os.makedirs('figures', exist_ok=True)\nos.chdir('figures')"
    ),
    "a file of one's own": runs(
        "from pathlib import Path\nPath('mine.txt').write_text('1')\n"
        "mark = int(Path('mine.txt').read_text())"
    ),
    "threads": runs(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n    mark = sum(pool.map(int, '10'))"
    ),
    "processes": runs(
        "import multiprocessing\ndef twice(x):\n    return 2 * x\n\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    assert pool.map(twice, range(3)) == [0, 2, 4]"
    ),
    "input": Lived(above("mark = 1\nname = input('name: ')"), "EOFError"),
    "exit": Lived(above("mark = 1\nexit()"), "SystemExit"),
    "quit": Lived(above("mark = 1\nquit(0)"), "SystemExit"),
    "raise SystemExit": Lived(above("mark = 1\nraise SystemExit('stop here')"), "stop here"),
    "an indented cell": runs("    x = 0\n    mark = x + 1"),
    "prompts": runs(">>> mark = 0\n>>> for i in range(2):\n...     mark = i"),
    "a margin in a text": runs("def f():\n    return '''\n  a\n'''\n\nmark = f().count('a')"),
}
LIVED = {**CELLS, **FILES, **MAGICS, **KERNEL}
