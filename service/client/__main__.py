"""`python -m service.client`: the command line."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from service.client import Ask, Client, ClientError, GrpcClient, HttpClient
from service.client.files import find_images, read_list
from service.client.memory import keep_freed_memory
from service.client.output import writer
from service.client.pipeline import Limits, classify_files
from service.client.progress import Progress
from service.client.results import ResultsFile

ALL_ANSWERED: Final = 0
SOME_FAILED: Final = 1
NOTHING_ASKED: Final = 2
STOPPED: Final = 3
INTERRUPTED: Final = 130

_URL: Final = "http://localhost:8501"
_GRPC: Final = "localhost:8500"
_DESCRIPTION: Final = "Asks a running Graft service what is on images."
_EPILOG: Final = """\
examples:
  python -m service.client photo.jpg                             a table: labels and scores
  python -m service.client photos '*.png' --json                 a folder and a pattern, one JSON object per image
  camera | python -m service.client -                            one image on standard input
  python -m service.client -r photos --out results.csv           any number of images, a row for each; given again
                                                                 after it was ended, it asks about what is missing
  python -m service.client photo.jpg --url http://gpu1:8501      a service elsewhere

exit code: 0 all images answered, 1 some failed, 2 nothing could be asked, 3 stopped on the way, 130 interrupted"""

_REQUESTS: Final = 8
_BULK_REQUESTS: Final = 3
_BULK_IMAGES: Final = 40
_BULK_PATIENCE_S: Final = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit code: 0 all images were answered, 1 some failed, 2 nothing could be asked, 3 stopped on the way (the
        same command goes on), 130 interrupted.
    """
    options = _parse(arguments)
    try:
        if options.files_from not in (None, "-"):
            Path(options.files_from).open("rb").close()
        client = _connect(options)
    except ClientError as error:
        return _complain(str(error), NOTHING_ASKED)
    except OSError as error:
        return _complain(f"cannot read the list {options.files_from}: {error.strerror}", NOTHING_ASKED)
    with client:
        return _bulk(client, options) if options.out else _few(client, options)


def _few(client: Client, options: argparse.Namespace) -> int:
    """Prints a prediction for each image as it comes, in order."""
    problems: list[str] = []
    paths = list(options.images) if _only_files(options) else []
    width = min(60, max([4, *map(len, paths)])) if paths else 40
    show: Callable[..., None] | None = None
    failed = False
    try:
        if "-" in options.images:
            (one,) = client.ask([("-", sys.stdin.buffer.read())], _ask(options))
            show = writer(options.form, options.top_k, width)
            show(one)
            failed = bool(one.error)
        files = _paths(options, problems.append, in_order=True)
        for predictions in classify_files(client, files, _ask(options), Limits(options.requests), lambda _: None):
            show = show or writer(options.form, options.top_k, width)
            for one in predictions:
                show(one)
                failed = failed or bool(one.error)
    except ClientError as error:
        return _complain(str(error), NOTHING_ASKED if show is None else STOPPED)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED
    except KeyboardInterrupt:
        return INTERRUPTED
    for problem in problems:
        _complain(problem, SOME_FAILED)
    if show is None and not problems:
        return _complain("no images were found", NOTHING_ASKED)
    return SOME_FAILED if failed or problems else ALL_ANSWERED


def _bulk(client: Client, options: argparse.Namespace) -> int:
    """Writes a row for each image into the results file, but for those that have one already."""
    try:
        results = ResultsFile(options.out, options.top_k, retry_failed=options.retry_failed)
    except ClientError as error:
        return _complain(str(error), NOTHING_ASKED)
    keep_freed_memory()
    before, said = results.rows, Counter[str]()
    again = "Give the same command again to go on."

    def left() -> Iterator[str]:
        for path in _paths(options, problem, in_order=False):
            if path not in results:
                yield path

    def problem(text: str) -> None:
        said[text] += 1
        progress.say(text)

    limits = Limits(options.requests, _BULK_IMAGES, _BULK_PATIENCE_S)
    total = None if options.files_from else lambda: sum(1 for _ in _paths(options, lambda _: None, in_order=False))
    progress = Progress(before, total)
    try:
        with progress:
            for predictions in classify_files(client, left(), _ask(options, bulk=True), limits, progress.wait):
                results.add(predictions)
                progress.advance(len(predictions), sum(bool(one.error) for one in predictions))
    except ClientError as error:
        stopped = bool(results.rows)
        _complain(f"{error}\n{results.rows} images are in {options.out}. {again if stopped else ''}".rstrip(), 0)
        return STOPPED if stopped else NOTHING_ASKED
    except KeyboardInterrupt:
        return _complain(f"interrupted; {results.rows} images are in {options.out}. {again}", INTERRUPTED)
    finally:
        results.close()
    rate = f"{progress.images} images in {progress.seconds:.1f} s ({progress.rate:.0f}/s)"
    earlier = f", {before} by earlier runs" if before else ""
    failed = f", {results.failed} failed (--retry-failed asks again)" if results.failed else ""
    print(f"{rate}{earlier}{failed}; results in {options.out}", file=sys.stderr)  # noqa: T201
    if not results.rows and not said:
        return _complain("no images were found", NOTHING_ASKED)
    return SOME_FAILED if results.failed or said else ALL_ANSWERED


