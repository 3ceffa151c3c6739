"""service/image.py: the one decode gives the right pixels for every kind of file, and an error for everything else."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
from cykooz_resizer import Resizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.errors import CorruptImage, ImageError, ImageTooLarge
from service.image import ImageSpec, Region, decode, decode_picture, seen_region
from tests.pictures import BAD_FILES, COLOURS, ODD_FILES, BadFile, encode, photo, plain, png, with_orientation

# pytest makes errors of the warnings that service/image.py has switched off
pytestmark = pytest.mark.filterwarnings("ignore::Warning:PIL")
_SPEC = ImageSpec(32)


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
def test_a_bad_file_is_an_error_that_says_why(bad: BadFile) -> None:
    """Each fault has its code, and a message that says what was expected or what came."""
    with pytest.raises(ImageError) as error:
        decode(bad.data, _SPEC)
    assert error.value.code == bad.code
    assert bad.says in error.value.detail


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_unusual_file_is_decoded(name: str) -> None:
    """Every colour mode, depth and container gives S by S RGB pixels."""
    pixels = decode(ODD_FILES[name], _SPEC)
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 3),
        ("GIF", {}, 20),
    ],
)
def test_the_container_does_not_matter(kind: str, options: dict[str, object], tolerance: int) -> None:
    """One picture in every format decodes to the same pixels, as far as the format itself keeps them."""
    expected = decode(encode(photo(1), "PNG"), _SPEC).astype(int)
    assert np.abs(decode(encode(photo(1), kind, **options), _SPEC) - expected).mean() <= tolerance


def test_a_plain_picture_keeps_its_colour() -> None:
    """Red stays red: no channel is swapped, nothing is scaled."""
    for name, colour in COLOURS.items():
        assert (decode(plain(name), _SPEC) == colour).all()


def test_red_of_a_cmyk_jpeg_is_red() -> None:
    """CMYK is converted, inverted as Adobe's are or not."""
    red = decode(encode(Image.new("CMYK", (64, 64), (0, 255, 255, 0))), _SPEC).mean(axis=(0, 1))
    assert red[0] > 200
    assert red[1:].max() < 60


def test_grey_has_three_equal_channels() -> None:
    """A grey picture becomes RGB without a tint."""
    pixels = decode(encode(photo(2).convert("L"), "PNG"), _SPEC)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert pixels.std() > 5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode: str) -> None:
    """Where a picture is transparent it is white, whatever colour hides beneath."""
    layer = Image.new("RGBA", (64, 64), (10, 10, 10, 255))
    layer.paste((10, 10, 10, 0), (0, 0, 32, 64))
    if mode == "P":
        indexed = Image.new("P", (64, 64), 1)
        indexed.putpalette([200, 0, 0, 10, 10, 10])
        indexed.paste(0, (0, 0, 32, 64))
        data = encode(indexed, "PNG", transparency=0)
    else:
        data = encode(layer.convert(mode), "PNG")
    pixels = decode(data, _SPEC)
    assert (pixels[:, :14] == 255).all()
    assert (pixels[:, 18:] == 10).all()


def test_half_transparent_is_half_white() -> None:
    """Alpha mixes; it is not cut off at a threshold."""
    pixels = decode(encode(Image.new("RGBA", (40, 40), (0, 0, 0, 128)), "PNG"), _SPEC)
    assert np.abs(pixels.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF, big-endian"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    """A ramp from black to white stays one: its darkest 1/256 is not all that is left below white."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(64, axis=0)
    data = encode(Image.fromarray(ramp), kind) if "," not in kind else _big_endian_tiff(ramp)
    row = decode(data, ImageSpec(64))[0, :, 0].astype(int)
    assert np.abs(row - np.linspace(0, 255, 64)).max() <= 1


def _big_endian_tiff(values: np.ndarray) -> bytes:
    """An uncompressed 16-bit grey TIFF in Motorola's byte order, as scanners and microscopes write them."""
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 0), (277, 1), (278, height)]
    tags.append((279, values.nbytes))
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        number.to_bytes(2, "big") + b"\0\4\0\0\0\1" + (start if number == 273 else value).to_bytes(4, "big")
        for number, value in tags
    )
    header = b"MM\0*\0\0\0\x08" + len(tags).to_bytes(2, "big")
    return header + entries + bytes(4) + values.astype(">u2").tobytes()


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 65535), (-1000, 1000), (0, 10**9)])
def test_32_bit_grey_uses_the_whole_range(low: int, high: int) -> None:
    """32-bit integers: what fits 8 or 16 bits is read as that; anything else is stretched."""
    ramp = np.linspace(low, high, 64).astype(np.int32)[None].repeat(64, axis=0)
    row = decode(encode(Image.fromarray(ramp), "TIFF"), ImageSpec(64))[0, :, 0].astype(int)
    assert np.abs(row - np.linspace(0, 255, 64)).max() <= 1


