"""Any common image becomes upright RGB; what is none, broken, hostile or somebody else's is refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from caption_models import png, sha
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedders.captions.captioner import CaptionerError
from embedders.captions.images import ImageLimits, ImageRefused, decode_image, require_pillow
from materialize.captions.sources import FolderImages, TableImages, WantedImage


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(mode="RGB", size=(24, 16)):
    """Left half dark, right half bright."""
    grey = Image.new("L", size, 20)
    grey.paste(220, (size[0] // 2, 0, *size))
    return grey.convert(mode)


def sides(image):
    pixels = np.asarray(image.convert("L"), float)
    return pixels[:, 2].mean(), pixels[:, -3].mean()


def sixteen_bits():
    return Image.fromarray(np.asarray(picture("L")).astype(np.uint16) * 257)


FORMATS = {
    "png": encoded(picture(), "PNG"),
    "jpeg": encoded(picture(), "JPEG"),
    "webp": encoded(picture(), "WEBP"),
    "tiff": encoded(picture(), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(picture(), "BMP"),
    "ppm": encoded(picture(), "PPM"),
    "gif, first frame": encoded(picture("P"), "GIF", save_all=True, append_images=[Image.new("P", (24, 16))]),
    "grey": encoded(picture("L"), "PNG"),
    "one bit": encoded(picture("1"), "PNG"),
    "palette": encoded(picture("P"), "PNG"),
    "sixteen bits": encoded(sixteen_bits(), "PNG"),
    "sixteen bits in tiff": encoded(sixteen_bits(), "TIFF"),
    "fractions": encoded(Image.fromarray(np.asarray(picture("L")).astype(np.float32) / 255), "TIFF"),
    "cmyk": encoded(picture("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    image = decode_image(FORMATS[name])
    dark, bright = sides(image)
    assert image.mode == "RGB" and image.size == (24, 16)
    assert dark < 60 and bright > 190


def test_alpha_lies_on_white():
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert np.asarray(decode_image(encoded(clear, "PNG"))).min() == 255
    palette = Image.new("P", (16, 16), 3)
    palette.putpalette([level for level in range(256) for _ in "rgb"])
    assert np.asarray(decode_image(encoded(palette, "PNG", transparency=3))).min() == 255
    grey = Image.new("LA", (16, 16), (0, 128))
    assert 120 <= np.asarray(decode_image(encoded(grey, "PNG"))).mean() <= 135


def test_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    image = decode_image(encoded(picture(), "JPEG", exif=exif))
    pixels = np.asarray(image.convert("L"), float)
    assert image.size == (16, 24) and pixels[2].mean() < 60 and pixels[-3].mean() > 190
    assert decode_image(encoded(picture(), "JPEG", exif=b"Exif\x00\x00nonsense")).size == (24, 16)


def test_large_ones_are_reduced():
    big = encoded(Image.new("RGB", (3000, 1500), "red"), "JPEG")
    assert decode_image(big, ImageLimits(max_side=300)).size == (300, 150)


def bomb(width, height):
    """A PNG that says so much of itself, and holds nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    made = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"not an image at all", "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
        (FORMATS["jpeg"][:-200], "broken image"),
        (FORMATS["png"][:60], "broken image"),
        (bomb(100_000, 100_000), "more than 89,478,485 pixels"),
        (bomb(10_000, 8_948), "more than 89,478,485 pixels"),
        (encoded(Image.new("RGB", (1, 1)), "GIF"), "smaller than 8 pixels"),
        (encoded(Image.new("RGB", (20_000, 70)), "PNG"), "smaller than 8 pixels"),
        (b"\x89PNG" + b"0" * (64 << 20), "larger than 64 MiB"),
    ],
)
def test_refused(data, reason):
    with pytest.raises(ImageRefused, match=reason):
        decode_image(data)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


