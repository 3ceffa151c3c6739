"""Everything that can go wrong, in words that know no protocol.

    GraftError
    ├── ImageError               one image cannot be answered; its neighbours can
    │   ├── EmptyImage           no bytes
    │   ├── InvalidBase64        text that was to be an image in base64
    │   ├── UnsupportedFormat    not an image format that we read
    │   ├── CorruptImage         truncated or damaged
    │   ├── ImageTooLarge        more bytes or pixels than allowed
    │   └── PoisonImage          it brought engines down
    ├── RequestError             the request itself is wrong
    │   ├── InvalidRequest
    │   ├── UnsupportedMedia
    │   ├── RequestTooLarge
    │   ├── RequestTimeout       the client took too long to send it
    │   ├── ModelNotFound
    │   ├── Unauthenticated      an admin call without the token
    │   └── NoActivationMap      the version cannot say where it saw its answer
    ├── CapacityError            right request, wrong moment; worth trying again
    │   ├── Overloaded
    │   ├── DeadlineExceeded
    │   └── Unavailable
    ├── InternalError            our fault
    └── BrokenVersion            a version directory that must not serve

Each protocol translates these in one table of its own. `code` is the word that clients see; the message says
what was expected and what came, never a path or a stack trace.
"""

from typing import ClassVar


class GraftError(Exception):
    """Root of the tree; only its leaves are raised."""

    code: ClassVar[str] = "INTERNAL"

    @property
    def detail(self) -> str:
        """The message for the client."""
        return str(self)


class ImageError(GraftError):
    """One image cannot be answered; the others of its request can."""


class EmptyImage(ImageError):
    """An image of no bytes."""

    code = "EMPTY_IMAGE"


class InvalidBase64(ImageError):
    """Text that was to be an image in base64 and is not."""

    code = "INVALID_BASE64"


class UnsupportedFormat(ImageError):
    """Bytes that are not one of the image formats that we read."""

    code = "UNSUPPORTED_FORMAT"


class CorruptImage(ImageError):
    """A known format, but truncated or damaged."""

    code = "CORRUPT_IMAGE"


class ImageTooLarge(ImageError):
    """More bytes or more pixels than the service allows."""

    code = "IMAGE_TOO_LARGE"


class PoisonImage(ImageError):
    """An image that was alone in two engines when they died."""

    code = "POISON_IMAGE"


class RequestError(GraftError):
    """The request itself is wrong, whatever its images."""


class InvalidRequest(RequestError):
    """A field, parameter or body that cannot be understood."""

    code = "INVALID_REQUEST"


class UnsupportedMedia(RequestError):
    """A content type that the endpoint does not take."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class RequestTooLarge(RequestError):
    """A body larger than the service allows."""

    code = "REQUEST_TOO_LARGE"


class RequestTimeout(RequestError):
    """The client did not finish sending the request in time."""

    code = "REQUEST_TIMEOUT"


class ModelNotFound(RequestError):
    """No such model or version is being served."""

    code = "MODEL_NOT_FOUND"


class Unauthenticated(RequestError):
    """An admin call without the token that it takes."""

    code = "UNAUTHENTICATED"


class NoActivationMap(RequestError):
    """A class activation map of a version that has none."""

    code = "NO_ACTIVATION_MAP"


class CapacityError(GraftError):
    """The request is right and may succeed when tried again."""


class Overloaded(CapacityError):
    """It could not be answered in time; nothing was started.

    Args:
        message: what was expected and what came.
        retry_after_s: when another try may succeed.
        kept_back_s: seconds for which the front should keep this refusal back; see service/admission.py.
    """

    code = "OVERLOADED"

    def __init__(self, message: str, retry_after_s: float = 1.0, kept_back_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.kept_back_s = kept_back_s


class DeadlineExceeded(CapacityError):
    """The answer was not there in time; the work was dropped."""

    code = "DEADLINE_EXCEEDED"


class Unavailable(CapacityError):
    """Nothing can answer at present: loading, draining or restarting."""

    code = "UNAVAILABLE"


class InternalError(GraftError):
    """A fault of ours; the log knows more."""

    code = "INTERNAL"


class BrokenVersion(GraftError):
    """A version directory that must not serve: incomplete, altered, or with other answers than recorded."""

    code = "BROKEN_VERSION"


def _leaves(root: type[GraftError]) -> list[type[GraftError]]:
    below = [leaf for child in root.__subclasses__() for leaf in _leaves(child)]
    return below or [root]


BY_CODE: dict[str, type[GraftError]] = {leaf.code: leaf for leaf in _leaves(GraftError)}
"""Every leaf by its code: how an error crosses from an engine to a front."""