def test_grey_that_is_not_a_number_is_damage() -> None:
    """A float picture with NaN or infinity in it has no white to be scaled to."""
    values = np.full((20, 20), 0.5, np.float32)
    values[3, 3] = np.nan
    with pytest.raises(CorruptImage):
        decode(encode(Image.fromarray(values), "TIFF"), _SPEC)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_picture(kind: str, orientation: int) -> None:
    """A picture that a camera stored turned or mirrored comes out as the upright one does."""
    quarters = Image.new("RGB", (64, 96))
    for number, colour in enumerate(COLOURS.values()):
        quarters.paste(colour, (32 * (number % 2), 48 * (number // 2), 32 * (number % 2) + 32, 48 * (number // 2) + 48))
    # the inverse of what the tag tells a viewer to do
    stored = {
        1: quarters,
        2: quarters.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: quarters.transpose(Image.Transpose.ROTATE_180),
        4: quarters.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: quarters.transpose(Image.Transpose.TRANSPOSE),
        6: quarters.transpose(Image.Transpose.ROTATE_90),
        7: quarters.transpose(Image.Transpose.TRANSVERSE),
        8: quarters.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    seen = decode(with_orientation(stored, orientation, kind), _SPEC).astype(int)
    for number, colour in enumerate(COLOURS.values()):
        corner = seen[16 * (number // 2) + 8, 16 * (number % 2) + 8]
        assert np.abs(corner - colour).max() <= 12, f"quarter {number}"


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    """A nonsensical tag is ignored."""
    assert np.array_equal(decode(with_orientation(photo(1), orientation), _SPEC), decode(ODD_FREE, _SPEC))


ODD_FREE = with_orientation(photo(1), 1)


def test_the_first_frame_of_an_animation_counts() -> None:
    """What follows the first frame changes nothing."""
    first, second = Image.new("RGB", (40, 40), COLOURS["red"]), Image.new("RGB", (40, 40), COLOURS["blue"])
    for kind in ("GIF", "WEBP", "TIFF"):
        pixels = decode(encode(first, kind, save_all=True, append_images=[second]), _SPEC)
        assert np.abs(pixels[16, 16].astype(int) - COLOURS["red"]).max() < 12


def test_pixels_are_limited_by_the_header(monkeypatch) -> None:
    """Too large is said before anything is decoded; the limit itself is allowed."""
    allowed = encode(Image.new("L", (100, 80)), "PNG")
    assert decode(allowed, _SPEC, max_pixels=8000).shape == (32, 32, 3)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ImageTooLarge, match="expected at most 7999 pixels, got 100 x 80 = 8000"):
        decode(allowed, _SPEC, max_pixels=7999)
    with pytest.raises(ImageTooLarge, match="got 30000 x 30000 = 900000000"):
        decode(png(30000, 30000), _SPEC)


def test_scans_of_a_jpeg_are_limited() -> None:
    """Each goes over all pixels, in a few bytes: a small file could hold up an engine for minutes."""
    written = encode(Image.new("RGB", (64, 64), COLOURS["red"]), "JPEG", progressive=True)
    last, end = written.rindex(b"\xff\xda"), written.rindex(b"\xff\xd9")
    assert written.count(b"\xff\xda") > 1
    many = written[:last] + 200 * written[last:end] + written[end:]
    tables = (b"", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xfe\x00\x04..\xff\xd9")  # decoders go on behind their end
    for before in tables:
        with pytest.raises(CorruptImage, match="at most 100 scans"):
            decode(before + many, _SPEC)
        assert decode(before + written, _SPEC).shape == (32, 32, 3)


def test_what_only_looks_like_scans_does_not_count() -> None:
    """A comment, or the film that a phone writes behind the picture."""
    picture = Image.new("RGB", (64, 64), COLOURS["red"])
    plain = encode(picture, "JPEG")
    for same in (encode(picture, "JPEG", comment=200 * b"\xff\xda"), plain + 200 * b"\xff\xda"):
        np.testing.assert_array_equal(decode(same, _SPEC), decode(plain, _SPEC))


_JPEG, _PNG = encode(photo(8)), encode(photo(8), "PNG")
_GIF, _BEFORE_IMAGE = encode(photo(8), "GIF"), 13 + 3 * 256
assert _GIF[_BEFORE_IMAGE:][:1] == b","


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def _chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))


def _jpeg(before: bytes) -> bytes:
    return _JPEG[:2] + before + _JPEG[2:]


def _png(before: bytes = b"", behind: bytes = b"", data_bytes: int = 1 << 13) -> bytes:
    """`_PNG` with chunks before and behind its pixels, which are in chunks of so many bytes."""
    start, end = _PNG.index(b"IDAT") - 4, len(_PNG) - 12
    data = _PNG[start + 8 : end - 4]
    parts = [_chunk(b"IDAT", data[at : at + data_bytes]) for at in range(0, len(data), data_bytes)]
    return _PNG[:start] + before + b"".join(parts) + behind + _PNG[end:]


def _gif(before: bytes) -> bytes:
    return _GIF[:_BEFORE_IMAGE] + before + _GIF[_BEFORE_IMAGE:]


_ICC = b"a\0\0" + zlib.compress(bytes(1 << 20))
_ENDLESS = {
    "jpeg segments": _jpeg(70_000 * _segment(0xE0, b"")),
    "jpeg comments": _jpeg(70_000 * _segment(0xFE, b"")),
    "jpeg pictures in pictures": _jpeg(100_000 * b"\xff\xd8"),
    "jpeg padding": _jpeg(200_000 * b"\xff"),
    "jpeg noughts": _JPEG[:20] + bytes(200_000) + _JPEG[20:],
    "png chunks": _png(before=110_000 * _chunk(b"abCd")),
    "png chunks behind the pixels": _png(behind=110_000 * _chunk(b"abCd")),
    "png without a byte of its pixels": _png(before=110_000 * _chunk(b"IDAT")),
    "gif comment": _gif(b"!\xfe" + 100_000 * b"\x01a" + b"\0"),
    "gif comments": _gif(100_000 * b"!\xfe\0"),
    "gif noughts": _gif(bytes(200_000)),
}
_COSTLY = {
    "jpeg exif": _jpeg(17 * _segment(0xE1, b"Exif\0\0" + bytes(10))),
    "png profiles": _png(before=17 * _chunk(b"iCCP", _ICC)),
}
_LAVISH = {
    "jpeg exif": (_jpeg(16 * _segment(0xE1, b"Exif\0\0" + bytes(60_000))), _JPEG),
    "jpeg profile": (encode(photo(8), icc_profile=bytes(2 << 20)), _JPEG),
    "jpeg xmp": (_jpeg(50 * _segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000))), _JPEG),
    "jpeg photoshop": (_jpeg(50 * _segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04" + bytes(60_000))), _JPEG),
    "jpeg padding": (_jpeg(10_000 * b"\xff"), _JPEG),
    "png texts": (_png(before=5_000 * _chunk(b"tEXt", b"Comment\0a")), _PNG),
    "png texts behind the pixels": (_png(behind=5_000 * _chunk(b"tEXt", b"Comment\0a")), _PNG),
    "png profile": (encode(photo(8), "PNG", icc_profile=bytes(1 << 19)), _PNG),
    "png in single bytes": (_png(data_bytes=1), _PNG),
    # as Adobe's programs write it: not in blocks, so that decoders take letters for lengths, with a slope at its end
    "gif xmp": (_gif(b"!\xff\x0bXMP DataXMP" + 2_000_000 * b"<" + b"\x01" + bytes(range(255, -1, -1)) + b"\0"), _GIF),
}


@pytest.mark.parametrize("name", _ENDLESS)
def test_a_file_in_endless_pieces_is_refused(name: str) -> None:
    """Pillow goes through a header in Python: some megabytes of empty segments would hold up an engine for long."""
    with pytest.raises(CorruptImage, match="far more segments, chunks or blocks than an image has"):
        decode(_ENDLESS[name], _SPEC)


@pytest.mark.parametrize("name", _COSTLY)
def test_what_costs_more_than_its_bytes_is_limited(name: str) -> None:
    """Exif in many segments is copied again for each; a profile of a kilobyte becomes a megabyte."""
    for see in (decode, seen_region):
        with pytest.raises(CorruptImage, match="at most 16 Exif segments or colour profiles"):
            see(_COSTLY[name], _SPEC)


@pytest.mark.parametrize("name", _LAVISH)
def test_what_programs_write_around_a_picture_changes_nothing(name: str) -> None:
    """Large metadata, in as many pieces as it takes, is no fault."""
    lavish, same = _LAVISH[name]
    np.testing.assert_array_equal(decode(lavish, _SPEC), decode(same, _SPEC))


def test_a_large_png_in_small_chunks_is_decoded() -> None:
    """32 MiB of pixels in chunks of 8 KiB, as libpng writes them."""
    noise = np.random.default_rng(1).integers(0, 256, (3300, 3300, 3), np.uint8)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in noise), 0)
    chunks = b"".join(_chunk(b"IDAT", data[at : at + 8192]) for at in range(0, len(data), 8192))
    header = _chunk(b"IHDR", struct.pack(">LLBBBBB", 3300, 3300, 8, 2, 0, 0, 0))
    file = b"\x89PNG\r\n\x1a\n" + header + chunks + _chunk(b"IEND")
    assert len(file) > 31 << 20
    expected = Image.fromarray(noise).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(file, ImageSpec(32, decode_version=1)), np.asarray(expected))


def test_markers_behind_a_scan_are_limited() -> None:
    """Who counts scans is not to be held up, either."""
    with pytest.raises(CorruptImage, match="at most 100000 markers"):
        decode(_JPEG[:-2] + 110_000 * b"\xff\xd8" + 101 * b"\xff\xda", _SPEC)


@pytest.mark.parametrize("big", [False, True])
def test_strips_of_a_tiff_are_limited(big: bool) -> None:
    """Each may be one and the same byte: a small picture could hold up an engine for long."""
    many = 1 << 19
    for count in (many, many + 1):
        file = _tiff_of_strips(count, big)
        if count > many:
            with pytest.raises(CorruptImage, match=f"at most {many} strips or tiles, got {count}"):
                decode(file, _SPEC)
        else:
            assert seen_region(file, _SPEC) == Region(0, 0, 1, 20)


def _tiff_of_strips(count: int, big: bool) -> bytes:
    tags = [(256, 1), (257, 20), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1)]
    start = 16 + 8 + 20 * len(tags) + 8
    number, kind, head = (
        ("Q", 16, b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(tags)))
        if big
        else (
            "L",
            4,
            b"II*\0" + struct.pack("<LH", 8, len(tags)),
        )
    )
    entries = b"".join(
        struct.pack("<HH2" + number, tag, kind, count if tag == 273 else 1, start if tag == 273 else value)
        for tag, value in tags
    )
    return (head + entries).ljust(start, b"\0") + count * struct.pack("<" + number, 1)


