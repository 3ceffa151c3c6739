from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Manifest(_message.Message):
    __slots__ = ("schema_version", "name", "version", "created", "class_names", "image", "recipe", "metrics", "data", "calibration", "unknown_threshold", "files_sha256", "library_versions", "serving_bytes", "audit", "champion", "class_activation_maps")
    class FilesSha256Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LibraryVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAMES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FILES_SHA256_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SERVING_BYTES_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    CLASS_ACTIVATION_MAPS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    name: str
    version: int
    created: str
    class_names: _containers.RepeatedScalarFieldContainer[str]
    image: ImageSpec
    recipe: Recipe
    metrics: Metrics
    data: DataFingerprint
    calibration: Calibration
    unknown_threshold: float
    files_sha256: _containers.ScalarMap[str, str]
    library_versions: _containers.ScalarMap[str, str]
    serving_bytes: ServingBytesParity
    audit: AuditSummary
    champion: ChampionComparison
    class_activation_maps: ClassActivationMaps
    def __init__(self, schema_version: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., created: _Optional[str] = ..., class_names: _Optional[_Iterable[str]] = ..., image: _Optional[_Union[ImageSpec, _Mapping]] = ..., recipe: _Optional[_Union[Recipe, _Mapping]] = ..., metrics: _Optional[_Union[Metrics, _Mapping]] = ..., data: _Optional[_Union[DataFingerprint, _Mapping]] = ..., calibration: _Optional[_Union[Calibration, _Mapping]] = ..., unknown_threshold: _Optional[float] = ..., files_sha256: _Optional[_Mapping[str, str]] = ..., library_versions: _Optional[_Mapping[str, str]] = ..., serving_bytes: _Optional[_Union[ServingBytesParity, _Mapping]] = ..., audit: _Optional[_Union[AuditSummary, _Mapping]] = ..., champion: _Optional[_Union[ChampionComparison, _Mapping]] = ..., class_activation_maps: _Optional[_Union[ClassActivationMaps, _Mapping]] = ...) -> None: ...

class ImageSpec(_message.Message):
    __slots__ = ("side_px", "resize", "resample", "decode_version")
    SIDE_PX_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RESAMPLE_FIELD_NUMBER: _ClassVar[int]
    DECODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    side_px: int
    resize: str
    resample: str
    decode_version: int
    def __init__(self, side_px: _Optional[int] = ..., resize: _Optional[str] = ..., resample: _Optional[str] = ..., decode_version: _Optional[int] = ...) -> None: ...