def _paths(options: argparse.Namespace, on_problem: Callable[[str], None], *, in_order: bool) -> Iterator[str]:
    """Each file once. Only what one folder holds needs no remembering for that."""
    found = _found(options, on_problem, in_order=in_order)
    if not options.files_from and len(options.images) == 1 and Path(options.images[0]).is_dir():
        yield from found
        return
    seen = set()
    for path in found:
        if hash(path) not in seen:  # 64 bits of a keyed hash: as good as the path, and of one size
            seen.add(hash(path))
            yield path


def _found(options: argparse.Namespace, on_problem: Callable[[str], None], *, in_order: bool) -> Iterator[str]:
    if options.files_from:
        with sys.stdin.buffer if options.files_from == "-" else Path(options.files_from).open("rb") as lines:
            yield from read_list(lines)
    named: Iterable[str] = (name for name in options.images if name != "-")
    # one spelling for one file, or a rerun would take it for another; and each only once
    plain = dict.fromkeys(str(Path(name)) for name in named)
    yield from find_images(plain, recursive=options.recursive, in_order=in_order, on_problem=on_problem)


def _only_files(options: argparse.Namespace) -> bool:
    return not options.files_from and all(Path(name).is_file() for name in options.images)


def _connect(options: argparse.Namespace) -> Client:
    if options.grpc or (options.out and not options.url):
        return GrpcClient(options.grpc or _GRPC)
    return HttpClient(options.url or _URL)


def _ask(options: argparse.Namespace, *, bulk: bool = False) -> Ask:
    return Ask(options.model, options.version, options.label, options.top_k, bulk, options.activation_map)


def _complain(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)  # noqa: T201
    return code


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service.client",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="files, folders, patterns, or - for one image on standard input",
    )
    add("--files-from", metavar="FILE", help="also the files listed there, one path per line; - for standard input")
    add("-r", "--recursive", action="store_true", help="take folders with everything below them")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help=f"the service's HTTP address (default: {_URL}; with --out, gRPC is asked)")
    where.add_argument(
        "--grpc", metavar="HOST:PORT", help=f"its gRPC address, to ask there instead (default with --out: {_GRPC})"
    )
    add("--model", default="", help="name of the model (default: the only one)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, default=0, metavar="N", help="version to ask (default: the live one)")
    which.add_argument("--label", default="", help="the version with this label, such as canary")
    add("--top-k", type=int, default=3, metavar="N", help="labels per image (default: %(default)s)")
    add(
        "--requests",
        type=int,
        metavar="N",
        help=f"requests in flight (default: {_REQUESTS}; with --out {_BULK_REQUESTS}, of {_BULK_IMAGES} images each)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", dest="form", action="store_const", const="json", help="print one JSON object per image, not a table"
    )
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="print CSV with a heading")
    form.add_argument("--out", type=Path, metavar="FILE", help="CSV file to write or to go on with")
    add("--retry-failed", action="store_true", help="with --out: ask again about images that failed")
    add(
        "--activation-map",
        action="store_true",
        help="with --json: also where in each image the label was seen (slower)",
    )
    parser.set_defaults(form="table")
    options = parser.parse_intermixed_args(arguments)  # files before and behind flags
    if not options.images and not options.files_from:
        parser.error("expected images: files, folders, - or --files-from")
    if options.images.count("-") + (options.files_from == "-") > 1:
        parser.error("expected one use of standard input, got several")
    if options.out and "-" in options.images:
        parser.error("expected files with --out, got an image on standard input")
    if options.retry_failed and not options.out:
        parser.error("--retry-failed is for --out")
    if options.activation_map and options.form != "json":
        parser.error("--activation-map is for --json")
    if options.requests is None:
        options.requests = _BULK_REQUESTS if options.out else _REQUESTS
    if not 1 <= options.requests <= 256:
        parser.error(f"expected --requests to be 1 to 256, got {options.requests}")
    if options.out and options.top_k < 1:
        parser.error(f"expected --top-k to be at least 1, got {options.top_k}")
    return options


if __name__ == "__main__":
    sys.exit(main())
