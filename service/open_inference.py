"""The Open Inference Protocol v2 (KServe, Triton): what its gRPC and its REST face have in common.

Its messages to classifier requests and back, with Triton's words for errors, where it has any. A REST request becomes
the same message first. A model takes one of two inputs: `images`, UINT8 or FP32 [N, S, S, 3], or `image_bytes`, BYTES
[N], image files; it gives `scores`, FP32 [N, C], and `classes`, BYTES [N, C].
"""

import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from protos import open_inference_pb2 as oip
from service.classifier import Classifier
from service.errors import GraftError, ModelNotFound
from service.request import Answer, Pixels, Request, check_count
from service.routes import VersionRoute
from service.tensors import CLASSES, IMAGE_BYTES, IMAGES, SCORES, Refusal, images_of, pack, require_all, shown
from service.terms import Terms

PLATFORM: Final = "graft"
VERSION: Final = "0.1.0"
"""Of the server; the same as in pyproject.toml."""

EXTENSIONS: Final = ("classification", "binary_tensor_data")
"""Of those that Triton defines, the ones that are understood here."""

_LENGTH: Final = struct.Struct("<I")
_NO_TERMS: Final = Terms()
_Ask = oip.ModelInferRequest
_Tensor = oip.ModelInferRequest.InferInputTensor


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of an answer.

    Attributes:
        name: `scores` or `classes`.
        datatype: FP32 or BYTES.
        shape: [N, C], or [N, K] of the K best where classifications were asked for.
        values: row by row.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    values: Sequence[float] | Sequence[bytes]

    def raw(self) -> bytes:
        """The values as they go over the wire: numbers as they are, every text behind its length."""
        if self.datatype == "FP32":
            return pack(self.values, float32=True)
        return to_raw(self.values)  # type: ignore[arg-type]  # by its datatype


def to_raw(texts: Sequence[bytes]) -> bytes:
    """BYTES elements, each behind its length."""
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


