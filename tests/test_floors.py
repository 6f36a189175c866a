"""The architecture: who may import whom, and that importing does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import nonlocalnet

ROOT = Path(nonlocalnet.__file__).parent

# A module imports from floors below its own, or sideways as long as there is no circle.
# A package is one entry; inside it only circles are forbidden.
FLOORS: dict[int, str] = {
    0: "errors card modes labels presets layers head positions linear ops kernels clips causal"
    " block_options transforms machine metrics questions samples sources precision processes"
    " files tags packets reading meter remote opening upright parts children libraries palette"
    " manner sidecar grids noise ledger",
    1: "block shift placement resnet mobilenet framewise twins video footage scores folders look"
    " synthetic video_writing cluster smoothing connections forward pace onnx_file waking denoise",
    2: "sizes surgery datasets listings reencoding preparing neighbours",
    3: "models recipes protocols weights scoring cost inputs feeds",
    4: "evaluate report prediction streaming scene attention sight explorer picture training page"
    " hub timeline calibration moments live exported stepping restoration"
    " film_parts film_restoration",
    5: "train exhibits exam trial demo ablation doctor check terminal many watching export bench"
    " serve",
    6: "flags commands overview planning results studies zoo cli __main__ bulk answers"
    " shipping looking hosting restoring",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}


def modules() -> dict[str, Path]:
    """Dotted name without the leading "nonlocalnet." -> file; "" is the package itself."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(name: str, path: Path, known: set[str]) -> Iterator[str]:
    """The modules of ours that a module imports, anywhere in it, as names of `known`."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "nonlocalnet":
                    yield alias.name.partition(".")[2]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            if base is None:
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                yield inner if inner in known else base


def _base(node: ast.ImportFrom, package: str) -> str | None:
    """What `from ... import` names, without "nonlocalnet."; None for other packages."""
    if not node.level:
        top, _, rest = (node.module or "").partition(".")
        return rest if top == "nonlocalnet" else None
    parts = package.split(".") if package else []
    kept = parts[: len(parts) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def edges() -> dict[str, set[str]]:
    """Module -> the modules it imports. The package's own names (`__version__`) count for none."""
    files = modules()
    found = {
        name: set(imports(name, path, set(files))) - {name, ""} for name, path in files.items()
    }
    # a module's first act is to import the packages it lies in, but those import it in turn
    return found


def test_every_module_has_a_floor() -> None:
    entries = {name.partition(".")[0] for name in modules()} - {""}
    assert entries <= set(FLOOR_OF), "give a new module its place in FLOORS"
    assert set(FLOOR_OF) <= entries, "FLOORS names modules that are gone"


def test_each_module_is_on_one_floor() -> None:
    names = " ".join(FLOORS.values()).split()
    assert len(names) == len(set(names))


def test_imports_go_down() -> None:
    upward = [
        f"{name} (floor {FLOOR_OF[mine]}) imports {other} (floor {FLOOR_OF[theirs]})"
        for name, others in edges().items()
        for other in others
        for mine, theirs in [(name.partition(".")[0], other.partition(".")[0])]
        if mine in FLOOR_OF and theirs in FLOOR_OF and FLOOR_OF[theirs] > FLOOR_OF[mine]
    ]
    assert not upward


@pytest.mark.parametrize("whole_packages", [False, True])
def test_no_circles(whole_packages: bool) -> None:
    graph: dict[str, set[str]] = {}
    for name, others in edges().items():
        mine = name.partition(".")[0] if whole_packages else name
        theirs = {o.partition(".")[0] for o in others} if whole_packages else others
        graph.setdefault(mine, set()).update(theirs - {mine})
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_imports_are_found(tmp_path: Path) -> None:
    """The checks above are worth what this parser finds."""
    path = tmp_path / "page.py"
    path.write_text(
        "import nonlocalnet.video, os\nfrom . import plots, nothing\nfrom ..errors import Oops\n"
        "from .. import card\nfrom nonlocalnet.training import run\nfrom torch import nn\n"
        "def f():\n    from .films import strip\n"
    )
    known = {"video", "report", "report.plots", "report.films", "errors", "card", "training.run"}
    found = set(imports("report.page", path, known))
    assert found == known  # "nothing" is a name of the package itself


ALLOWED = (
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
)
SETTERS = ("manual_seed", "seed", "setenv", "putenv", "system", "filterwarnings", "simplefilter")


def acts(path: Path) -> Iterator[str]:
    """Statements at the top of a module that do more than define something."""
    for node in tree(path).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.If) and ast.unparse(node.test) in (
            "TYPE_CHECKING",  # and names for tools
            "__name__ == '__main__'",
        ):
            continue
        if isinstance(node, ast.Try) and all(
            isinstance(n, ast.Import | ast.ImportFrom) for n in node.body
        ):
            continue  # an optional dependency
        text = ast.unparse(node).partition("\n")[0]
        if not isinstance(node, ALLOWED):
            yield text
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {
                ast.unparse(c.func).split(".")[-1]
                for c in ast.walk(node)
                if isinstance(c, ast.Call)
            }
            sets = any(n in SETTERS or n.startswith("set_") for n in names)
            if sets or not all(isinstance(t, ast.Name | ast.Tuple) for t in targets):
                yield text


@pytest.mark.parametrize("name", list(modules()))
def test_a_module_only_defines(name: str) -> None:
    assert not list(acts(modules()[name]))


def test_acts_are_found(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    bad = [
        "torch.manual_seed(0)",
        "os.environ['A'] = 'b'",
        "torch.backends.cudnn.benchmark = True",
        "x = torch.set_num_threads(1)",
        "for i in range(3):",
        "with open('x') as f:",
    ]
    text = "\n".join(b + ("\n    pass" if b.endswith(":") else "") for b in bad)
    path.write_text(f'"""Doc."""\nimport torch\nA, B = 1, 2\ndef f():\n    return 1\n{text}\n')
    assert [line.split("(")[0] for line in acts(path)] == [b.split("(")[0] for b in bad]


STATE = """
import json, logging, os, random, sys, warnings
import torch

def state():
    return {
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "seed": torch.initial_seed(),
        "random state": torch.get_rng_state().sum().item(),
        "python's random state": hash(random.getstate()),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled],
        "sdp": [torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()],
        "cuda used": torch.cuda.is_initialized(),
        "environment": sorted(os.environ.items()),
        "folder": os.getcwd(),
        "warnings": [str(f) for f in warnings.filters],
        "log": [logging.root.level, len(logging.root.handlers)],
        "path": sys.path,
    }

before, known = state(), set(sys.modules)
import nonlocalnet
after = state()
new = {name.partition(".")[0] for name in set(sys.modules) - known}
print(json.dumps({
    "changed": [k for k in before if before[k] != after[k]],
    "new": sorted(n for n in new if n not in sys.stdlib_module_names),
    "names": [n for n in nonlocalnet.__all__ if n not in nonlocalnet._LATER
              and not hasattr(nonlocalnet, n)],
}))
"""


def test_import_needs_torch_only_and_does_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STATE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert json.loads(done.stdout) == {"changed": [], "new": ["nonlocalnet"], "names": []}


@pytest.mark.parametrize(
    "name", ["load", "predict", "from_pretrained", "save_pretrained", "push_to_hub"]
)
def test_names_that_need_more_come_when_asked_for(name: str) -> None:
    assert callable(getattr(nonlocalnet, name))
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        nonlocalnet.nothing_of_ours  # noqa: B018
