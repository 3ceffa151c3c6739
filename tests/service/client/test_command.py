"""`python -m service.client` as people and scripts call it, printing to standard output."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest

from tests.pictures import plain
from tests.running import Service, client_command

_TRANSPORTS = ("http", "grpc")


@pytest.fixture
def images(tmp_path):
    """Two good image files and one bad, one more in a folder, and things that are not asked about."""
    for path, colour in (("red.png", "red"), ("blue.png", "blue"), ("more/GREEN.PNG", "green"), (".hidden.png", "red")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(plain(colour))
    (tmp_path / "bad.txt").write_text("text", encoding="utf-8")
    return tmp_path


def _command(folder: Path, *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Runs the client in a folder."""
    line, environment = client_command(*arguments)
    done = subprocess.run(line, cwd=folder, env=environment, input=stdin, capture_output=True, check=False)
    text = [part.decode("utf-8", "surrogateescape") for part in (done.stdout, done.stderr)]
    return subprocess.CompletedProcess(line, done.returncode, *text)


def _where(service: Service, transport: str) -> list[str]:
    """The flags that name a service."""
    return ["--url", service.http] if transport == "http" else ["--grpc", service.grpc]


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_it_prints_a_table(service: Service, images: Path, transport: str) -> None:
    """File, best label with its score, the next ones, model and version; exit code 0."""
    done = _command(images, "red.png", "blue.png", *_where(service, transport), "--top-k", 2)
    assert (done.returncode, done.stderr) == (0, "")
    heading, first, second = done.stdout.splitlines()
    assert heading.split()[:3] == ["FILE", "LABEL", "SCORE"]
    assert first.split() == ["red.png", "red", "1.000", "grey", "0.000", "(pets/1)"]
    assert second.split()[:3] == ["blue.png", "blue", "1.000"]
    assert first.index("red ", 1) == second.index("blue ", 1) == heading.index("LABEL")


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_it_goes_on_after_an_image_that_failed(service: Service, images: Path, transport: str) -> None:
    """Unreadable for the service or for the client itself: said in its line, the others answered, exit code 1."""
    done = _command(images, "bad.txt", "nowhere.png", "red.png", *_where(service, transport))
    assert done.returncode == 1
    _, bad, nowhere, good = done.stdout.splitlines()
    assert bad.startswith("bad.txt ")
    assert "UNSUPPORTED_FORMAT: expected a JPEG" in bad
    assert nowhere.split(maxsplit=1) == ["nowhere.png", "cannot read the file: No such file or directory"]
    assert good.split()[:2] == ["red.png", "red"]


def test_it_prints_json(service: Service, images: Path) -> None:
    """One object per line, with every field of a prediction."""
    done = _command(images, "red.png", "bad.txt", "--json", "--url", service.http)
    good, bad = map(json.loads, done.stdout.splitlines())
    assert (good["label"], good["model"], good["version"], good["error"]) == ("red", "pets", 1, "")
    assert bad["error"].startswith("UNSUPPORTED_FORMAT")
    assert set(good) == set(bad)


def test_it_prints_where_the_label_was_seen(mapped_service: Service, images: Path) -> None:
    """With --json, which has a place for it; nowhere else."""
    done = _command(images, "red.png", "--json", "--activation-map", "--url", mapped_service.http)
    (found,) = map(json.loads, done.stdout.splitlines())
    assert len(found["activation_map"]["values"]) == 4
    assert found["activation_map"].keys() == {"values", "left", "top", "width", "height"}


