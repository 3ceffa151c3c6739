"""Regenerates the committed protobuf code: `python -m protos.generate [OUT]`.

OUT is the folder that receives `protos/*_pb2*.py*`; the repository root by default.
"""

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

_ROOT = Path(__file__).resolve().parent.parent
_GOOGLE = Path(grpc_tools.__file__).parent / "_proto"
"""Google's own messages, such as google/protobuf/any.proto."""


def generate(out: Path) -> None:
    """Writes the modules for every .proto file into OUT/protos.

    Raises:
        RuntimeError: protoc refused a file; its message is on standard error.
    """
    sources = sorted(str(path.relative_to(_ROOT)) for path in _ROOT.glob("protos/*.proto"))
    messages = ["protoc", f"-I{_ROOT}", f"-I{_GOOGLE}", f"--python_out={out}", f"--pyi_out={out}", *sources]
    services = ["protoc", f"-I{_ROOT}", f"--grpc_python_out={out}", "protos/classifier.proto"]
    for arguments in (messages, services):
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc failed: {' '.join(arguments)}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else _ROOT)
