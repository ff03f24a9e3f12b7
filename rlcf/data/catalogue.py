"""The catalogue: every dataset, list and weight file that the project knows.

Sources. Sizes and sha256 of datasets: TensorFlow Datasets' lists of checksums. md5: torchvision and LAVIS. sha256 of
OpenAI's weights: they are a part of their addresses. Numbers of images: the datasets' papers, and CoOp (Zhou et al.,
IJCV 2022, table 6) for the fine-grained sets. A checksum that nobody has published is None.
"""

import difflib

from rlcf.data.entries import CAPTION_ROOTS, IMAGE_ROOTS, Download, Entry, Expected
from rlcf.errors import UserError

TTA, FINE = "dataset/tta_data", "dataset/finegrained-dataset"
RELEASE = "https://github.com/mzhaoshuai/RLCF/releases/download/0.0.1"
LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/datasets"
KARPATHY_MIRROR = "https://github.com/Delphboy/karpathy-splits/raw/main"
TRAIN_SET, FLICKR_TRAIN_SET = (
    "COCO_train_set_image_text_vitb16_v2.pkl",
    "flickr_train_set_image_text_vitb16_v2.pkl",
)
COOP = "coop_16shots_nctx4_cscFalse_ctpend_vitb16_seed1"
DOMAINS = {"in-domain": 417, "near-domain": 2670, "out-domain": 1413}
"""NoCaps' domains and the number of their validation images."""


def drive(file: str) -> tuple[str, ...]:
    """The address of a file on Google Drive."""
    return (f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t",)


def hugging_face(repository: str, file: str) -> tuple[str, ...]:
    """The address of a file on Hugging Face."""
    return (f"https://huggingface.co/{repository}/resolve/main/{file}",)


# ---- the ImageNet family ----


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
    "imagenet-labels", "files", "ImageNet, labels of the validation images", "rlcf-data convert imagenet-val",
    "Apache-2.0", "https://github.com/tensorflow/models", ("ImageNet",), f"{TTA}/ImageNet",
    IMAGE_ROOTS, (LABELS_FILE,), about_bytes=500_000,
    downloads=(Download(
        (f"https://raw.githubusercontent.com/tensorflow/models/master/research/slim/datasets/{LABELS_FILE}",),
        LABELS_FILE,
    ),),
)  # fmt: skip

# ---- the fine-grained sets, as CoOp's authors laid them out ----


def _fine(
    name: str, title: str, licence: str, page: str, folder: str, images: str, split: str, expected: Expected,
    split_id: str, *archives: Download, steps: tuple[str, ...] = (), dead: tuple[str, ...] = (),
    about_bytes: int | None = None,
) -> Entry:  # fmt: skip
    listed = (Download(drive(split_id), split),) if split_id else ()
    return Entry(
        name, "split" if split_id else "aircraft", title, "classification", licence, page, (folder,),
        f"{FINE}/{folder}", IMAGE_ROOTS, (split,), images, expected,
        (*archives, *listed), about_bytes, steps, dead,
    )  # fmt: skip