def test_squash_keeps_everything_and_crop_the_middle() -> None:
    """A wide picture with red ends: squashed they stay, cropped they are gone."""
    wide = Image.new("RGB", (120, 40), COLOURS["blue"])
    wide.paste(COLOURS["red"], (0, 0, 35, 40))
    wide.paste(COLOURS["red"], (85, 0, 120, 40))
    data = encode(wide, "PNG")
    squashed, cropped = decode(data, ImageSpec(40, "squash")), decode(data, ImageSpec(40, "crop"))
    assert squashed[20, 3].tolist() == squashed[20, 36].tolist() == list(COLOURS["red"])
    assert (cropped == COLOURS["blue"]).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_seen_region_is_in_upright_pixels(kind: str, orientation: int) -> None:
    """All of the upright picture by squash, its middle square by crop, whatever the container and the orientation."""
    file = with_orientation(photo(1, (97, 64)), orientation, kind)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert seen_region(file, ImageSpec(32)) == Region(0, 0, upright.width, upright.height)
    left, top = (16.5, 0) if upright.width > upright.height else (0, 16.5)
    assert seen_region(file, ImageSpec(32, "crop")) == Region(left, top, 64, 64)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "box"])
def test_every_filter_averages_what_it_leaves_out(resample: str) -> None:
    """A fine chessboard becomes even grey, not a pattern of the squares that happened to be hit."""
    board = Image.fromarray((np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8))
    pixels = decode(encode(board, "PNG"), ImageSpec(32, resample=resample))
    assert np.abs(pixels[4:-4, 4:-4].astype(int) - 127).max() <= 8


