"""README and docs/ name only what there is: commands and their flags, targets of make, settings, files, links."""

import dataclasses
import re
from pathlib import Path

import pytest

from femur3d.config import Experiment, Loss, Network, Preprocessing, Training, Transforms

ROOT = Path(__file__).parents[1]
CARDS = sorted((ROOT / "femur3d/models").glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *CARDS, *sorted((ROOT / "docs").rglob("*.md"))]
SECTIONS = {"preprocessing": Preprocessing, "network": Network, "loss": Loss, "training": Training,
            "transforms": Transforms}  # fmt: skip
MAX_README_LINES = 150


def text_of(page: Path) -> str:
    """The page with the lines of a command, which end in a backslash, joined."""
    return re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))


def commands_in(text: str) -> list[tuple[str, list[str]]]:
    """Each of our commands, `python -m MODULE …` or `python tools/x.py …`, as its source file and its long flags."""
    found = re.findall(r"python3? (-m (?!pytest)[\w.]+|[\w/]+\.py)([^`\n]*)", text)
    return [(file_of(name), re.findall(r" --(\w+)", rest)) for name, rest in found]


def file_of(name: str) -> str:
    if not name.startswith("-m "):
        return name
    module = name.removeprefix("-m ").replace(".", "/")
    return f"{module}/__main__.py" if (ROOT / module).is_dir() else f"{module}.py"


def anchors_of(page: Path) -> set[str]:
    """The ids that a heading gets, as MkDocs and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_commands_are_found_in_a_page() -> None:
    text = "    python -m a.b --x 1 \\\n      --y=2 -o z\n`python tools/c.py` and --no"
    joined = re.sub(r"\\\n\s*", " ", text)
    assert commands_in(joined) == [("a/b.py", ["x", "y"]), ("tools/c.py", [])]


def test_commands_exist(page: Path) -> None:
    assert [file for file, _ in commands_in(text_of(page)) if not (ROOT / file).is_file()] == []


def test_flags_of_commands_exist(page: Path) -> None:
    unknown = [
        (file, flag)
        for file, flags in commands_in(text_of(page))
        for flag in flags
        if flag != "help"
        and f'"{flag.removeprefix("no")}"' not in (ROOT / file).read_text(encoding="utf-8")
        and f'"{flag}"' not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert unknown == []


def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`)make +([a-z0-9-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named - targets == set()


def test_settings_exist(page: Path) -> None:
    named = set(re.findall(rf"\b({'|'.join(SECTIONS)})\.(\w+)(?=[=`])", page.read_text(encoding="utf-8")))
    known = {(name, field.name) for name, section in SECTIONS.items() for field in dataclasses.fields(section)}
    assert {name for name, section in SECTIONS.items()} <= {field.name for field in dataclasses.fields(Experiment)}
    assert {(name, field) for name, field in named if field not in ("py", "h5")} - known == set()


def test_files_in_the_text_exist(page: Path) -> None:
    paths = re.findall(
        r"`((?:femur3d|experiments|tools|benchmarks|tests|docs)/[\w/.-]*)`", page.read_text(encoding="utf-8")
    )
    made_by_the_reader = {"experiments/mine.py"}
    assert [path for path in paths if path not in made_by_the_reader and not (ROOT / path).exists()] == []


def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    for link in (a or b for a, b in links if not (a or b).startswith("http")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(included(target))):
            broken.append(link)
    assert broken == []


def test_messages_that_are_explained_exist() -> None:
    """Troubleshooting quotes them, with … for what differs from case to case."""
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "femur3d").rglob("*.py")))
    quoted = re.findall(r'\*\*"(.+?)"\*\*', (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"))
    parts = [part.strip() for quote in quoted for part in quote.split("…")]
    assert len(parts) > 5
    assert [part for part in parts if part not in source] == []


def included(page: Path) -> Path:
    """The file that a page of docs/ consists of, or the page itself."""
    snippet = re.fullmatch(r'--8<-- "(.+)"\n?', page.read_text(encoding="utf-8"))
    return ROOT / snippet[1] if snippet else page


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r"[\w/-]+\.md", config)) == pages
