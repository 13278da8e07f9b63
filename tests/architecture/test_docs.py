"""The documents match the source: every file, every setting, the states of a task."""

from __future__ import annotations

import ast
import itertools
import math
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from api.cli.main import parser as queztl_parser
from mesh import limits, subjects
from mesh.config import MeshConfig
from mesh.kinds.table import KINDS
from mesh.limits import Limits
from mesh.task_states import diagram
from node.cli import parser as node_parser
from node.config import NAMES, NodeConfig, build
from scaling.domain.config import ScalingConfig

ROOT = Path(__file__).parents[2]
PACKAGES = ("mesh", "node", "api", "bench", "scaling")


def test_the_map_is_made_of_the_docstrings_of_the_folders():
    text = (ROOT / "docs" / "map.md").read_text()
    mapped = dict(re.findall(r"^\| `([^`]+)/` \| (.*) \|$", text, re.MULTILINE))
    assert mapped == {
        str(init.parent.relative_to(ROOT)): (ast.get_docstring(ast.parse(init.read_text())) or "").replace("\n", " ")
        for top in PACKAGES
        for init in (ROOT / top).rglob("__init__.py")
    }


def test_the_state_diagram_is_the_table():
    assert diagram() in (ROOT / "ARCHITECTURE.md").read_text()


def test_every_setting_is_documented_with_its_name():
    text = (ROOT / "docs" / "settings.md").read_text()
    for config in (MeshConfig, NodeConfig):
        for field in fields(config):
            assert f"| `{field.name}` |" in text, field.name


def documents() -> list[Path]:
    """Every page of documentation."""
    return [
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "bench" / "METHODOLOGY.md",
        ROOT / "tests" / "README.md",
    ]


def test_links_between_documents_have_a_target():
    links = [
        (page, target)
        for page in documents()
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in target
    ]
    assert links
    assert not [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()]


def test_files_that_documents_name_exist():
    pattern = re.compile(r"`((?:mesh|node|api|bench|tests|docs|deploy)/[\w/]+\.\w+)`")
    named = {(page.name, path) for page in documents() for path in pattern.findall(page.read_text())}
    new = {"mesh/kinds/reverse.py", "node/workloads/reverse.py"}  # the files of the example kind
    assert not [entry for entry in named if entry[1] not in new and not (ROOT / entry[1]).exists()]


@pytest.mark.parametrize(("page", "most"), [("README.md", 5 << 10), ("ARCHITECTURE.md", 12 << 10)])
def test_the_first_pages_are_short(page, most):
    assert len((ROOT / page).read_bytes()) <= most


def test_pages_name_every_option_and_kind():
    options, kinds = (ROOT / "docs" / "options.md").read_text(), (ROOT / "docs" / "kinds.md").read_text()
    assert not [flag for flag, _ in NAMES.values() if f"`{flag}" not in options]
    assert not [kind for kind in KINDS if f"| `{kind}` |" not in kinds]


def test_every_page_is_reached_from_the_readme():
    reached, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in reached or page.suffix not in {".md", ""}:
            continue
        reached.add(page)
        if page.is_dir():
            queue += [page / "README.md"]
            continue
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        queue += [(page.parent / target).resolve() for target in links if "://" not in target]
    assert not [page for page in documents() if page.resolve() not in reached and page.name != "CHANGELOG.md"]


def test_code_of_the_pages_is_python():
    pages = [ROOT / "README.md", ROOT / "docs" / "usage.md"]
    blocks = [re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL) for page in pages]
    assert all(blocks)
    for block in itertools.chain(*blocks):
        ast.parse(block)


