"""Bulk runs (`--out`) against running services: nothing is lost or doubled, whatever ends them."""

import csv
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import VersionFactory
from tests.pictures import plain
from tests.running import Service, client_command, eventually

_FLAGS = {"http": "url", "grpc": "grpc"}
_COLOURS = ("red", "green", "blue", "grey")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """1200 images in folders of folders, and one that is none."""
    folder = tmp_path / "photos"
    for number in range(1200):
        path = folder / f"{number % 7}" / f"{number % 3}" / f"{number}.png"
        if number < 21:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plain(_COLOURS[number % 4]))
    (folder / "broken.jpg").write_text("text", encoding="utf-8")
    (folder / "notes.txt").write_text("text", encoding="utf-8")
    return folder


def _expected() -> dict[str, str]:
    """The label or the error's code by path."""
    labels = {f"photos/{n % 7}/{n % 3}/{n}.png": _COLOURS[n % 4] for n in range(1200)}
    return labels | {"photos/broken.jpg": "UNSUPPORTED_FORMAT"}


def _found(out: Path) -> dict[str, str]:
    """The same of a results file; fails when a path is in it twice or a row is not whole."""
    with out.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, strict=True))
    assert all(len(row) == 11 and None not in row.values() for row in rows)
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row["label"] or row["error"].partition(":")[0] for row in rows}


def _start(folder: Path, *arguments: object, **options: object) -> subprocess.Popen[bytes]:
    line, environment = client_command("-r", "photos", "--out", "r.csv", *arguments)
    return subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]


def _run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    line, environment = client_command(*arguments)
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _rows_written(folder: Path) -> int:
    out = folder / "r.csv"
    return out.read_bytes().count(b"\r\n") - 1 if out.exists() else 0


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_run_that_is_killed_and_resumed_has_every_row_once(service: Service, photos: Path, transport: str) -> None:
    """`kill -9` three times in the midst; once the last row is torn besides. Both transports give the same rows."""
    folder = photos.parent
    for kill in range(3):
        before = _rows_written(folder)
        run = _start(folder, f"--{_FLAGS[transport]}", getattr(service, transport), "--requests", 1)
        eventually(lambda before=before: _rows_written(folder) > before + 50, "rows")
        run.kill()
        run.communicate()
        assert _rows_written(folder) < 1200, "the run was over before it was killed"
        if kill == 1:
            os.truncate(folder / "r.csv", (folder / "r.csv").stat().st_size - 5)
    done = _run(folder, "-r", "photos/", "--out", "r.csv", f"--{_FLAGS[transport]}", getattr(service, transport))
    assert done.returncode == 1
    assert "by earlier runs, 1 failed (--retry-failed asks again); results in r.csv" in done.stderr
    assert _found(folder / "r.csv") == _expected()


def test_the_number_of_requests_at_once_changes_nothing(service: Service, photos: Path) -> None:
    """One after the other, or many: the same rows in the same order."""
    for requests in (1, 32):
        done = _run(
            photos.parent, "-r", "photos", "--out", f"{requests}.csv", "--requests", requests, "--grpc", service.grpc
        )
        assert done.returncode == 1, done.stderr
    one, many = (list(_found(photos.parent / f"{requests}.csv").items()) for requests in (1, 32))
    assert one == many
    assert dict(one) == _expected()


def test_failed_images_are_asked_again_when_wanted(service: Service, photos: Path) -> None:
    """Not by the same command, which has nothing to do; with --retry-failed, and new files in the same run."""
    folder = photos.parent
    few = photos / "0" / "0"
    (few / "late.jpg").write_text("not yet", encoding="utf-8")
    arguments = (few.relative_to(folder), "--out", "r.csv", "--grpc", service.grpc)
    assert _run(folder, *arguments).returncode == 1
    before = _found(folder / "r.csv")
    (few / "late.jpg").write_bytes(plain("blue"))
    (few / "new.jpg").write_bytes(plain("red"))
    (few / "new.jpg").rename(photos / "new.jpg")
    again = _run(folder, *arguments)
    assert (again.returncode, _found(folder / "r.csv")) == (1, before)
    assert again.stderr.startswith("0 images in ")
    last = _run(folder, *arguments, photos.relative_to(folder) / "new.jpg", "--retry-failed")
    assert last.returncode == 0
    assert last.stderr.startswith("2 images in ")
    assert _found(folder / "r.csv") == before | {"photos/0/0/late.jpg": "blue", "photos/new.jpg": "red"}


def test_ctrl_c_says_how_to_go_on(service: Service, photos: Path) -> None:
    """Exit code 130, no trace, a file of whole rows; the same command does the rest."""
    folder = photos.parent

    # one request at a time, so that a fast machine is not done before it can be interrupted
    def heed() -> None:
        # a shell that starts the tests in the background has Ctrl-C ignored, and that is inherited
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    run = _start(folder, "--grpc", service.grpc, "--requests", 1, preexec_fn=heed)
    eventually(lambda: _rows_written(folder) > 50, "rows")
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 130, said
    assert said.startswith(b"error: interrupted; ")
    assert said.endswith(b" images are in r.csv. Give the same command again to go on.\n")
    assert len(_found(folder / "r.csv")) < 1201
    assert _run(folder, "-r", "photos", "--out", "r.csv", "--grpc", service.grpc).returncode == 1
    assert _found(folder / "r.csv") == _expected()