VGG = "https://www.robots.ox.ac.uk/~vgg/data"
FINE_GRAINED = (
    _fine(
        "flower102", "Oxford Flowers 102", "see its page", f"{VGG}/flowers/102/", "oxford_flowers", "jpg",
        "split_zhou_OxfordFlowers.json", Expected(2_463, 102), "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
        Download(
            (f"{VGG}/flowers/102/102flowers.tgz",), "jpg",
            "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246", 344_862_509, unpack=True,
        ),
    ),
    _fine(
        "dtd", "Describable Textures", "research", f"{VGG}/dtd/", "dtd", "images",
        "split_zhou_DescribableTextures.json", Expected(1_692, 47), "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
        Download(
            (f"{VGG}/dtd/download/dtd-r1.0.1.tar.gz",), "",
            "sha256:e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205", 625_239_812, unpack=True,
        ),
    ),
    _fine(
        "pets", "Oxford-IIIT Pets", "CC BY-SA 4.0", f"{VGG}/pets/", "oxford_pets", "images",
        "split_zhou_OxfordPets.json", Expected(3_669, 37), "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
        Download(
            ("https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz", f"{VGG}/pets/data/images.tar.gz"), "images",
            "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d", 791_918_971, unpack=True,
        ),
    ),
    _fine(
        "cars", "Stanford Cars", "non-commercial research", "https://github.com/pytorch/vision/issues/7545",
        "stanford_cars", "", "split_zhou_StanfordCars.json", Expected(8_041, 196),
        "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
        steps=(
            "the images' only known copies are on Kaggle, which wants an account: jessicali9530/stanford-cars-dataset",
            "unpack the test images so that {home}/cars_test holds 00001.jpg to 08041.jpg",
        ),
        dead=("https://ai.stanford.edu/~jkrause/cars/ and http://ai.stanford.edu/~jkrause/car196/ (404)",),
        about_bytes=977_350_468,
    ),
    _fine(
        "ucf101", "UCF101, middle frames", "see its page", "https://www.crcv.ucf.edu/data/UCF101.php", "ucf101",
        "UCF-101-midframes", "split_zhou_UCF101.json", Expected(3_783, 101), "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
        Download(drive("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O"), "UCF-101-midframes", unpack=True),
    ),
    _fine(
        "caltech101", "Caltech 101", "CC BY 4.0", "https://data.caltech.edu/records/mzrjq-6wc02", "caltech-101",
        "101_ObjectCategories", "split_zhou_Caltech101.json", Expected(2_465, 100),
        "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
        Download(
            ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip?download=1",),
            "101_ObjectCategories",
            "sha256:331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91", 137_414_764, unpack=True,
            inner="101_ObjectCategories.tar.gz",
        ),
        dead=("http://www.vision.caltech.edu/Image_Datasets/Caltech101/101_ObjectCategories.tar.gz",),
    ),
    _fine(
        "food101", "Food-101", "see its page", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        "food-101", "images", "split_zhou_Food101.json", Expected(30_300, 101), "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
        Download(
            ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",), "",
            "sha256:d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4", 4_996_278_331, unpack=True,
        ),
    ),
    _fine(
        "sun397", "SUN397", "see its page", "https://vision.princeton.edu/projects/2010/SUN/", "sun397", "SUN397",
        "split_zhou_SUN397.json", Expected(19_850, 397), "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
        Download(
            ("https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",), "SUN397",
            "sha256:f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec", 39_077_296_924, unpack=True,
        ),
    ),
    _fine(
        "aircraft", "FGVC-Aircraft", "non-commercial research", f"{VGG}/fgvc-aircraft/", "fgvc_aircraft", "images",
        "variants.txt", Expected(3_333, 100), "",
        Download((f"{VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",), "", unpack=True, inner="data"),
        about_bytes=2_750_000_000,
    ),
    _fine(
        "eurosat", "EuroSAT, RGB", "MIT", "https://github.com/phelber/EuroSAT", "eurosat", "2750",
        "split_zhou_EuroSAT.json", Expected(8_100, 10), "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
        Download(
            hugging_face("datasets/torchgeo/eurosat", "EuroSAT.zip"), "2750",
            "md5:c8fa014336c82ac7804f0398fcb19387", 94_280_567, unpack=True,
        ),
        dead=("http://madm.dfki.de/files/sentinel/EuroSAT.zip",),
    ),
)  # fmt: skip

