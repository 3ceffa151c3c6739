"""protos/: the committed code is what the .proto files say."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def test_committed_code_is_what_is_generated(tmp_path: Path) -> None:
    """Generated anew into an empty folder, every file is there and equal, and no committed file is left over."""
    # in a process of its own: beside TensorFlow, which brings another protobuf, protoc crashes
    subprocess.run([sys.executable, "-m", "protos.generate", str(tmp_path)], cwd=_ROOT, check=True)
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "protos").iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in (_ROOT / "protos").glob("*_pb2*.py*")}
    assert sorted(made) == sorted(committed)
    assert [name for name in made if made[name] != committed[name]] == [], "run: make protos"