@pytest.mark.filterwarnings("ignore")  # what Pillow says of damaged files
@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(FORMATS)), place=st.floats(0, 1), junk=st.binary(min_size=1, max_size=24))
def test_damage_gives_an_image_or_a_reason(name, place, junk):
    data = FORMATS[name]
    start = int(place * len(data))
    try:
        image = decode_image(data[:start] + junk + data[start + len(junk) :], ImageLimits(max_pixels=1 << 20))
    except ImageRefused as refused:
        assert str(refused)
    else:
        assert image.mode == "RGB" and min(image.size) >= 8


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(CaptionerError, match=r"pinfeather\[caption\]"):
        require_pillow()


def read(source, *wanted):
    answers = []
    for reader in source.open(list(wanted)):
        try:
            answers.append(reader())
        except ImageRefused as refused:
            answers.append(str(refused))
    return answers


def test_images_in_a_folder(tmp_path):
    one, two = png(1), png(2)
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    (folder / f"{sha(one)}.png").write_bytes(one)
    (folder / "deep" / "two.png").write_bytes(two)
    (tmp_path / "secret.png").write_bytes(two)
    source = FolderImages(folder)
    wanted = [
        WantedImage(sha(one), ()),
        WantedImage(sha(two), ("missing.png", "deep/two.png")),
        WantedImage(sha(one).upper(), ("deep/two.png",)),
        WantedImage(sha(two), ("../secret.png",)),
        WantedImage(sha(two), (str(tmp_path / "secret.png"),)),
        WantedImage(sha(b"three"), ("deep/two.png",)),
        WantedImage(sha(two), ("https://example.org/two.png",)),
        WantedImage(sha(two), ("deep",)),
        WantedImage(sha(two), ("nul\0byte", "x" * 5000)),
        WantedImage("no hash", ("deep/two.png",)),
    ]
    assert read(source, *wanted) == [
        one,
        two,
        one,
        "image_uri leads out of the image folder",
        "image_uri leads out of the image folder",
        "its SHA-256 is not that of the pins table",
        "image_uri is a https address: fetching images is not done here",
        "no image file",
        "no image file",
        "image_sha256 is no SHA-256",
    ]


def test_a_row_without_bytes_is_passed_over_for_one_with_them(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    one, two = png(1), png(2)
    rows = {
        "0": [(sha(one), None), (sha(two), None), (sha(one), one), (sha(one), None), (sha(b"none"), None)],
        "1": [(sha(two).upper(), two), (sha(b"none"), None)],
    }
    for name, found in rows.items():
        keys, data = zip(*found, strict=True)
        table = pa.table({"image_sha256": keys, "bytes": pa.array(data, pa.binary())})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    wanted = [WantedImage(key, ()) for key in (sha(one), sha(two), sha(b"none"))]
    assert read(TableImages(tmp_path, tmp_path), *wanted) == [one, two, "no row in the image table"]


def test_images_in_a_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feature_repo.errors import UsageError

    data = [png(number) for number in range(40)]
    folder = tmp_path / "tables"
    folder.mkdir()
    for part in range(2):
        mine = data[part * 20 : part * 20 + 20]
        table = pa.table({"image_sha256": [sha(each) for each in mine], "bytes": pa.array(mine, pa.binary())})
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=7)
    wrong = pa.table({"image_sha256": [sha(b"x"), sha(b"y")], "bytes": pa.array([data[0], None], pa.binary())})
    pq.write_table(wrong, folder / "2.parquet")
    source = TableImages(folder, tmp_path)
    order = [39, 0, 6, 7, 13, 20, 19]
    wanted = [
        *(WantedImage(sha(data[number]), ()) for number in order),
        *(WantedImage(sha(t), ()) for t in (b"x", b"y")),
    ]
    found = read(source, *wanted, WantedImage(sha(b"nowhere"), ()))
    assert found == [
        *(data[number] for number in order),
        "its SHA-256 is not that of the pins table",
        "no row in the image table",
        "no row in the image table",
    ]
    pq.write_table(pa.table({"image_sha256": ["a"], "data": [b"b"]}), tmp_path / "bad.parquet")
    for path, text in ((tmp_path / "bad.parquet", "no column bytes"), (tmp_path / "none.parquet", "no Parquet file")):
        with pytest.raises(UsageError, match=text):
            TableImages(path, tmp_path)
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(UsageError, match="cannot be read"):
        TableImages(tmp_path / "junk.parquet", tmp_path)
