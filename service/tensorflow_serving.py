"""TensorFlow Serving's messages to classifier requests and back: what its gRPC and its REST face have in common.

Its statuses and its words, where it has any (tensorflow_serving/servables/tensorflow/predict_util.cc and neighbours). A
REST request becomes the same message first, as it does there.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from protos import tensorflow_serving_pb2 as tfs
from service import errors
from service.classifier import Classifier
from service.request import Answer, Pixels, Request, check_count
from service.routes import VersionRoute
from service.tensors import CLASSES, IMAGE_BYTES, IMAGES, SCORES, Refusal, images_of, pack, require_all, shown
from service.terms import Terms

DEFAULT_SIGNATURE: Final = "serving_default"
BYTES_SIGNATURE: Final = "serving_bytes"
METHOD: Final = "tensorflow/serving/predict"

SIGNATURES: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    BYTES_SIGNATURE: (IMAGE_BYTES, (CLASSES, SCORES)),
    DEFAULT_SIGNATURE: (IMAGES, (SCORES,)),
}
"""The input and the outputs of every signature, as in the version directory's SavedModel."""

EXAMPLE_FEATURES: Final = ("image/encoded", IMAGE_BYTES)
"""Names under which Classify looks for the image file in a tf.Example; the first is TensorFlow's convention."""

_NO_TERMS: Final = Terms()


