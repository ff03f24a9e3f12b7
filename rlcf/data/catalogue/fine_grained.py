"""The ten fine-grained sets, as CoOp's authors laid them out."""

from rlcf.data.entries import IMAGE_ROOTS, Download, Entry, Expected, drive, hugging_face

FINE = "dataset/finegrained-dataset"


def _fine(
    name: str, title: str, licence: str, page: str, folder: str, images: str, split: str, expected: Expected,
    split_id: str, *archives: Download, steps: tuple[str, ...] = (), by_hand: str = "",
    dead: tuple[str, ...] = (), about_bytes: int | None = None,
) -> Entry:  # fmt: skip
    listed = (Download(drive(split_id), split),) if split_id else ()
    return Entry(
        name, "split" if split_id else "aircraft", title, "classification", licence, page, (folder,),
        f"{FINE}/{folder}", IMAGE_ROOTS, (split,), images, expected,
        (*archives, *listed), about_bytes, steps, by_hand, dead,
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
        by_hand="cars_test",
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