# ---- images with captions ----

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
    ),
    _captioned(
        "flickr30k-train", "Flickr30k, Karpathy's training images", "training captioners", *_FLICKR,
        files=(_anywhere("flickr30k_train.json"),),
        expected=Expected(29_000, captions=145_000),
        downloads=(_lavis("flickr30k_train.json"), _lavis("flickr30k_val.json")),
        about_bytes=4_400_000_000,
        steps=("its images are those of flickr30k: {command} get flickr30k tells how",),
    ),
    _captioned(
        "nocaps", "NoCaps, validation", "captioning", "images CC BY 2.0 (Open Images)", "https://nocaps.org/download",
        ("nocaps",), kind="nocaps", files=((*_anywhere(NOCAPS_FILE), *_anywhere(*NOCAPS_DOMAIN_FILES.values())),),
        images="val", expected=Expected(4_500, captions=45_000),
        downloads=(Download((f"https://nocaps.s3.amazonaws.com/{NOCAPS_FILE}",), NOCAPS_FILE),),
    ),
    _captioned(
        "karpathy", "Karpathy's raw splits of COCO and Flickr30k", "rlcf-data convert karpathy", "see its page",
        "https://cs.stanford.edu/people/karpathy/deepimagesent/", ("karpathy",), kind="files",
        files=("dataset_coco.json", "dataset_flickr30k.json"),
        downloads=tuple(
            Download((f"{KARPATHY_MIRROR}/{file}",), file) for file in ("dataset_coco.json", "dataset_flickr30k.json")
        ),
        dead=("https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip (404 since 2023)",),
    ),
)  # fmt: skip

# ---- weights, contexts, features ----

OPENAI_FILES = {
    "RN50": ("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", 256),
    "RN101": ("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599", 292),
    "RN50x4": ("RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd", 422),
    "RN50x16": ("RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa", 661),
    "RN50x64": ("RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c", 1353),
    "ViT-B/32": ("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", 354),
    "ViT-B/16": ("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", 351),
    "ViT-L/14": ("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", 933),
    "ViT-L/14@336px": ("ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02", 934),
}
"""OpenAI's CLIPs: file, its sha256, and about how many millions of bytes it has."""
_CLIP_USE = {
    "ViT-B/16": "student of the published experiments",
    "ViT-L/14": "reward model of the published experiments",
    "ViT-L/14@336px": "reward model, RLCF-S and RLCF-S-M",
    "RN50x64": "reward model, RLCF-S and RLCF-S-M",
    "ViT-B/32": "CLIPScore",
}
CLIPS = tuple(
    Entry(
        name, "clip", f"CLIP {name}, OpenAI's weights", _CLIP_USE.get(name, "student or reward model"), "MIT",
        "https://github.com/openai/CLIP", (file,), "pretrained/clip", about_bytes=about * 1_000_000,
        downloads=(Download(
            (f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}",), file, f"sha256:{sha256}",
        ),),
        steps=("where that address is dead: without the file the runs take open_clip's copy on Hugging Face",),
    )
    for name, (file, sha256, about) in OPENAI_FILES.items()
)  # fmt: skip
_OPT_FILES = (
    "config.json", "generation_config.json", "merges.txt", "pytorch_model.bin", "special_tokens_map.json",
    "tokenizer_config.json", "vocab.json",
)  # fmt: skip


def _published(name: str, title: str, use: str, folder: str, file: str, archive: str) -> Entry:
    """A file of the authors' release."""
    return Entry(
        name, "files", title, use, "see its page", "https://github.com/mzhaoshuai/RLCF", (folder,), folder,
        files=(file,),
        downloads=(Download((f"{RELEASE}/{archive}",), "", unpack=True),),
    )  # fmt: skip