class TensorFlowServing:
    """Reads requests and writes responses.

    Args:
        classifier: whose versions are asked for.
        max_images: most images in one request.
        max_bytes: most bytes of a tensor that a request leaves to be filled; such a request has next to none itself.
    """

    def __init__(self, classifier: Classifier, max_images: int, max_bytes: int) -> None:
        self._classifier = classifier
        self._max_images = max_images
        self._max_bytes = max_bytes

    # -- PredictionService

    def admit(self, spec: tfs.ModelSpec, terms: Terms) -> None:
        """Whether a request could be answered in time; see Classifier.admit.

        Raises:
            Refusal, GraftError: it cannot be answered.
        """
        _, asked = self._find(spec, terms)
        self._classifier.admit(asked)

    def read_predict(self, request: tfs.PredictRequest, terms: Terms) -> Request:
        """What to classify.

        Raises:
            Refusal, GraftError: the request cannot be answered.
        """
        route, asked = self._find(request.model_spec, terms)
        input_name, outputs = self.signature(request.model_spec.signature_name)
        given = set(request.inputs)
        if len(given) != 1:
            missing, extra = ",".join({input_name} - given), ",".join(sorted(given - {input_name}))
            raise Refusal(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(given)}!=1 len({{{','.join(sorted(given))}}}) != "
                f"len({{{input_name}}}). Sent extra: {{{extra}}}. Missing but required: {{{missing}}}.",
            )
        if input_name not in given:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"input tensor alias not found in signature: {given.pop()}. Inputs expected to be in the set "
                f"{{{input_name}}}.",
            )
        for output in request.output_filter:
            if output not in outputs:
                raise Refusal(
                    "INVALID_ARGUMENT",
                    f"output tensor alias not found in signature: {output} Outputs expected to be in the set "
                    f"{{{','.join(outputs)}}}.",
                )
        if len(set(request.output_filter)) < len(request.output_filter):
            raise Refusal("INVALID_ARGUMENT", f"duplicate output tensor alias: {_duplicate(request.output_filter)}")
        tensor = request.inputs[input_name]
        images = self._files(tensor) if input_name == IMAGE_BYTES else self._pixels(tensor, route.side_px)
        return replace(asked, images=images)

    @staticmethod
    def write_predict(request: tfs.PredictRequest, answer: Answer) -> tfs.PredictResponse:
        """The answer to `request`; float_val and string_val, which every client reads.

        Raises:
            GraftError: an image failed.
        """
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = tfs.PredictResponse(model_spec=_spec(answer.model, answer.version, signature))
        for output in request.output_filter or SIGNATURES[signature][1]:
            tensor = response.outputs[output]
            for size in (len(answer.results), len(answer.class_names)):
                tensor.tensor_shape.dim.add(size=size)
            if output == SCORES:
                tensor.dtype = tfs.DT_FLOAT
                for result in require_all(answer).results:
                    tensor.float_val.extend(result.scores)
            else:
                tensor.dtype = tfs.DT_STRING
                tensor.string_val.extend(
                    [name.encode() for name in answer.class_names] * len(require_all(answer).results)
                )
        return response

    def read_classify(self, request: tfs.ClassificationRequest, terms: Terms) -> Request:
        """What to classify.

        Raises:
            Refusal, GraftError: the request cannot be answered.
        """
        _, asked = self._find(request.model_spec, terms)
        signature = request.model_spec.signature_name
        if signature and signature not in SIGNATURES:
            raise Refusal("INVALID_ARGUMENT", f"No signature was found with the name: {signature[:200]}")
        kind = request.input.WhichOneof("kind")
        examples = getattr(request.input, kind).examples if kind else ()
        if not examples:
            raise Refusal("INVALID_ARGUMENT", "Input is empty.")
        shared = request.input.example_list_with_context.context.features.feature
        check_count(len(examples), self._max_images)
        images = [_image(index, {**shared, **one.features.feature}) for index, one in enumerate(examples)]
        return replace(asked, images=images)

    @staticmethod
    def write_classify(answer: Answer) -> tfs.ClassificationResponse:
        """Every class with its score, in the order of the model's scores.

        Raises:
            GraftError: an image failed.
        """
        response = tfs.ClassificationResponse(model_spec=_spec(answer.model, answer.version, DEFAULT_SIGNATURE))
        for result in require_all(answer).results:
            classes = response.result.classifications.add().classes
            for label, score in zip(answer.class_names, result.scores, strict=True):
                classes.add(label=label, score=score)
        return response

    def metadata(self, request: tfs.GetModelMetadataRequest) -> tfs.GetModelMetadataResponse:
        """The signatures of a version.

        Raises:
            Refusal, GraftError: the request cannot be answered.
        """
        if not request.HasField("model_spec"):
            raise Refusal("INVALID_ARGUMENT", "Missing ModelSpec")
        if not request.metadata_field:
            raise Refusal("INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise Refusal("INVALID_ARGUMENT", f"Metadata field {field[:200]} is not supported")
        route, asked = self._find(request.model_spec)
        model, number = self._classifier.resolve(asked.model, asked.version, asked.label, asked.request_id)
        response = tfs.GetModelMetadataResponse(model_spec=_spec(model, number))
        packed = response.metadata["signature_def"]
        packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        packed.value = signatures(route).SerializeToString()
        return response

    # -- ModelService

    def status(self, request: tfs.GetModelStatusRequest) -> tfs.GetModelStatusResponse:
        """The states of one version, or of all versions of a model.

        Raises:
            Refusal: there is no such model or version.
        """
        if not request.HasField("model_spec"):
            raise Refusal("INVALID_ARGUMENT", "Missing ModelSpec")
        spec = request.model_spec
        if spec.name not in self._classifier.routes.models:
            raise _no_versions(spec)
        number = spec.version.value if spec.HasField("version") else 0
        if spec.HasField("version") and number < 1:
            raise _no_version(spec)
        try:
            versions = self._classifier.routes.states(spec.name, number, spec.version_label)
        except errors.ModelNotFound as error:
            raise (_unknown_label(spec) if spec.version_label else _no_version(spec)) from error
        if not versions:
            raise _no_versions(spec)
        response = tfs.GetModelStatusResponse()
        for number, route in sorted(versions.items(), reverse=True):
            state = tfs.ModelVersionStatus.State.Value(route.state)
            one = response.model_version_status.add(version=number, state=state)
            one.status.error_code = tfs.UNKNOWN if route.error else tfs.OK
            one.status.error_message = route.error
        return response

    # -- model spec and tensors

    @staticmethod
    def signature(name: str) -> tuple[str, Sequence[str]]:
        """The input and the outputs of a signature.

        Raises:
            Refusal: there is none of this name.
        """
        found = SIGNATURES.get(name or DEFAULT_SIGNATURE)
        if found is None:
            raise Refusal("FAILED_PRECONDITION", f'Serving signature key "{name[:200]}" not found.')
        return found

    def _find(self, spec: tfs.ModelSpec, terms: Terms = _NO_TERMS) -> tuple[VersionRoute, Request]:
        """The version that is meant at present, and a request to it that has no images yet."""
        if not spec.name:
            raise Refusal("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        version = spec.version.value if spec.HasField("version") else 0
        if spec.HasField("version") and version < 1:
            raise _no_servable(spec)
        request_id = terms.request_id or secrets.token_hex(8)  # so that the canary is drawn once, here
        try:
            model, number = self._classifier.resolve(spec.name, version, spec.version_label, request_id)
        except errors.ModelNotFound as error:
            known = spec.name in self._classifier.routes.models
            raise (_unknown_label(spec) if spec.version_label and known else _no_servable(spec)) from error
        asked = Request(
            (),
            model,
            version,
            1,
            timeout_s=terms.left_s,
            label=spec.version_label,
            request_id=request_id,
            all_scores=True,
            bulk=terms.bulk,
        )
        return self._classifier.routes.models[model].versions[number], asked

    def _pixels(self, tensor: tfs.TensorProto, side_px: int) -> list[Pixels]:
        if tensor.dtype not in (tfs.DT_UINT8, tfs.DT_FLOAT):
            raise Refusal("INVALID_ARGUMENT", f"Expects arg[0] to be uint8 or float but {_kind(tensor)} is provided")
        count = self._count(tensor, (side_px, side_px, 3))
        float32 = tensor.dtype == tfs.DT_FLOAT
        item = 4 if float32 else 1
        size = count * side_px * side_px * 3 * item
        values = tensor.float_val if float32 else tensor.int_val
        content = tensor.tensor_content
        if not content and len(values) <= size // item:
            if len(values) < size // item and size > self._max_bytes:
                raise errors.RequestTooLarge(
                    f"{IMAGES}: expected at most {self._max_bytes} bytes where not all values are given, got {size}"
                )
            content = _filled(pack(values, float32=float32), size, item)
        if len(content) != size:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"tensor parsing error: {IMAGES}: expected {size // item} {_kind(tensor)} values, got "
                f"{len(content) or item * len(values)} bytes",
            )
        return images_of(content, count, float32=float32)

    def _files(self, tensor: tfs.TensorProto) -> Sequence[bytes]:
        if tensor.dtype != tfs.DT_STRING:
            raise Refusal("INVALID_ARGUMENT", f"Expects arg[0] to be string but {_kind(tensor)} is provided")
        count = self._count(tensor, ())
        if len(tensor.string_val) != count:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"tensor parsing error: {IMAGE_BYTES}: expected {count} values of string, got {len(tensor.string_val)}",
            )
        return tensor.string_val

    def _count(self, tensor: tfs.TensorProto, tail: tuple[int, ...]) -> int:
        """N of a tensor that must be [N, *tail]."""
        shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
        if tensor.tensor_shape.unknown_rank or len(shape) != 1 + len(tail) or shape[1:] != tail:
            raise Refusal("INVALID_ARGUMENT", f"expected a tensor of shape {shown((-1, *tail))}, got {shown(shape)}")
        check_count(shape[0], self._max_images)
        return shape[0]