def commands(page: Path) -> list[str]:
    """The lines of code blocks, output included, with `$ ` removed and continued lines joined."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]


def test_commands_of_the_pages_parse():
    found = {page: [line for line in commands(page) if line.startswith("queztl ")] for page in documents()}
    assert all(found[ROOT / page] for page in ("README.md", "docs/usage.md", "docs/capacity.md"))
    for line in itertools.chain(*found.values()):
        if line.count("'") % 2 == 0:  # else it continues on the next line
            queztl_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_starts_of_a_node_in_the_pages_parse():
    inline = [re.findall(r"`(\./start\.sh[^`]*)`", page.read_text()) for page in documents()]
    blocks = [line for page in documents() for line in commands(page) if line.startswith("./start.sh")]
    lines = [*itertools.chain(*inline), *blocks]
    assert len(lines) >= 5
    for line in lines:
        # --slim is an option of start.sh itself
        arguments = [argument for argument in shlex.split(line, comments=True)[1:] if argument != "--slim"]
        build(vars(node_parser().parse_args(arguments)), {})


def test_settings_page_gives_the_defaults():
    text = (ROOT / "docs" / "settings.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))
    for field in (*fields(MeshConfig), *fields(Limits)):
        if field.name == "limits":
            continue  # they have a table of their own
        factors = [{"GIB": 1 << 30, "MIB": 1 << 20}.get(part, part) for part in shown[field.name].split(" * ")]
        assert math.prod(float(factor) for factor in factors) == field.default, field.name


def test_settings_page_explains_the_mesh_as_its_source_does():
    page = (ROOT / "docs" / "settings.md").read_text()
    meanings = docstrings("config.py", "MeshConfig")
    assert set(meanings) == {field.name for field in fields(MeshConfig)}
    assert not [
        name
        for name, text in meanings.items()
        if not re.search(rf"^\| `{name}` \| .* \| {re.escape(text)} \|$", page, re.M)
    ]


def test_settings_page_has_a_row_for_every_limit():
    page = (ROOT / "docs" / "settings.md").read_text()
    meanings = docstrings("limits.py", "Limits")
    assert set(meanings) == set(limits.NAMES) == set(limits.TABLE)
    for name, row in limits.TABLE.items():
        alarm = row.where if row.is_level else "none"
        assert re.search(
            rf"^\| `{name}` \| .* \| {re.escape(f'{meanings[name]} | {row.refusal} | {alarm}')} \|$", page, re.M
        )


def docstrings(file: str, name: str) -> dict[str, str]:
    """field -> its docstring, of a class of values in `mesh`."""
    tree = ast.parse((ROOT / "mesh" / file).read_text())
    body = next(part.body for part in tree.body if isinstance(part, ast.ClassDef) and part.name == name)
    return {
        setting.target.id: " ".join(ast.literal_eval(text.value).split())
        for setting, text in itertools.pairwise(body)
        if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name) and isinstance(text, ast.Expr)
    }


def test_subjects_table_names_every_stream_and_bucket():
    page = (ROOT / "ARCHITECTURE.md").read_text()
    names = {value for name, value in vars(subjects).items() if name.startswith(("KV_", "BLOBS"))}
    names |= {subjects.WORK, subjects.LATER, subjects.TASKS, subjects.EVENTS, subjects.DEAD, subjects.METRICS}
    table = page.partition("## Subjects")[2].partition("\n## ")[0]
    assert not [name for name in names if f"`{name}`" not in table and f"stream {name}" not in table]


def test_glossary_is_in_order():
    terms = re.findall(r"^\| ([a-z][\w -]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)[1:]
    assert len(terms) > 40 and terms == sorted(terms)


def test_tests_that_the_table_of_kinds_names_exist():
    """`file.py::test`, or a test alone of the file named before it in the same cell."""
    rows = [line for line in (ROOT / "docs" / "workloads.md").read_text().splitlines() if line.startswith("| ")]
    named = [
        (file, test)
        for cell in (cell for row in rows for cell in row.split("|"))
        for file, test in re.findall(r"`(?:(\w+\.py)::)?(test_\w+)`", cell)
    ]
    assert len(named) > 20
    files = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        files[path.name] = files.get(path.name, "") + path.read_text()
    everything = "".join(files.values())
    missing = [name for name in named if f"def {name[1]}(" not in (files.get(name[0], "") if name[0] else everything)]
    assert not missing


def test_scaling_page_names_every_setting_with_its_default():
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", (ROOT / "docs" / "scaling.md").read_text(), re.MULTILINE))
    literals = {"none": math.inf, "{}": {}, "()": ()}
    read = {name: literals.get(text, text.strip('"')) for name, text in shown.items()}
    made = {field.name: getattr(ScalingConfig(), field.name) for field in fields(ScalingConfig)}
    assert {name: str(value) for name, value in read.items()} == {name: str(value) for name, value in made.items()}
