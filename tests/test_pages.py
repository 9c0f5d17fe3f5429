"""What the pages for users name is there: commands with their options, Python that can be imported, pictures, menus."""

from __future__ import annotations

import argparse
import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from napari_nucleiseg import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAME = "napari-nucleiseg"
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
# A score with three decimals, such as .576 or 0.576.
SCORE = re.compile(r"(?<![\w.])0?(\.\d{3})(?![\w.]*\d)")
LINK = re.compile(r"benchmarks/RESULTS\.md#([\w-]+)")


def below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a parser."""
    (actions,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)] or [None]
    return {} if actions is None else dict(actions.choices)


@cache
def options_of() -> dict[str, set[str]]:
    """Return the options of each command, and of each command below it, by its words."""
    found: dict[str, set[str]] = {}
    left = [(command, below(cli._parser([command]))[command]) for command in cli.COMMANDS]
    while left:
        words, parser = left.pop()
        found[words] = set(parser._option_string_actions)
        left += [(f"{words} {name}", one) for name, one in below(parser).items()]
    return found


def shown_commands(page: str) -> list[str]:
    """Return the words after the program's name wherever a page shows a command; lines that go on are joined."""
    blocks = [block.replace("\\\n", " ") for block in re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL))
    named = [text.partition(f"{NAME} ")[2] for text in (*lines, *spans) if text.startswith(f"{NAME} ")]
    commands = tuple(f"{command} " for command in cli.COMMANDS)
    return [*named, *(text for text in spans if text.startswith(commands))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page: Path) -> None:
    known = options_of()
    for shown in shown_commands(page.read_text(encoding="utf-8")):
        words = [word for word in shown.split() if word != "--debug"]
        length = max((n for n in range(len(words) + 1) if " ".join(words[:n]) in known), default=0)
        assert length or words[:1] == ["COMMAND"], f"{shown}: no such command"
        given = {re.split(r"[=\]]", word)[0] for word in words[length:] if word.startswith("--")}
        assert length == 0 or given <= known[" ".join(words[:length])], shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_that_stand_alone_exist(page: Path) -> None:
    known = set().union(*options_of().values(), {"--debug", "--version"})
    spans = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    shown = {option for span in spans for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    assert sorted(shown - known) == []


def test_the_table_of_commands_names_all_of_them() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [command for command in cli.COMMANDS if not re.search(rf"^\|[^|]*`{command}[ `]", page, re.MULTILINE)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_python_imports_exists(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari_nucleiseg"):
                source = ROOT.joinpath("src", *(node.module or "").split(".")).with_suffix(".py")
                text = source.read_text(encoding="utf-8")
                assert [alias.name for alias in node.names if not re.search(rf"\b{alias.name}\b", text)] == [], source


def sections_of(page: str) -> list[tuple[str, str]]:
    """Return the sections of a page with all that is below them, and the anchor of each."""
    page = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), page, flags=re.MULTILINE | re.DOTALL)
    heads = list(HEADING.finditer(page))
    found = []
    for place, head in enumerate(heads):
        ends = [later.start() for later in heads[place + 1 :] if len(later[1]) <= len(head[1])]
        anchor = re.sub(r"[^\w -]", "", head[2].lower()).replace(" ", "-")
        found.append((anchor, page[head.start() : min(ends, default=len(page))]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_scores_stand_in_the_section_of_the_results_that_is_linked_beside_them(page: Path) -> None:
    results = dict(sections_of(RESULTS))
    sections = sections_of(page.read_text(encoding="utf-8"))
    linked = {anchor for _name, text in sections for anchor in LINK.findall(text)}
    assert sorted(linked - set(results)) == []
    for name, text in sections:
        known = {score for anchor in LINK.findall(text) for score in SCORE.findall(results[anchor])}
        assert sorted(set(SCORE.findall(text)) - known) == [], f"{page.name}#{name}: not in a section that it links"


def test_every_picture_is_shown_somewhere() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert [picture.name for picture in pictures if f"images/{picture.name})" not in pages] == []


def test_entries_of_menus_are_in_the_manifest() -> None:
    contributions = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))["contributions"]
    titles = {command["title"] for command in contributions["commands"]}
    titles |= {widget["display_name"] for widget in contributions["widgets"]}
    for page in PAGES:
        text = " ".join(page.read_text(encoding="utf-8").split())
        for menu, entry in re.findall(r"\b(Layers > \w+|Plugins > NucleiSeg) > ([\w ]+?)(?=[*”,.)]| opens)", text):
            assert any(title.startswith(entry.strip(", ")) for title in titles), f"{page.name}: {menu} > {entry}"