def signatures(route: VersionRoute) -> tfs.SignatureDefMap:
    """What a version takes and gives."""
    side, classes = route.side_px, len(route.class_names)
    tensors = {
        IMAGES: (tfs.DT_UINT8, (-1, side, side, 3)),
        IMAGE_BYTES: (tfs.DT_STRING, (-1,)),
        SCORES: (tfs.DT_FLOAT, (-1, classes)),
        CLASSES: (tfs.DT_STRING, (-1, classes)),
    }
    described = tfs.SignatureDefMap()
    for name, (input_name, outputs) in SIGNATURES.items():
        signature = described.signature_def[name]
        signature.method_name = METHOD
        for tensor, place in ((input_name, signature.inputs), *((output, signature.outputs) for output in outputs)):
            kind, shape = tensors[tensor]
            place[tensor].name, place[tensor].dtype = f"{name}_{tensor}:0", kind
            for size in shape:
                place[tensor].tensor_shape.dim.add(size=size)
    return described


def _unknown_label(spec: tfs.ModelSpec) -> Refusal:
    return Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label[:200]}")


def _no_versions(spec: tfs.ModelSpec) -> Refusal:
    return Refusal("NOT_FOUND", f"Could not find any versions of model {spec.name[:200]}")


def _no_version(spec: tfs.ModelSpec) -> Refusal:
    return Refusal("NOT_FOUND", f"Could not find version {spec.version.value} of model {spec.name}")


def _no_servable(spec: tfs.ModelSpec) -> Refusal:
    name = spec.name[:200]
    wanted = f"Specific({name}, {spec.version.value})" if spec.HasField("version") else f"Latest({name})"
    return Refusal("NOT_FOUND", f"Servable not found for request: {wanted}")


def _spec(model: str, version: int, signature: str = "") -> tfs.ModelSpec:
    spec = tfs.ModelSpec(name=model, signature_name=signature)
    spec.version.value = version
    return spec


def _kind(tensor: tfs.TensorProto) -> str:
    known = tensor.dtype in tfs.DataType.values()
    return tfs.DataType.Name(tensor.dtype).removeprefix("DT_").lower() if known else f"type {tensor.dtype}"


def _filled(content: bytes, size: int, item: int) -> bytes:
    """A tensor of too few numbers, of `item` bytes each, goes on with its last one, as in TensorFlow."""
    return content + content[-item:] * ((size - len(content)) // item)


def _duplicate(names: Sequence[str]) -> str:
    return next(name for index, name in enumerate(names) if name in names[:index])


def _image(index: int, features: Mapping[str, tfs.Feature]) -> bytes:
    """The image file in an example."""
    name = next((name for name in EXAMPLE_FEATURES if name in features), "")
    if not name:
        raise Refusal(
            "INVALID_ARGUMENT",
            f"Name: <unknown>, Index: {index}. Feature: {' or '.join(EXAMPLE_FEATURES)} (data type: string) is "
            "required but could not be found.",
        )
    if features[name].WhichOneof("kind") != "bytes_list":
        raise Refusal(
            "INVALID_ARGUMENT",
            f"Name: <unknown>, Key: {name}, Index: {index}. Data types don't match. Expected type: string",
        )
    values = features[name].bytes_list.value
    if len(values) != 1:
        raise Refusal(
            "INVALID_ARGUMENT",
            f"Name: <unknown>, Key: {name}, Index: {index}. Number of string values != expected. Values size: "
            f"{len(values)} but output shape: []",
        )
    return values[0]