OTHERS = (
    Entry(
        "opt-125m", "files", "OPT-125m, Meta's weights", "language model of the captioners",
        "OPT's licence, non-commercial", "https://huggingface.co/facebook/opt-125m", ("pretrained/opt-125m",),
        "pretrained/opt-125m", files=("config.json", ("pytorch_model.bin", "model.safetensors")),
        downloads=tuple(Download(hugging_face("facebook/opt-125m", file), file) for file in _OPT_FILES),
        about_bytes=252_000_000,
    ),
    _published(
        "clipcap", "ClipCap trained on COCO, the authors'", "captioner of tta_clipcap_*.sh and eval_*.sh",
        "output/clipcap_opt125m_transformer_coco_01", "ckpt-latest.pt", "clipcap_opt125m_transformer_coco_01.zip",
    ),
    _published(
        "capdec", "CapDec trained on COCO, the authors'", "captioner of tta_capdec_*.sh and eval_*.sh",
        "output/capdec_opt125m_transformer_coco_01", "ckpt-latest.pt", "capdec_opt125m_transformer_coco_01.zip",
    ),
    _published(
        "coco-features", "CLIP features of COCO's training set", "train_*_coco.sh", "dataset/coco2014", TRAIN_SET,
        TRAIN_SET.replace(".pkl", ".zip"),
    ),
    _published(
        "flickr-features", "CLIP features of Flickr30k's training set", "train_*_flickr.sh", "dataset/flickr30k",
        FLICKR_TRAIN_SET, FLICKR_TRAIN_SET.replace(".pkl", ".zip"),
    ),
    Entry(
        "coop", "files", "CoOp's context for ViT-B/16, 16 shots, seed 1", "rlcf-prompt.sh 0 coop", "MIT",
        "https://github.com/KaiyangZhou/CoOp", (f"pretrained/coop/{COOP}",), f"pretrained/coop/{COOP}",
        files=("prompt_learner",),
        steps=(
            "download the archive of all of CoOp's contexts in a browser: "
            "https://drive.google.com/file/d/18ypxfd82RR0pizc5MM1ZWDYDk4j0BtPF/view",
            "of ViT-B/16, nctx4, cscFalse, ctpend, 16 shots, seed1 put the file model.pth.tar-50 into "
            "{home}/prompt_learner",
        ),
    ),
)  # fmt: skip

CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (*IMAGENET, *CORRUPTIONS, LABELS, *FINE_GRAINED, *CAPTIONED, *CLIPS, *OTHERS)
}  # fmt: skip
"""Name -> entry."""
ALIASES = {
    "imagenet": "I",
    "imagenet-a": "A",
    "imagenet-v2": "V",
    "imagenetv2": "V",
    "imagenet-r": "R",
    "imagenet-sketch": "K",
    "imagenet-c": "C",
    "facebook/opt-125m": "opt-125m",
    **{f"nocaps-{domain}": "nocaps" for domain in DOMAINS},
    **{file.removesuffix(".pt"): name for name, (file, _, _) in OPENAI_FILES.items()},
    **{file: name for name, (file, _, _) in OPENAI_FILES.items()},
}
"""Other names of entries, in small letters where an entry's name is."""


def known(name: str) -> Entry | None:
    """The entry of a name or an alias, in small or capital letters; None when there is none."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    named = {alias.lower(): entry for alias, entry in {**{key: key for key in CATALOGUE}, **ALIASES}.items()}
    return CATALOGUE.get(named.get(name.lower(), ""))


def entry_of(name: str) -> Entry:
    """The entry of a name or an alias. Raises UserError with the names that there are."""
    found = known(name)
    if found is None:
        names = [*CATALOGUE, *ALIASES]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        advice = f"did you mean '{near[0]}'? " if near else ""
        raise UserError(f"unknown name '{name}'; {advice}there are {', '.join(CATALOGUE)}")
    return found


def siblings_of(entry: Entry) -> tuple[Entry, ...]:
    """The other entries that belong into the same folder as this one."""
    return tuple(other for other in CATALOGUE.values() if other is not entry and other.base == entry.base)


def remedy(name: str) -> str:
    """The end of a sentence that tells that a dataset is missing; empty for one that is not in the catalogue."""
    entry = known(name)
    if entry is None:
        return ""
    return f"; rlcf-data check {entry.name} tells what is wrong with it, rlcf-data get {entry.name} how to get it"