def test_it_prints_csv(service: Service, images: Path) -> None:
    """A heading, then a row for each; columns of labels that there are not are empty."""
    done = _command(images, "red.png", "bad.txt", "--csv", "--top-k", 6, "--url", service.http)
    good, bad = csv.DictReader(io.StringIO(done.stdout))
    assert (good["path"], good["label"], good["label_2"], good["label_5"]) == ("red.png", "red", "grey", "")
    assert (good["unknown"], good["model"], good["version"], good["error"]) == ("false", "pets", "1", "")
    assert (bad["path"], bad["label"], bad["model"]) == ("bad.txt", "", "")
    assert bad["error"].startswith("UNSUPPORTED_FORMAT: ")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (["."], ["blue.png", "red.png"]),
        (["-r", "."], ["blue.png", "more/GREEN.PNG", "red.png"]),
        (["*d.png", "more"], ["red.png", "more/GREEN.PNG"]),
        (["./red.png", "red.png"], ["red.png"]),
        (["**/*.PNG"], ["more/GREEN.PNG"]),
        (["more", "more/*.PNG", "-r", "."], ["more/GREEN.PNG", "blue.png", "red.png"]),
        ([".hidden.png"], [".hidden.png"]),
        (["*.jpg"], ["*.jpg"]),
        (["--files-from", "-"], ["red.png", "more/GREEN.PNG"]),
        (["--files-from", "list", "blue.png"], ["red.png", "blue.png"]),
        (["-"], ["-"]),
        (["red.png", "-"], ["-", "red.png"]),
    ],
    ids=" ".join,
)
def test_it_finds_files(service: Service, images: Path, asked: list[str], named: list[str]) -> None:
    """Folders, with --recursive below them, patterns that no shell has expanded, lists, standard input."""
    (images / "list").write_text("red.png\n\n", encoding="utf-8")
    stdin = b"red.png\r\n\nmore/GREEN.PNG" if "--files-from" in asked else plain("grey")
    done = _command(images, *asked, "--json", "--url", service.http, stdin=stdin)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["filename"] for one in found] == named
    assert [one["label"] for one in found if one["filename"] == "-"] == ["grey"] * ("-" in named)


def test_names_of_any_bytes_are_shown(service: Service, images: Path) -> None:
    """Line breaks and bytes that are no text: escaped in the table, unchanged in CSV."""
    odd = bytes(images) + b"/new\nline\xff.png"
    Path(odd.decode("utf-8", "surrogateescape")).write_bytes(plain("red"))
    shown = _command(images, ".", "--url", service.http)
    assert ["new\\nline\\udcff.png", "red"] in [line.split()[:2] for line in shown.stdout.splitlines()]
    rows = csv.reader(io.StringIO(_command(images, ".", "--csv", "--url", service.http).stdout, newline=""))
    assert "new\nline\udcff.png" in [row[0] for row in rows]


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_it_says_when_nothing_could_be_asked(service: Service, images: Path, transport: str) -> None:
    """An unknown model or label: on standard error, exit code 2."""
    done = _command(images, "red.png", *_where(service, transport), "--model", "cats")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: MODEL_NOT_FOUND: no model 'cats'; there are: pets\n"
    done = _command(images, "red.png", *_where(service, transport), "--label", "canary")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no label 'canary'" in done.stderr


def test_it_says_when_there_are_no_images(service: Service, tmp_path: Path) -> None:
    """An empty folder is no success."""
    done = _command(tmp_path, ".", "--url", service.http)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: no images were found\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "expected images"),
        (["a", "--url", "http://x", "--grpc", "x:1"], "not allowed with argument"),
        (["a", "--json", "--csv"], "not allowed with argument"),
        (["a", "--activation-map"], "--activation-map is for --json"),
        (["a", "--json", "--out", "x"], "not allowed with argument"),
        (["a", "--version", "1", "--label", "b"], "not allowed with argument"),
        (["-", "--files-from", "-"], "one use of standard input"),
        (["-", "--out", "x"], "expected files with --out"),
        (["a", "--retry-failed"], "--retry-failed is for --out"),
        (["a", "--requests", "0"], "expected --requests to be 1 to 256, got 0"),
        (["--files-from", "no-such-list"], "cannot read the list no-such-list: No such file or directory"),
        (["a", "--url", "x"], "expected a URL like http://localhost:8501, got 'x'"),
    ],
    ids=str,
)
def test_it_says_when_it_is_called_wrongly(capsys, arguments: list[str], says: str) -> None:
    """A message, exit code 2."""
    from service.client.__main__ import main  # noqa: PLC0415 - in this process, for it asks nobody

    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert says in capsys.readouterr().err
