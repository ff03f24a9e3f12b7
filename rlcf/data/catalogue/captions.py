"""Datasets of images with captions."""

from rlcf.data.entries import CAPTION_ROOTS, Download, Entry, Expected

LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/datasets"
KARPATHY_MIRROR = "https://github.com/Delphboy/karpathy-splits/raw/main"
DOMAINS = {"in-domain": 417, "near-domain": 2670, "out-domain": 1413}
"""NoCaps' domains and the number of their validation images."""
NOCAPS_FILE = "nocaps_val_4500_captions.json"
NOCAPS_DOMAIN_FILES = {domain: f"nocaps_val_{count}_{domain}.json" for domain, count in DOMAINS.items()}
KARPATHY_LISTS = {
    "coco": ("coco_karpathy_test.json",),
    "flickr30k": ("flickr30k_test.json", "test.json"),
}
"""Karpathy's test sets -> names of their lists: the method's own first, then LAVIS'."""


def _anywhere(*files: str) -> tuple[str, ...]:
    """A file of a dataset's folder, or of its annotations/."""
    return tuple(path for file in files for path in (file, f"annotations/{file}"))


def _lavis(file: str, md5: str | None = None) -> Download:
    return Download((f"{LAVIS}/{file}",), file, f"md5:{md5}" if md5 else None)


def _captioned(
    name: str, title: str, use: str, licence: str, page: str, folders: tuple[str, ...], **more: object
) -> Entry:
    settings = {"roots": CAPTION_ROOTS, "kind": "captions", **more}
    return Entry(name, title=title, use=use, licence=licence, page=page, folders=folders, home=f"dataset/{folders[0]}",
                 **settings)  # type: ignore[arg-type]  # fmt: skip


_COCO = ("annotations CC BY 4.0, images: Flickr's terms", "https://cocodataset.org/#download", ("coco2014", "coco"))
_FLICKR = (
    "research and education, non-commercial; images: Flickr's terms", "https://shannon.cs.illinois.edu/DenotationGraph/",
    ("flickr30k",),
)  # fmt: skip
_LISTS_BY_HAND = (
    "where a list's address is dead: {command} get karpathy{flags}, then {command} convert karpathy dataset_%s.json"
)
CAPTIONED = (
    _captioned(
        "coco", "COCO 2014, Karpathy's test images", "retrieval and captioning", *_COCO,
        files=(_anywhere("coco_karpathy_test.json"),),
        expected=Expected(5_000, captions=25_010),
        downloads=(
            _lavis("coco_karpathy_test.json", "3ff34b0ef2db02d01c37399f6a2a6cd1"),
            Download(
                ("http://images.cocodataset.org/zips/val2014.zip",), "val2014",
                "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0", 6_645_013_297, unpack=True,
            ),
        ),
        about_bytes=6_650_000_000,
        steps=(_LISTS_BY_HAND % "coco",),
    ),
    _captioned(
        "coco-train", "COCO 2014, Karpathy's training images", "training captioners", *_COCO,
        files=(_anywhere("coco_karpathy_train.json"), ("train2014",)),
        expected=Expected(113_287, captions=566_747),
        downloads=(
            _lavis("coco_karpathy_train.json", "aa31ac474cf6250ebb81d18348a07ed8"),
            _lavis("coco_karpathy_val.json", "b273847456ef5580e33713b1f7de52a0"),
            Download(
                ("http://images.cocodataset.org/zips/val2014.zip",), "val2014",
                "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0", 6_645_013_297, unpack=True,
            ),
            Download(
                ("http://images.cocodataset.org/zips/train2014.zip",), "train2014",
                "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775", 13_510_573_713, unpack=True,
            ),
        ),
        about_bytes=20_250_000_000,
        steps=(_LISTS_BY_HAND % "coco",),
    ),
    _captioned(
        "flickr30k", "Flickr30k, Karpathy's test images", "retrieval and captioning", *_FLICKR,
        files=(_anywhere(*KARPATHY_LISTS["flickr30k"]),),
        expected=Expected(1_000, captions=5_000),
        downloads=(_lavis("flickr30k_test.json"),),
        about_bytes=4_400_000_000,
        steps=(
            "fill in the form for the images at the page above; the answer has the link of flickr30k-images.tar.gz",
            "unpack it so that {home}/flickr30k-images holds 31,783 files such as 1007129816.jpg",
            _LISTS_BY_HAND % "flickr30k",
        ),
        by_hand="flickr30k-images",
    ),
    _captioned(
        "flickr30k-train", "Flickr30k, Karpathy's training images", "training captioners", *_FLICKR,
        files=(_anywhere("flickr30k_train.json"),),
        expected=Expected(29_000, captions=145_000),
        downloads=(_lavis("flickr30k_train.json"), _lavis("flickr30k_val.json")),
        about_bytes=4_400_000_000,
        steps=("its images are those of flickr30k: {command} get flickr30k tells how",),
        by_hand="flickr30k-images",
    ),
    _captioned(
        "nocaps", "NoCaps, validation", "captioning", "images CC BY 2.0 (Open Images)", "https://nocaps.org/download",
        ("nocaps",), kind="nocaps", files=((*_anywhere(NOCAPS_FILE), *_anywhere(*NOCAPS_DOMAIN_FILES.values())),),
        images="val", expected=Expected(4_500, captions=45_000),
        downloads=(Download((f"https://nocaps.s3.amazonaws.com/{NOCAPS_FILE}",), NOCAPS_FILE),),
    ),
    _captioned(
        "karpathy", "Karpathy's raw splits of COCO and Flickr30k", "making lists of COCO and Flickr30k", "see its page",
        "https://cs.stanford.edu/people/karpathy/deepimagesent/", ("karpathy",), kind="files",
        files=("dataset_coco.json", "dataset_flickr30k.json"),
        downloads=tuple(
            Download((f"{KARPATHY_MIRROR}/{file}",), file) for file in ("dataset_coco.json", "dataset_flickr30k.json")
        ),
        dead=("https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip (404 since 2023)",),
    ),
)  # fmt: skip