def test_a_full_disk_is_said_and_gone_on_from(service: Service, photos: Path) -> None:
    """The file may not grow beyond a size: exit code 3, whole rows, and no trace; with room again, the rest follows."""
    folder = photos.parent
    limit = 20_000

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    run = _start(folder, "--grpc", service.grpc, preexec_fn=no_room)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 3, said
    assert said.startswith(b"error: cannot write r.csv: File too large\n")
    assert b"Give the same command again to go on." in said
    assert 0 < len(_found(folder / "r.csv")) < 1201
    assert _run(folder, "-r", "photos", "--out", "r.csv", "--grpc", service.grpc).returncode == 1
    assert _found(folder / "r.csv") == _expected()


def test_a_service_that_is_restarted_costs_no_row(
    version_factory: VersionFactory, start_service: Callable[..., Service], photos: Path
) -> None:
    """It ends in the midst of a run and comes back on the same port: the run waits, says so, and loses no image."""
    folder = photos.parent
    version_factory(folder / "models")
    first = start_service(folder / "models")
    port = first.grpc.rpartition(":")[2]
    run = _start(folder, "--grpc", first.grpc, "--requests", 1)
    eventually(lambda: _rows_written(folder) > 50, "rows")
    assert first.terminate() == 0
    assert _rows_written(folder) < 1200, "the run was over before the service ended"
    assert run.stderr
    said = b""
    while b"waiting for the service: " not in said:  # until then, a connection that is not answered may be all it sees
        more = os.read(run.stderr.fileno(), 4096)
        assert more, said
        said += more
    start_service(folder / "models", grpc_port=port)
    _, rest = run.communicate(timeout=120)
    assert run.returncode == 1, said + rest
    assert _found(folder / "r.csv") == _expected()


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_list_of_any_kind_has_a_row_for_each_name_once(service: Service, photos: Path, transport: str) -> None:
    """Whole requests of images that are none, a name twice, and one that no file can have."""
    bad = [photos / f"bad{number}.png" for number in range(40)]
    for path in bad:
        path.write_bytes(b"text" if int(path.stem[3:]) % 2 else b"")
    good = photos / "0" / "0" / "0.png"
    names = [*bad, good, *bad[:3], "a\0b.png"]
    (photos.parent / "list").write_text("\n".join(map(str, names)), encoding="utf-8")
    arguments = ["--files-from", "list", "--out", "r.csv", f"--{'url' if transport == 'http' else 'grpc'}"]
    done = _run(photos.parent, *arguments, getattr(service, transport))
    assert done.returncode == 1, done.stderr
    found = _found(photos.parent / "r.csv")
    codes = {str(path): "UNSUPPORTED_FORMAT" if int(path.stem[3:]) % 2 else "EMPTY_IMAGE" for path in bad}
    assert found == codes | {str(good): _COLOURS[0], "a\0b.png": "cannot read the file"}


def test_what_cannot_be_asked_leaves_no_rows(service: Service, photos: Path) -> None:
    """An unknown model, nobody there, another file in the way: exit code 2, and the reason."""
    folder = photos.parent
    unknown = _run(folder, "photos", "--out", "r.csv", "--grpc", service.grpc, "--model", "cats")
    assert (unknown.returncode, _rows_written(folder)) == (2, 0)
    assert unknown.stderr.startswith("error: MODEL_NOT_FOUND: no model 'cats'")
    nobody = _run(folder, "photos", "--out", "r.csv", "--grpc", "127.0.0.1:1")
    assert (nobody.returncode, _rows_written(folder)) == (2, 0)
    assert "127.0.0.1:1: UNAVAILABLE" in nobody.stderr
    (folder / "notes").write_text("mine", encoding="utf-8")
    other = _run(folder, "photos", "--out", "notes", "--grpc", service.grpc)
    assert (other.returncode, other.stderr) == (2, "error: notes exists and is no results file\n")
    assert (folder / "notes").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_cannot_be_read_are_said(service: Service, photos: Path) -> None:
    """The others are classified; exit code 1."""
    closed = photos / "0"
    closed.chmod(0)
    try:
        done = _run(photos.parent, "-r", "photos", "--out", "r.csv", "--grpc", service.grpc)
    finally:
        closed.chmod(0o755)
    assert done.returncode == 1
    assert "cannot read the folder photos/0: Permission denied" in done.stderr


def test_the_bar_is_drawn_on_a_terminal_only(service: Service, photos: Path) -> None:
    """With the number of images and the rate; a pipe gets the last line alone."""
    folder = photos.parent
    terminal, behind = os.openpty()
    line, environment = client_command("-r", "photos", "--out", "r.csv", "--grpc", service.grpc)
    environment |= {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(line, cwd=folder, env=environment, stderr=behind) as run:
        os.close(behind)
        shown = b""
        try:
            while chunk := os.read(terminal, 65536):
                shown += chunk
        except OSError:  # the last one has closed it
            pass
    os.close(terminal)
    assert run.returncode == 1
    assert b"1201/1201" in shown
    assert b"/s, 1 failed" in shown
    assert b"results in r.csv" in shown
    piped = _run(folder, "-r", "photos", "--out", "r.csv", "--grpc", service.grpc)
    assert len(piped.stderr.splitlines()) == 1