def test_filters_differ() -> None:
    """Each name is a filter of its own."""
    seen = {
        decode(encode(photo(5), "PNG"), ImageSpec(32, resample=one)).tobytes()
        for one in ("bilinear", "bicubic", "lanczos", "box")
    }
    assert len(seen) == 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_is_decoded_like_its_small_self(kind: str) -> None:
    """JPEG's scaled decoding is a shortcut for large pictures, not another picture."""
    picture = photo(4, (1600, 1200))
    smooth = picture.resize((1600, 1200), Image.Resampling.BILINEAR)
    expected = np.asarray(smooth.resize((32, 32), Image.Resampling.BILINEAR), int)
    assert np.abs(decode(encode(smooth, kind), _SPEC) - expected).mean() < 3


def test_scaled_decoding_is_used(monkeypatch) -> None:
    """A JPEG at least twice too large is not decoded at its full size: that is what makes phone photos fast."""
    data, decoded = encode(photo(4, (1600, 1200))), []
    original = Resizer.resize_pil

    def resize_pil(self, whole, *others):
        decoded.append(whole.size)
        return original(self, whole, *others)

    monkeypatch.setattr(Resizer, "resize_pil", resize_pil)
    decode(data, ImageSpec(100))
    assert decoded == [(200, 150)]


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("size", [(20, 12), (32, 32), (100, 75), (301, 199), (31, 1000), (4500, 3001)])
def test_the_fast_resizer_does_what_pillow_does(size: tuple[int, int], resize: str) -> None:
    """Of any size, also one that Pillow keeps in several blocks of memory."""
    data = encode(photo(6, size), "PNG")
    before = decode(data, ImageSpec(32, resize, decode_version=1)).astype(int)
    difference = np.abs(decode(data, ImageSpec(32, resize)) - before)
    assert difference.max() <= 2
    assert difference.mean() < 0.25


