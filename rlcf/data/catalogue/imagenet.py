"""The ImageNet family."""

from rlcf.data.entries import IMAGE_ROOTS, Download, Entry, Expected, hugging_face

TTA = "dataset/tta_data"


def _imagenet(
    name: str, title: str, licence: str, page: str, folders: tuple[str, ...], expected: Expected, **more: object
) -> Entry:
    home = f"{TTA}/{folders[0]}"
    settings = {"roots": IMAGE_ROOTS, "use": "classification", **more}
    return Entry(name, "class folders", title, licence=licence, page=page, folders=folders, home=home,
                 expected=expected, **settings)  # type: ignore[arg-type]  # fmt: skip


IMAGENET = (
    _imagenet(
        "I", "ImageNet, validation", "non-commercial research (terms of access)", "https://image-net.org/download.php",
        ("ImageNet/val", "imagenet/images/val"), Expected(50_000, 1000, 50),
        about_bytes=6_744_924_160,
        steps=(
            "make an account at image-net.org, agree to the terms, and download ILSVRC2012_img_val.tar "
            "(6,744,924,160 bytes, md5 29b22e2961454d5413ddabcf34fc5622)",
            "unpack it into a folder of its own: mkdir FLAT && tar -xf ILSVRC2012_img_val.tar -C FLAT",
            "get its labels: {command} get imagenet-labels{flags}",
            "sort it into class folders, by links: {command} convert imagenet-val FLAT{flags}",
        ),
    ),
    _imagenet(
        "A", "ImageNet-A", "MIT", "https://github.com/hendrycks/natural-adv-examples",
        ("imagenet-a", "imagenet-adversarial/imagenet-a"), Expected(7_500, 200),
        downloads=(Download(
            ("https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",), "",
            "sha256:3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e", 687_552_512, unpack=True,
        ),),
    ),
    _imagenet(
        "V", "ImageNet-V2, matched frequency", "MIT", "https://github.com/modestyachts/ImageNetV2",
        (
            "imagenetv2-matched-frequency-format-val", "imagenetv2/imagenetv2-matched-frequency-format-val",
            "imagenetv2",
        ),
        Expected(10_000, 1000, 10),
        downloads=(Download(
            hugging_face("datasets/vaishaal/ImageNetV2", "imagenetv2-matched-frequency.tar.gz"), "",
            "sha256:f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c", 1_264_079_360, unpack=True,
        ),),
        dead=("https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz (403)",),
    ),
    _imagenet(
        "R", "ImageNet-R", "MIT", "https://github.com/hendrycks/imagenet-r",
        ("imagenet-r", "imagenet-rendition/imagenet-r"), Expected(30_000, 200),
        downloads=(Download(
            ("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",), "",
            "sha256:18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52", 2_191_079_936, unpack=True,
        ),),
    ),
    _imagenet(
        "K", "ImageNet-Sketch", "MIT", "https://github.com/HaohanWang/ImageNet-Sketch",
        ("ImageNet-Sketch", "imagenet-sketch/images"), Expected(50_889, 1000),
        about_bytes=7_593_573_012,
        downloads=(Download(
            hugging_face("datasets/songweig/imagenet_sketch", "data/ImageNet-Sketch.zip"), "", unpack=True,
        ),),
        steps=(
            "the authors' copy is on Google Drive and Kaggle, which want an account (links on its page); unpack it so "
            "that {home} holds the 1000 folders n........",
        ),
    ),
    _imagenet(
        "C", "ImageNet-C", "CC BY 4.0", "https://zenodo.org/records/2235448",
        ("imagenet-c", "ImageNet-C"), Expected(50_000, 1000, 50),
        about_bytes=21_000_000_000,
        steps=(
            "the corruptions come in five archives; get the one that holds yours: {command} get C-noise{flags} "
            "(or C-blur, C-weather, C-digital, C-extra)",
        ),
    ),
)  # fmt: skip


def _corruptions(name: str, md5: str, about: int, held: str) -> Entry:
    urls = (f"https://zenodo.org/records/2235448/files/{name}.tar",)
    return Entry(
        f"C-{name}", "files", f"ImageNet-C, {name}", f"dataset C: {held.replace(' ', ', ')}", "CC BY 4.0",
        "https://zenodo.org/records/2235448", ("imagenet-c", "ImageNet-C"), f"{TTA}/imagenet-c",
        IMAGE_ROOTS, tuple(held.split()), about_bytes=about,
        downloads=(Download(urls, "", f"md5:{md5}", unpack=True),),
    )  # fmt: skip


CORRUPTIONS = (
    _corruptions(
        "noise", "e80562d7f6c3f8834afb1ecf27252745", 21_000_000_000, "gaussian_noise shot_noise impulse_noise"
    ),
    _corruptions(
        "blur", "2d8e81fdd8e07fef67b9334fa635e45c", 7_000_000_000, "defocus_blur glass_blur motion_blur zoom_blur"
    ),
    _corruptions("weather", "33ffea4db4d93fe4a428c40a6ce0c25d", 12_000_000_000, "frost snow fog brightness"),
    _corruptions(
        "digital",
        "89157860d7b10d5797849337ca2e5c03",
        7_000_000_000,
        "contrast elastic_transform pixelate jpeg_compression",
    ),
    _corruptions(
        "extra", "d492dfba5fc162d8ec2c3cd8ee672984", 15_000_000_000, "speckle_noise spatter gaussian_blur saturate"
    ),
)

LABELS_FILE = "imagenet_2012_validation_synset_labels.txt"
LABELS = Entry(
    "imagenet-labels", "files", "ImageNet, labels of the validation images", "sorting a flat folder of them",
    "Apache-2.0", "https://github.com/tensorflow/models", ("ImageNet",), f"{TTA}/ImageNet",
    IMAGE_ROOTS, (LABELS_FILE,), about_bytes=500_000,
    downloads=(Download(
        (f"https://raw.githubusercontent.com/tensorflow/models/master/research/slim/datasets/{LABELS_FILE}",),
        LABELS_FILE,
    ),),
)  # fmt: skip
