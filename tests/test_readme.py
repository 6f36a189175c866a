"""What the README and the site say is so: examples run, commands parse, files are there."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from test_cli import ROWS

import nonlocalnet
from nonlocalnet import cli

ROOT = Path(nonlocalnet.__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ *(?:\$ )?(nonlocalnet [a-z-]+.*?)(?: +#.*)?$", re.MULTILINE)

pytestmark = pytest.mark.skipif(not README.exists(), reason="an installed package has no README")


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def pages_with_code() -> list[Path]:
    return [page for page in PAGES if blocks(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_code(), ids=lambda page: page.name)
def test_examples_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page.name}, example {number}", "exec"), names)
    capsys.readouterr()


def test_readme_has_an_example_of_each() -> None:
    text = "\n".join(blocks(README))
    calls = ("insert(", "create_model(", "train(", "predict(", "attend_video(")
    assert all(call in text for call in calls)
    assert all(len(block.splitlines()) <= 12 for block in blocks(README))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_real(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    for line in COMMAND.findall(text):
        words = shlex.split(re.split(r"[|>]", line)[0])[1:]
        try:
            cli.parse(words)
        except SystemExit as ended:
            if ended.code:
                pytest.fail(f"{line}: {capsys.readouterr().err}")


def test_commands_of_the_readme_are_all_commands() -> None:
    shown = {line.split()[1] for line in COMMAND.findall(README.read_text("utf-8"))}
    assert shown == set(cli.COMMANDS)


def test_file_map_names_every_module_and_no_other() -> None:
    table = README.read_text("utf-8").partition("## Where things are")[2].partition("## Lic")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([\w./]+)`", row)}
    package = ROOT / "nonlocalnet"
    there = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    there |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert named == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_versions_agree() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    assert citation
    assert nonlocalnet.__version__ == pyproject["project"]["version"] == citation[1]


def test_pins_are_pins_without_addresses() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+-]+( ; .+)?", line) for line in pins)
    named = {line.partition("==")[0].lower().replace("_", "-") for line in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    del extras["remote"]  # not part of what make installs: s3fs wants older versions
    wanted = {
        re.match(r"[\w.-]+", text)[0]  # type: ignore[index]
        for text in [
            *project["dependencies"],
            *(text for extra in extras.values() for text in extra),
        ]
    }
    assert wanted - {"nonlocalnet"} <= named


@pytest.mark.slow
def test_costs_are_those_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    line = "nonlocalnet cost i3d_resnet50 --non-local 5 --input 3x32x224x224"
    assert cli.main(line.split()[1:]) == 0
    printed = capsys.readouterr().out
    site = (ROOT / "docs" / "networks.md").read_text("utf-8")
    assert line in site
    assert printed in site
    readme = README.read_text("utf-8")
    assert line in readme
    assert printed.partition("\n\n")[2] in readme


def test_costs_in_the_site_are_those_that_show_prints() -> None:
    """`test_cli` compares the same figures with what `show` prints."""
    text = (ROOT / "docs" / "networks.md").read_text("utf-8")
    for _, _, r50, r101 in ROWS:
        cells = [f"{f[0]:.3f} M, {f[1]:.3f} G | {f[2]:.3f} G" for f in (r50, r101)]
        assert f"| {' | '.join(cells)} |" in text