class OpenInference:
    """Reads requests and writes responses.

    Args:
        classifier: whose versions are asked for.
        max_images: most images in one request.
    """

    def __init__(self, classifier: Classifier, max_images: int) -> None:
        self._classifier = classifier
        self._max_images = max_images

    def ready(self, name: str, version: str) -> bool:
        """Whether requests for a model, or for a version of it, would be taken.

        Raises:
            Refusal: there is no such model or version.
        """
        try:
            self._find(name, version)
        except GraftError:
            return False
        return True

    def metadata(self, name: str, version: str) -> oip.ModelMetadataResponse:
        """What a model takes and gives, and its versions that serve.

        Raises:
            Refusal, GraftError: there is no such model or version, or none that serves.
        """
        route, asked = self._find(name, version)
        side, classes = route.side_px, len(route.class_names)
        versions = self._classifier.routes.models[asked.model].versions
        described = oip.ModelMetadataResponse(name=asked.model, platform=PLATFORM)
        described.versions.extend(str(number) for number in sorted(versions) if versions[number].state == "AVAILABLE")
        described.inputs.add(name=IMAGES, datatype="UINT8", shape=[-1, side, side, 3])
        described.inputs.add(name=IMAGE_BYTES, datatype="BYTES", shape=[-1])
        described.outputs.add(name=SCORES, datatype="FP32", shape=[-1, classes])
        described.outputs.add(name=CLASSES, datatype="BYTES", shape=[-1, classes])
        return described

    def admit(self, name: str, version: str, terms: Terms) -> None:
        """Whether a request could be answered in time; see Classifier.admit.

        Raises:
            Refusal, GraftError: it cannot be answered.
        """
        _, asked = self._find(name, version, terms)
        self._classifier.admit(asked)

    def read_infer(self, request: _Ask, terms: Terms) -> Request:
        """What to classify. The protocol's own `timeout`, in microseconds, can only shorten ours.

        Raises:
            Refusal, GraftError: the request cannot be answered.
        """
        own = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
        terms = replace(terms, request_id=request.id or terms.request_id)
        route, asked = self._find(request.model_name, request.model_version, terms)
        if own > 0:
            asked = replace(asked, timeout_s=min(asked.timeout_s, own / 1e6))
        for output in request.outputs:
            if output.name not in (SCORES, CLASSES):
                raise _wrong(f"unexpected inference output '{output.name[:200]}' for model '{asked.model}'")
            if output.name == CLASSES and _best(output):
                raise _wrong(f"classification is of '{SCORES}', not of '{CLASSES}'")
        if len(request.inputs) != 1:
            raise _wrong(
                f"expected 1 input, '{IMAGES}' or '{IMAGE_BYTES}', but got {len(request.inputs)} inputs for model "
                f"'{asked.model}'"
            )
        if len(request.raw_input_contents) not in (0, 1):
            raise _wrong(f"expected 1 raw input, got {len(request.raw_input_contents)}")
        tensor = request.inputs[0]
        raw = request.raw_input_contents[0] if request.raw_input_contents else None
        if "shared_memory_region" in tensor.parameters:
            raise _wrong("shared memory is not supported")
        if tensor.name == IMAGES:
            return replace(asked, images=self._pixels(tensor, raw, asked.model, route.side_px))
        if tensor.name == IMAGE_BYTES:
            return replace(asked, images=self._files(tensor, raw, asked.model))
        raise _wrong(f"unexpected inference input '{tensor.name[:200]}' for model '{asked.model}'")

    @staticmethod
    def outputs(request: _Ask, answer: Answer) -> list[Output]:
        """The tensors that `request` asked for: both where it named none.

        Raises:
            GraftError: an image failed.
        """
        results = require_all(answer).results
        shape = (len(results), len(answer.class_names))
        outputs = []
        for asked in request.outputs or (_Ask.InferRequestedOutputTensor(name=name) for name in (SCORES, CLASSES)):
            count = min(_best(asked), len(answer.class_names))
            if count:
                best = [
                    text for result in results for text in _classifications(result.scores, answer.class_names, count)
                ]
                outputs.append(Output(asked.name, "BYTES", (len(results), count), best))
            elif asked.name == SCORES:
                scores = [score for result in results for score in result.scores]
                outputs.append(Output(asked.name, "FP32", shape, scores))
            else:
                names = [name.encode() for name in answer.class_names] * len(results)
                outputs.append(Output(asked.name, "BYTES", shape, names))
        return outputs

    def write_infer(self, request: _Ask, answer: Answer) -> oip.ModelInferResponse:
        """The answer to `request`, raw where the request was.

        Raises:
            GraftError: an image failed.
        """
        response = oip.ModelInferResponse(model_name=answer.model, model_version=str(answer.version), id=request.id)
        for output in self.outputs(request, answer):
            tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
            if request.raw_input_contents:
                response.raw_output_contents.append(output.raw())
            elif output.datatype == "FP32":
                tensor.contents.fp32_contents.extend(output.values)  # type: ignore[arg-type]  # by its datatype
            else:
                tensor.contents.bytes_contents.extend(output.values)  # type: ignore[arg-type]  # by its datatype
        return response

    def _find(self, name: str, version: str, terms: Terms = _NO_TERMS) -> tuple[VersionRoute, Request]:
        """The version that is meant at present, and a request to it that has no images yet."""
        digits = version.isascii() and version.isdigit()
        if digits and (len(version) > 18 or int(version) < 1):
            raise _unknown(name, version)
        number, label = (int(version), "") if digits else (0, version)
        request_id = terms.request_id or secrets.token_hex(8)  # so that the canary is drawn once, here
        if not name:
            raise _unknown(name, version)
        try:
            model, found = self._classifier.resolve(name, number, label, request_id)
        except ModelNotFound as error:
            raise _unknown(name, version) from error
        asked = Request(
            (),
            model,
            number,
            1,
            timeout_s=terms.left_s,
            label=label,
            request_id=request_id,
            all_scores=True,
            bulk=terms.bulk,
        )
        return self._classifier.routes.models[model].versions[found], asked

    def _pixels(self, tensor: _Tensor, raw: bytes | None, model: str, side_px: int) -> list[Pixels]:
        _check_datatype(tensor, model, ("UINT8", "FP32"))
        count = self._count(tensor, model, ((-1, side_px, side_px, 3),))
        float32 = tensor.datatype == "FP32"
        if raw is None:
            contents = tensor.contents
            raw = pack(contents.fp32_contents if float32 else contents.uint_contents, float32=float32)
        expected = count * side_px * side_px * 3 * (4 if float32 else 1)
        if len(raw) != expected:
            raise _wrong(f"unexpected total byte size {len(raw)} for input '{IMAGES}', expecting {expected}")
        return images_of(raw, count, float32=float32)

    def _files(self, tensor: _Tensor, raw: bytes | None, model: str) -> Sequence[bytes]:
        _check_datatype(tensor, model, ("BYTES",))
        count = self._count(tensor, model, ((-1,), (-1, 1)))
        files = tensor.contents.bytes_contents if raw is None else _from_raw(raw, count)
        if len(files) != count:
            got = len(files) if len(files) < count else "more"
            raise _wrong(f"expected {count} strings for inference input '{IMAGE_BYTES}', got {got}")
        return list(files)

    def _count(self, tensor: _Tensor, model: str, expected: Sequence[tuple[int, ...]]) -> int:
        """N of a tensor whose shape must be one of `expected`."""
        shape = tuple(tensor.shape)
        if (-1, *shape[1:]) not in expected:
            raise _wrong(
                f"unexpected shape for input '{tensor.name}' for model '{model}'. Expected {shown(expected[0])}, got "
                f"{shown(shape)}"
            )
        check_count(shape[0], self._max_images)
        return shape[0]


