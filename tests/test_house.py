"""What the house promises of itself: size budgets, docstrings, imports, packaging and the two commands."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import napari_nucleiseg

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "napari_nucleiseg"
MODULES = sorted(PACKAGE.rglob("*.py"))
MODULE_LINES = 400
FUNCTION_LINES = 60
WEIGHTS_BYTES = 16 * 1024**2

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def name_of(path: Path) -> str:
    """Path of a module inside the package, as the tests' name."""
    return path.relative_to(PACKAGE).as_posix()


def public_definitions(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield the public functions, classes and methods under a node, private classes and nested functions left out."""
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child, f"{prefix}{child.name}.")


def overrides(node: Definition) -> bool:
    """Tell whether a definition is explained elsewhere: an overload, an override or the setter of a property."""
    names = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in node.decorator_list}
    return bool(names & {"overload", "override", "setter"})


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """Parse every module of the package."""
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def test_the_package_is_found() -> None:
    assert len(MODULES) > 20
    assert Path(napari_nucleiseg.__file__ or "").parent == PACKAGE


def test_no_module_outgrows_its_budget() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES} == {}


def test_no_function_outgrows_its_budget(trees: dict[str, ast.Module]) -> None:
    lengths = {
        f"{name}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    }
    assert len(lengths) > len(MODULES)
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_every_module_says_what_it_is_for(trees: dict[str, ast.Module]) -> None:
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_every_public_function_and_class_has_a_docstring(trees: dict[str, ast.Module]) -> None:
    bare = [
        f"{module}:{name}"
        for module, tree in trees.items()
        for name, node in public_definitions(tree)
        if not ast.get_docstring(node) and not overrides(node)
    ]
    assert bare == []


def test_only_the_command_line_prints(trees: dict[str, ast.Module]) -> None:
    printing = [
        f"{module}:{node.lineno}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [place for place in printing if not place.startswith(("cli/", "cli.py"))] == []


def test_no_exception_is_caught_without_saying_which(trees: dict[str, ast.Module]) -> None:
    blind = [
        f"{module}:{node.lineno}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & set(re.findall(r"\w+", ast.unparse(node.type))))
        and not any(isinstance(child, ast.Raise) and child.exc is None for child in ast.walk(node))
    ]
    assert blind == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty_words = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "tools"}
    assert [
        name_of(path) for path in MODULES if empty_words & set(path.relative_to(PACKAGE).with_suffix("").parts)
    ] == []


def imported_by(module: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after importing a module."""
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


@pytest.mark.parametrize("module", ["napari_nucleiseg", "napari_nucleiseg.core", "napari_nucleiseg.core.models"])
def test_importing_the_package_imports_nothing_heavy(module: str) -> None:
    heavy = {"torch", "napari", "qtpy", "PySide6", "PyQt6", "dask", "skimage", "scipy", "zarr", "cv2"}
    assert imported_by(module) & heavy == set()


def test_importing_the_slide_reader_loads_neither_torch_nor_a_window() -> None:
    assert imported_by("napari_nucleiseg.core.slides.registry") & {"torch", "napari", "qtpy", "PySide6"} == set()


def test_importing_the_windows_does_not_load_torch() -> None:
    modules = [
        "napari_nucleiseg." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for folder in ("viewer", "widgets")
        for path in sorted((PACKAGE / folder).glob("*.py"))
        if path.stem != "__init__"
    ]
    assert "torch" not in imported_by(", ".join(["napari_nucleiseg.viewer", "napari_nucleiseg.widgets", *modules]))


def test_every_package_that_is_imported_is_declared(trees: dict[str, ast.Module]) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    wanted = ("pyside6", "slides", "dicom", "parquet", "zoo", "exchange", "spatial", "cluster")
    extras = [project["optional-dependencies"][extra] for extra in wanted]
    declared = {re.split(r"[^\w-]", line)[0].lower() for line in [*project["dependencies"], *itertools.chain(*extras)]}
    providers = packages_distributions()
    imported = {
        name.split(".")[0]
        for tree in trees.values()
        for node in ast.walk(tree)
        for name in imported_names(node)
        if name.split(".")[0] not in {*sys.stdlib_module_names, "napari_nucleiseg"}
    }
    undeclared = {
        name
        for name in imported
        if not declared & {provider.lower().replace("_", "-") for provider in providers.get(name, [name])}
    }
    assert undeclared == set()


def imported_names(node: ast.AST) -> list[str]:
    """Full names of the modules that a statement imports; empty for other statements."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def test_readme_shows_the_commands_that_dev_py_has() -> None:
    shown = re.findall(r"^python3 dev\.py (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert shown[:2] == ["demo", "test"]
    for command in shown:
        answer = subprocess.run(
            [sys.executable, str(ROOT / "dev.py"), command, "--help"], capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr


def test_dev_py_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse((ROOT / "dev.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_pages_link_to_files_that_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not target.startswith(("http:", "https:", "mailto:"))
    ]
    assert len(links) > 5
    assert [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()] == []


def drawn_tree() -> set[str]:
    """Paths that the tree of the architecture page draws, from the root; folders as they are drawn, with a slash."""
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    drawn, above = set(), [""]
    for line in re.findall(r"```\n(.*?)```", page, re.DOTALL)[0].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        if len(indent) <= 2 * (len(above) - 1):  # words that go on from the line above stand further in
            del above[len(indent) // 2 + 1 :]
            drawn.add(above[-1] + name)
            above += [above[-1] + name] if name.endswith("/") else []
    return drawn


def test_the_architecture_page_draws_every_folder_of_the_package_and_nothing_that_is_not_there() -> None:
    drawn = drawn_tree()
    folders = {f"{path.parent.relative_to(ROOT).as_posix()}/" for path in MODULES}
    assert sorted(folders - drawn) == []
    assert [path for path in sorted(drawn) if not (ROOT / path).exists()] == []


def test_the_architecture_page_says_what_import_linter_checks() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = [" > ".join(contract["layers"]) for contract in contracts if contract["type"] == "layers"]
    assert len(layers) == 2
    assert [order for order in layers if f"`{order}`" not in page] == []


def is_there(dotted: str) -> bool:
    """Tell whether ``folder.module.name`` names something, the folder counted from any package above it."""
    parts = dotted.split(".")
    for folder in {PACKAGE, *(path.parent for path in MODULES)}:
        for length in range(len(parts), 0, -1):
            place = folder.joinpath(*parts[:length])
            source = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()), None)
            if source is not None:
                text = source.read_text(encoding="utf-8")
                if all(re.search(rf"\b{name}\b", text) for name in parts[length:]):
                    return True
    return False


def test_the_architecture_page_names_modules_and_tables_that_exist() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    dotted = set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", page)) - {path.name for path in ROOT.iterdir()}
    dotted = {
        name for name in dotted if not name.endswith((".py", ".zarr")) and not name.startswith("napari_nucleiseg")
    }
    assert len(dotted) > 10
    assert [name for name in sorted(dotted) if not is_there(name)] == []
    files = {path.relative_to(PACKAGE).as_posix() for path in MODULES}
    modules = set(re.findall(r"`((?:[a-z_]+/)*[a-z_0-9]+\.py)`", page)) - {"dev.py"}
    for module in sorted(modules):
        assert (ROOT / module).exists() or any(f"/{file}".endswith(f"/{module}") for file in files), module
    for name, module in re.findall(r"`(\w+)` (?:in|of) `([a-z_/]+\.py)`", page):
        texts = [(PACKAGE / file).read_text(encoding="utf-8") for file in files if f"/{file}".endswith(f"/{module}")]
        assert any(re.search(rf"\b{name}\b", text) for text in texts), (name, module)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Build the wheel from the source tree, without any index."""
    pytest.importorskip("hatchling", reason="hatchling is not installed, so no wheel can be built without an index")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.Path(built)


def test_the_wheel_holds_the_manifest_where_its_entry_point_says(wheel: zipfile.Path) -> None:
    (facts,) = (folder for folder in wheel.iterdir() if folder.name.endswith(".dist-info"))
    points = facts / "entry_points.txt"
    found = re.search(r"\[napari\.manifest\]\s+napari-nucleiseg = (\w+):([\w.]+)", points.read_text(encoding="utf-8"))
    assert found
    manifest = wheel / found[1] / found[2]
    assert manifest.read_text(encoding="utf-8") == (ROOT / "napari.yaml").read_text(encoding="utf-8")


def test_the_wheel_holds_the_licence_that_it_states(wheel: zipfile.Path) -> None:
    (facts,) = (folder for folder in wheel.iterdir() if folder.name.endswith(".dist-info"))
    assert "License-Expression: BSD-3-Clause" in (facts / "METADATA").read_text(encoding="utf-8")
    licence = (facts / "licenses" / "LICENSE").read_text(encoding="utf-8")
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Redistribution and use in source and binary forms" in licence


def test_the_wheel_holds_every_module_and_weight_file(wheel: zipfile.Path) -> None:
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert [name_of(path) for path in files if not (wheel / "napari_nucleiseg" / name_of(path)).exists()] == []
    weights = [path for path in files if path.suffix == ".safetensors"]
    # Those that find nuclei, and those that show what they attend to.
    for encoders in (False, True):
        chosen = [path for path in weights if (path.parent.name == "encoders") is encoders]
        assert 0 < sum(path.stat().st_size for path in chosen) <= WEIGHTS_BYTES


def test_the_manifest_names_python_that_exists() -> None:
    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
    assert manifest["name"] == "napari-nucleiseg"
    for command in manifest["contributions"]["commands"]:
        module, _, attribute = command["python_name"].partition(":")
        path = ROOT / "src" / Path(*module.split("."))
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        assert source.exists(), command["python_name"]
        assert attribute in source.read_text(encoding="utf-8"), command["python_name"]


def test_each_test_module_has_a_name_of_its_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert {name for name in names if names.count(name) > 1} == set(), "pytest imports them by their names alone"