def test_what_was_trained_before_the_fast_resizer_is_decoded_as_it_was() -> None:
    """A version that was published with decode version 1 has goldens of that."""
    picture = photo(6, (100, 75))
    expected = picture.resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(decode(encode(picture, "PNG"), ImageSpec(32, decode_version=1)), np.asarray(expected))


@pytest.mark.parametrize(
    ("size", "quick"),
    [((1 << 14, 2), 1), ((1 + (1 << 14), 2), 0), ((2, 1 + (1 << 14)), 0), ((3_000_000, 1), 0), ((1, 3_000_000), 0)],
)
def test_a_long_picture_is_not_for_the_fast_resizer(size: tuple[int, int], quick: int) -> None:
    """It would take many times the picture's pixels in memory, and end the process where there is not so much."""
    data = encode(Image.new("RGB", size, (10, 200, 30)), "PNG")
    with patch.object(Resizer, "resize_pil", autospec=True, side_effect=Resizer.resize_pil) as resized:
        assert np.abs(decode(data, _SPEC) - np.array([10, 200, 30])).max() <= 1
    assert resized.call_count == quick


def test_threads_decode_side_by_side() -> None:
    """As the trainer's do: each has a resizer of its own."""
    files = [encode(photo(number, (300 + 10 * number, 200))) for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        assert np.array_equal(
            list(threads.map(partial(decode, spec=_SPEC), files)), [decode(one, _SPEC) for one in files]
        )


def test_the_picture_is_the_pixels() -> None:
    """`decode_picture` and `decode` are one decode."""
    assert np.array_equal(np.asarray(decode_picture(ODD_FREE, _SPEC)), decode(ODD_FREE, _SPEC))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((7,), "side_px must be 8-4096. Received: 7"),
        ((5000,), "side_px must be 8-4096. Received: 5000"),
        ((32, "stretch"), "resize must be one of squash, crop. Received: 'stretch'"),
        ((32, "crop", "nearest"), "resample must be one of bilinear, bicubic, lanczos, box. Received: 'nearest'"),
        ((32, "crop", "box", 3), "decode_version must be 1-2. Received: 3"),
        ((32, "crop", "box", 0), "decode_version must be 1-2. Received: 0"),
    ],
)
def test_a_wrong_spec_is_refused(arguments: tuple[object, ...], says: str) -> None:
    """A spec that cannot be followed does not exist."""
    with pytest.raises(ValueError, match="Received") as error:
        ImageSpec(*arguments)
    assert str(error.value) == says