def _wrong(detail: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", detail)


def _unknown(name: str, version: str) -> Refusal:
    which = f" version {version[:50]}" if version else ""
    return Refusal("NOT_FOUND", f"Request for unknown model: '{name[:200]}'{which} is not found")


def _check_datatype(tensor: _Tensor, model: str, expected: Sequence[str]) -> None:
    if tensor.datatype not in expected:
        raise _wrong(
            f"inference input '{tensor.name}' data-type is '{tensor.datatype[:20]}', but model '{model}' expects "
            f"'{' or '.join(expected)}'"
        )


def _best(output: _Ask.InferRequestedOutputTensor) -> int:
    """How many classifications were asked for; 0 for the plain tensor."""
    if "classification" not in output.parameters:
        return 0
    count = output.parameters["classification"].int64_param
    if count < 1:
        raise _wrong(f"expected classification to be 1 or larger, got {count}")
    return count


def _classifications(scores: Sequence[float], names: Sequence[str], count: int) -> list[bytes]:
    """The best ones as "score:index:label", which is how Triton writes them."""
    best = sorted(range(len(names)), key=lambda index: -scores[index])[:count]
    return [f"{scores[index]:f}:{index}:{names[index]}".encode() for index in best]


def _from_raw(raw: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor; where they are more than `count`, one more, as every four zeros are another."""
    texts: list[bytes] = []
    at = 0
    while at < len(raw) and len(texts) <= count:
        if len(raw) - at < _LENGTH.size:
            raise _wrong(
                f"incomplete string length indicator for inference input '{IMAGE_BYTES}', expecting {_LENGTH.size} "
                f"bytes but only {len(raw) - at} bytes available"
            )
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if len(raw) - at < length:
            raise _wrong(
                f"incomplete string data for inference input '{IMAGE_BYTES}', expecting string of length {length} but "
                f"only {len(raw) - at} bytes available"
            )
        texts.append(raw[at : at + length])
        at += length
    return texts