class Recipe(_message.Message):
    __slots__ = ("strategy", "backbone", "weights", "seed", "trained_parameters", "total_parameters", "hyperparameters", "command", "phases", "evidence", "decision")
    class HyperparametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TRAINED_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    strategy: str
    backbone: str
    weights: str
    seed: int
    trained_parameters: int
    total_parameters: int
    hyperparameters: _containers.ScalarMap[str, str]
    command: str
    phases: _containers.RepeatedCompositeFieldContainer[Phase]
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    decision: Decision
    def __init__(self, strategy: _Optional[str] = ..., backbone: _Optional[str] = ..., weights: _Optional[str] = ..., seed: _Optional[int] = ..., trained_parameters: _Optional[int] = ..., total_parameters: _Optional[int] = ..., hyperparameters: _Optional[_Mapping[str, str]] = ..., command: _Optional[str] = ..., phases: _Optional[_Iterable[_Union[Phase, _Mapping]]] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("textbook_case", "reason", "fine_tuning", "budget_seconds", "spent_seconds", "depths")
    TEXTBOOK_CASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINE_TUNING_FIELD_NUMBER: _ClassVar[int]
    BUDGET_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SPENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEPTHS_FIELD_NUMBER: _ClassVar[int]
    textbook_case: TextbookCase
    reason: str
    fine_tuning: str
    budget_seconds: float
    spent_seconds: float
    depths: _containers.RepeatedCompositeFieldContainer[Depth]
    def __init__(self, textbook_case: _Optional[_Union[TextbookCase, _Mapping]] = ..., reason: _Optional[str] = ..., fine_tuning: _Optional[str] = ..., budget_seconds: _Optional[float] = ..., spent_seconds: _Optional[float] = ..., depths: _Optional[_Iterable[_Union[Depth, _Mapping]]] = ...) -> None: ...

class TextbookCase(_message.Message):
    __slots__ = ("size", "domain", "rule")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    size: str
    domain: str
    rule: str
    def __init__(self, size: _Optional[str] = ..., domain: _Optional[str] = ..., rule: _Optional[str] = ...) -> None: ...

class Depth(_message.Message):
    __slots__ = ("layer", "logme")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LOGME_FIELD_NUMBER: _ClassVar[int]
    layer: str
    logme: float
    def __init__(self, layer: _Optional[str] = ..., logme: _Optional[float] = ...) -> None: ...

class Phase(_message.Message):
    __slots__ = ("name", "seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    seconds: float
    def __init__(self, name: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("candidate", "validation_accuracy", "seconds", "images", "accuracy_interval", "parameters", "winner")
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    WINNER_FIELD_NUMBER: _ClassVar[int]
    candidate: str
    validation_accuracy: float
    seconds: float
    images: int
    accuracy_interval: _containers.RepeatedScalarFieldContainer[float]
    parameters: int
    winner: bool
    def __init__(self, candidate: _Optional[str] = ..., validation_accuracy: _Optional[float] = ..., seconds: _Optional[float] = ..., images: _Optional[int] = ..., accuracy_interval: _Optional[_Iterable[float]] = ..., parameters: _Optional[int] = ..., winner: _Optional[bool] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("validation", "test", "quantized")
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    TEST_FIELD_NUMBER: _ClassVar[int]
    QUANTIZED_FIELD_NUMBER: _ClassVar[int]
    validation: Evaluation
    test: Evaluation
    quantized: Evaluation
    def __init__(self, validation: _Optional[_Union[Evaluation, _Mapping]] = ..., test: _Optional[_Union[Evaluation, _Mapping]] = ..., quantized: _Optional[_Union[Evaluation, _Mapping]] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("images", "accuracy", "accuracy_interval", "classes", "engine")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    images: int
    accuracy: float
    accuracy_interval: _containers.RepeatedScalarFieldContainer[float]
    classes: _containers.RepeatedCompositeFieldContainer[ClassMetrics]
    engine: str
    def __init__(self, images: _Optional[int] = ..., accuracy: _Optional[float] = ..., accuracy_interval: _Optional[_Iterable[float]] = ..., classes: _Optional[_Iterable[_Union[ClassMetrics, _Mapping]]] = ..., engine: _Optional[str] = ...) -> None: ...

class ClassMetrics(_message.Message):
    __slots__ = ("label", "images", "precision", "recall", "precision_interval", "recall_interval", "answered")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    PRECISION_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    RECALL_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    label: str
    images: int
    precision: float
    recall: float
    precision_interval: _containers.RepeatedScalarFieldContainer[float]
    recall_interval: _containers.RepeatedScalarFieldContainer[float]
    answered: int
    def __init__(self, label: _Optional[str] = ..., images: _Optional[int] = ..., precision: _Optional[float] = ..., recall: _Optional[float] = ..., precision_interval: _Optional[_Iterable[float]] = ..., recall_interval: _Optional[_Iterable[float]] = ..., answered: _Optional[int] = ...) -> None: ...

class DataFingerprint(_message.Message):
    __slots__ = ("sha256", "images", "unreadable", "train", "validation", "test", "duplicates", "classes", "given_splits", "test_sha256")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    TEST_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    GIVEN_SPLITS_FIELD_NUMBER: _ClassVar[int]
    TEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    images: int
    unreadable: int
    train: int
    validation: int
    test: int
    duplicates: int
    classes: _containers.RepeatedCompositeFieldContainer[ClassImages]
    given_splits: _containers.RepeatedScalarFieldContainer[str]
    test_sha256: str
    def __init__(self, sha256: _Optional[str] = ..., images: _Optional[int] = ..., unreadable: _Optional[int] = ..., train: _Optional[int] = ..., validation: _Optional[int] = ..., test: _Optional[int] = ..., duplicates: _Optional[int] = ..., classes: _Optional[_Iterable[_Union[ClassImages, _Mapping]]] = ..., given_splits: _Optional[_Iterable[str]] = ..., test_sha256: _Optional[str] = ...) -> None: ...

class ClassImages(_message.Message):
    __slots__ = ("label", "train", "validation", "test")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    TEST_FIELD_NUMBER: _ClassVar[int]
    label: str
    train: int
    validation: int
    test: int
    def __init__(self, label: _Optional[str] = ..., train: _Optional[int] = ..., validation: _Optional[int] = ..., test: _Optional[int] = ...) -> None: ...

class AuditSummary(_message.Message):
    __slots__ = ("findings",)
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[AuditFinding]
    def __init__(self, findings: _Optional[_Iterable[_Union[AuditFinding, _Mapping]]] = ...) -> None: ...

class AuditFinding(_message.Message):
    __slots__ = ("kind", "severity", "count", "unit", "title")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    severity: str
    count: int
    unit: str
    title: str
    def __init__(self, kind: _Optional[str] = ..., severity: _Optional[str] = ..., count: _Optional[int] = ..., unit: _Optional[str] = ..., title: _Optional[str] = ...) -> None: ...

class ChampionComparison(_message.Message):
    __slots__ = ("version", "images", "right_new", "right_champion", "only_new", "only_champion", "p_value", "worse", "note", "incomparable")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    RIGHT_NEW_FIELD_NUMBER: _ClassVar[int]
    RIGHT_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    ONLY_NEW_FIELD_NUMBER: _ClassVar[int]
    ONLY_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    WORSE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    INCOMPARABLE_FIELD_NUMBER: _ClassVar[int]
    version: int
    images: int
    right_new: int
    right_champion: int
    only_new: int
    only_champion: int
    p_value: float
    worse: bool
    note: str
    incomparable: str
    def __init__(self, version: _Optional[int] = ..., images: _Optional[int] = ..., right_new: _Optional[int] = ..., right_champion: _Optional[int] = ..., only_new: _Optional[int] = ..., only_champion: _Optional[int] = ..., p_value: _Optional[float] = ..., worse: _Optional[bool] = ..., note: _Optional[str] = ..., incomparable: _Optional[str] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("temperature",)
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    def __init__(self, temperature: _Optional[float] = ...) -> None: ...

class ClassActivationMaps(_message.Message):
    __slots__ = ("signature", "height", "width")
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    signature: str
    height: int
    width: int
    def __init__(self, signature: _Optional[str] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class ServingBytesParity(_message.Message):
    __slots__ = ("mean_pixel_difference", "max_score_difference")
    MEAN_PIXEL_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    mean_pixel_difference: float
    max_score_difference: float
    def __init__(self, mean_pixel_difference: _Optional[float] = ..., max_score_difference: _Optional[float] = ...) -> None: ...

class Goldens(_message.Message):
    __slots__ = ("goldens",)
    GOLDENS_FIELD_NUMBER: _ClassVar[int]
    goldens: _containers.RepeatedCompositeFieldContainer[Golden]
    def __init__(self, goldens: _Optional[_Iterable[_Union[Golden, _Mapping]]] = ...) -> None: ...

class Golden(_message.Message):
    __slots__ = ("image", "pixels", "label", "scores")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    image: str
    pixels: str
    label: str
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, image: _Optional[str] = ..., pixels: _Optional[str] = ..., label: _Optional[str] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...