_FILES = [*ODD_FILES.values(), encode(photo(6)), encode(photo(6), "PNG")]
_STARTS = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\xff\0\0\0WEBPVP8 ",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"BM",
]


def _gives_pixels_or_an_image_error(data: bytes) -> None:
    try:
        pixels = decode(data, ImageSpec(8), max_pixels=1_000_000)
    except ImageError as refused:
        said = refused.detail
    else:
        said = "pixels"
        assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert said
    assert "/" not in said


@settings(max_examples=300)
@given(st.sampled_from(_STARTS), st.binary(max_size=200))
@example(b"II*\0", b"\x08\0\0\0\0\0")
def test_any_bytes_give_pixels_or_an_image_error(start: bytes, rest: bytes) -> None:
    """Noise, also noise that begins like an image, never raises anything else."""
    _gives_pixels_or_an_image_error(start + rest)


@settings(max_examples=600)
@given(
    st.sampled_from(_FILES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    st.none() | st.integers(0, 3000),
)
def test_a_damaged_image_gives_pixels_or_an_image_error(
    file: bytes, changes: list[tuple[int, int]], end: int | None
) -> None:
    """Real files with bytes changed where their headers are, or cut, or both, never raise anything else."""
    damaged = bytearray(file)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    _gives_pixels_or_an_image_error(bytes(damaged[:end]))


def _run_length_bmp(width: int, height: int) -> bytes:
    """All of it black, in no more bytes than its header."""
    body = b"\x00\x01"
    start = 14 + 40 + 1024
    head = struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return head + bytes(1024) + body


def test_a_bmp_of_run_lengths_has_a_limit_of_its_own() -> None:
    """Pillow decodes it in Python, so a file of a kilobyte could hold an engine for ten seconds."""
    with pytest.raises(ImageTooLarge, match="16000000 pixels of a compressed BMP, got 5000 x 4000"):
        decode(_run_length_bmp(5000, 4000), ImageSpec(32))
    with pytest.raises(CorruptImage):  # decoded, and found to end too soon
        decode(_run_length_bmp(50, 40), ImageSpec(32))
