"""The bones of DESIGN.md that code can check: who imports what, what is documented, what every error becomes."""

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from service import errors

_ROOT = Path(__file__).resolve().parent.parent
_MODULES = sorted(
    path.relative_to(_ROOT)
    for folder in ("service", "training", "protos", "tests")
    for path in (_ROOT / folder).rglob("*.py")
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
)
_LOAD_TIME = {"BrokenVersion", "PortTaken", "AlreadyRunning", "UnusableRunDir", "BrokenPolicy"}
"""Errors that end a start or refuse a version; they meet an operator, never a client."""


def _loaded_after(statement: str) -> set[str]:
    """Top-level modules that a new interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["service.http.app", "service.http.server", "service.grpc.server", "service.client"])
def test_what_only_moves_bytes_imports_no_numerics(module: str) -> None:
    """Fronts and client are small and start quickly: no TensorFlow, OpenVINO, numpy or Pillow."""
    heavy = {"tensorflow", "keras", "openvino", "numpy", "PIL", "training"} & _loaded_after(f"import {module}")
    assert heavy == set()


def test_fronts_that_run_have_loaded_no_numerics(service) -> None:
    """Nor do they load any later: their memory maps hold no library of numpy, OpenVINO, TensorFlow or Pillow."""
    for pid in service.fronts():
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        assert [name for name in ("/numpy", "/openvino", "/tensorflow", "/PIL", "/pillow") if name in maps] == []
    engine = Path(f"/proc/{service.engines()[0]}/maps").read_text(encoding="utf-8")
    assert "numpy" in engine
    assert "openvino" in engine
    assert "site-packages/tensorflow/" not in engine


def test_the_engine_loads_no_runtime_until_it_is_pinned() -> None:
    """OpenVINO reads the CPU affinity when it is imported, so nothing that the engine imports first may import it."""
    assert {"openvino", "tensorflow", "flask", "grpc"} & _loaded_after("import service.engine.__main__") == set()


def test_the_service_never_imports_training() -> None:
    """Imports point from training to service to protos, also those inside functions."""
    for path in _MODULES:
        if path.parts[0] in {"service", "protos"}:
            above = {"service": {"training", "tests"}, "protos": {"training", "tests", "service"}}[path.parts[0]]
            assert _imported(path) & above == set(), path


def test_the_service_imports_what_its_image_installs() -> None:
    """Every package that service/ and protos/ import, also inside functions, comes from what locks/cpu.lock names."""
    elsewhere = {
        "tensorflow",  # locks/gpu.lock has it; who asks for it without is told
        "opentelemetry",  # an extra, for --otlp-endpoint
        "grpc_tools",  # writes the committed protobuf code, for developers
    }
    paths = [path.relative_to(_ROOT) for folder in ("service", "protos") for path in (_ROOT / folder).rglob("*.py")]
    imported = set().union(*map(_imported, paths)) - sys.stdlib_module_names - {"service", "protos"}
    lock = (_ROOT / "locks" / "cpu.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    providers = packages_distributions()
    missing = {
        name
        for name in imported
        if locked.isdisjoint(re.sub(r"[-_.]+", "-", provider).lower() for provider in providers.get(name, ()))
    }
    assert missing == elsewhere


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((_ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_the_client_is_light() -> None:
    """Importing it takes under 0.3 s of process time and pulls in neither grpc nor protobuf."""
    code = "import time, service.client; print(time.process_time())"
    times = [
        float(
            subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True).stdout
        )
        for _ in range(3)
    ]
    assert min(times) < 0.3  # the best of three: the machine may be busy with other things
    assert {"grpc", "google", "flask"} & _loaded_after("import service.client") == set()
    # the command line neither, until it is known what is asked for
    assert {"grpc", "google", "flask", "rich"} & _loaded_after("import service.client.__main__") == set()


@pytest.mark.parametrize("path", _MODULES, ids=str)
def test_every_module_says_what_it_owns(path: Path) -> None:
    """A docstring on top of every module of ours."""
    assert ast.get_docstring(ast.parse((_ROOT / path).read_text(encoding="utf-8"))), path


def _leaves(root: type[errors.GraftError]) -> set[type[errors.GraftError]]:
    below = {leaf for child in root.__subclasses__() for leaf in _leaves(child)}
    return below or {root}


def _client_errors() -> set[type[errors.GraftError]]:
    return {leaf for leaf in _leaves(errors.GraftError) if leaf.__name__ not in _LOAD_TIME}


def test_http_translates_every_error_that_a_client_can_meet() -> None:
    """One status each, 4xx or 5xx, and none for what no client meets."""
    from service.http.reply import STATUS  # noqa: PLC0415 - gevent is for this test alone

    assert set(STATUS) == _client_errors()
    assert all(400 <= status < 600 for status in STATUS.values())


def test_grpc_translates_every_error_that_a_client_can_meet() -> None:
    """One status each, never OK or UNKNOWN."""
    import grpc  # noqa: PLC0415

    from service.grpc.servicer import STATUS  # noqa: PLC0415

    assert set(STATUS) == _client_errors()
    assert not {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN} & set(STATUS.values())


def test_foreign_protocols_translate_every_error_that_a_client_can_meet() -> None:
    """One canonical status each, never OK or UNKNOWN."""
    import grpc  # noqa: PLC0415

    from service.http.foreign import HTTP_STATUS  # noqa: PLC0415
    from service.tensors import STATUS  # noqa: PLC0415

    assert set(STATUS) == _client_errors()
    assert set(STATUS.values()) <= set(HTTP_STATUS)
    assert not {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN} & {grpc.StatusCode[one] for one in STATUS.values()}


def test_codes_name_errors_uniquely() -> None:
    """A code crosses from engine to front and becomes the same error again."""
    assert {code: errors.BY_CODE[code].code for code in errors.BY_CODE} == {code: code for code in errors.BY_CODE}
    assert {leaf.code for leaf in _client_errors()} <= set(errors.BY_CODE)
    assert len({leaf.code for leaf in _client_errors()}) == len(_client_errors())


def test_errors_are_documented_in_the_tree_on_top_of_their_module() -> None:
    """The picture in the docstring shows every class of the module."""
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    drawn = {word for word in (errors.__doc__ or "").replace("─", " ").split() if word in classes}
    assert drawn == classes - {"ClassVar"}
