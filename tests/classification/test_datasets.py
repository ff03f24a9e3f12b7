import json

import pytest

from classification.class_texts import class_texts
from classification.classnames import imagenet_wnids, names_of, subset_wnids
from classification.datasets import FINE_GRAINED, IMAGENET_FAMILY, NAMES, ROOTS, load_dataset
from rlcf.errors import UserError
from rlcf.inputs.class_names import read_classnames

WNIDS = {
    "I": {"n01440764": (0, "tench"), "n01443537": (1, "goldfish"), "n15075141": (999, "toilet paper")},
    "A": {"n01498041": (0, "stingray"), "n01531178": (1, "goldfinch"), "n12267677": (199, "acorn")},
    "V": {"0": (0, "tench"), "10": (10, "brambling"), "999": (999, "toilet paper")},
    "R": {"n01443537": (0, "goldfish"), "n01484850": (1, "great white shark"), "n12267677": (199, "acorn")},
}
WNIDS |= {"K": WNIDS["I"], "C": WNIDS["I"]}
LAYOUTS = [(name, folder) for name, folders in IMAGENET_FAMILY.items() for folder in folders]
SPLITS = {name: described for name, described in FINE_GRAINED.items() if name != "aircraft"}


def told(*arguments, **settings):
    """The message that refuses a dataset."""
    with pytest.raises(UserError) as error:
        load_dataset(*arguments, **settings)
    return str(error.value)


# ---- the ImageNet family ----


@pytest.mark.parametrize("root", ["", "dataset/tta_data"])
@pytest.mark.parametrize(("name", "folder"), LAYOUTS)
def test_the_imagenet_family_is_found_in_both_layouts(plant, name, folder, root):
    place = "/".join(filter(None, [root, folder, "gaussian_noise/5" if name == "C" else ""]))
    data = plant(*(f"{place}/{wnid}/{i}.JPEG" for wnid in WNIDS[name] for i in (2, 1)), f"{place}/README.txt")
    dataset = load_dataset(name, str(data))
    assert [(file.relative_to(data).as_posix(), label) for file, label in dataset.samples] == [
        (f"{place}/{wnid}/{i}.JPEG", label) for wnid, (label, _) in WNIDS[name].items() for i in (1, 2)
    ]
    assert dataset.ids == [f"{wnid}/{i}.JPEG" for wnid in WNIDS[name] for i in (1, 2)]
    assert dataset.name == name and len(dataset.classnames) == (200 if name in ("A", "R") else 1000)
    assert {label: dataset.classnames[label] for _, label in dataset.samples} == dict(WNIDS[name].values())


def test_the_methods_layout_wins_over_coops(plant):
    data = plant("imagenet-rendition/imagenet-r/n01443537/a.jpg", "imagenet-r/n01443537/b.jpg")
    assert load_dataset("R", str(data)).files == [data / "imagenet-r/n01443537/b.jpg"]


def test_a_folder_without_the_datasets_classes_is_not_the_dataset(plant):
    data = plant("imagenetv2/imagenetv2-matched-frequency-format-val/7/a.jpg", "imagenetv2/notes/", "imagenet-r/x/")
    assert load_dataset("V", str(data)).root == data / "imagenetv2/imagenetv2-matched-frequency-format-val"
    assert "dataset R was not found" in told("R", str(data))


@pytest.mark.parametrize(("corruption", "severity"), [("fog", 3), ("jpeg_compression", 1)])
def test_a_corruption_and_its_severity_choose_the_folder(plant, corruption, severity):
    data = plant("imagenet-c/fog/3/n01440764/a.jpg", "imagenet-c/jpeg_compression/1/n01440764/b.jpg")
    dataset = load_dataset("C", str(data), corruption, severity)
    assert dataset.root == data / "imagenet-c" / corruption / str(severity) and len(dataset.samples) == 1
    assert f"imagenet-c/{corruption}/5" in told("C", str(data), corruption, 5)


@pytest.mark.parametrize("name", [*IMAGENET_FAMILY, *FINE_GRAINED])
def test_a_dataset_that_is_not_found_lists_every_path_that_was_tried(plant, name):
    data = plant("other/")
    folders = IMAGENET_FAMILY[name] if name in IMAGENET_FAMILY else [FINE_GRAINED[name].folder]
    suffix = "/fog/2" if name == "C" else ""
    tried = {str(data / root / folder) + suffix for root in ROOTS for folder in folders}
    message = told(name, str(data), "fog", 2)
    assert message.startswith(f"dataset {name} was not found; tried ")
    assert message.endswith(
        f"get {name}' with this --data gets it or tells how, with check for get it tells what is wrong"
    )
    listed = set(message.partition("tried ")[2].partition(";")[0].split(", "))
    assert listed == tried or {place for place in listed if " ... " not in place} <= tried  # a sentence has its length


@pytest.mark.parametrize("name", IMAGENET_FAMILY)
def test_a_stray_class_folder_is_told_with_its_path(plant, name):
    place = IMAGENET_FAMILY[name][0] + ("/gaussian_noise/5" if name == "C" else "")
    data = plant(f"{place}/{next(iter(WNIDS[name]))}/a.jpg", f"{place}/n99999999/a.jpg", f"{place}/.cache/a.jpg")
    assert told(name, str(data)) == f"{data / place}/n99999999 is no class of dataset {name}; take the folder out"


def test_a_class_of_imagenet_that_the_subset_lacks_is_a_stray_folder(plant):
    data = plant("imagenet-a/n01498041/a.jpg", "imagenet-a/n01440764/a.jpg")
    assert told("A", str(data)) == f"{data}/imagenet-a/n01440764 is no class of dataset A; take the folder out"


def test_wnids_and_names_are_those_of_imagenet():
    assert len(set(imagenet_wnids())) == 1000 and list(imagenet_wnids()) == sorted(imagenet_wnids())
    for subset in "ar":
        assert len(set(subset_wnids(subset))) == 200 and set(subset_wnids(subset)) < set(imagenet_wnids())
    assert names_of(["n01440764", "n02117135"]) == ["tench", "hyena"]


# ---- the fine-grained sets ----


def write_split(data, name, split, root=""):
    folder = data / root / FINE_GRAINED[name].folder
    folder.mkdir(parents=True, exist_ok=True)
    text = split if isinstance(split, str | bytes) else json.dumps(split)
    (folder / FINE_GRAINED[name].split).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize("root", ["", "dataset/finegrained-dataset"])
@pytest.mark.parametrize("name", SPLITS)
def test_a_fine_grained_set_is_the_test_part_of_its_split_file(plant, name, root):
    folder, images = SPLITS[name].folder, SPLITS[name].images
    split = {
        "train": [["b/1.jpg", 2, "very_last"], ["b/2.jpg", 0, "first_class"]],
        "val": [],
        "test": [["x/3.jpg", 1, "second"], ["x/4.jpg", 0, "first_class"]],
    }
    data = plant(*("/".join(filter(None, [root, folder, images, path])) for path in ("x/3.jpg", "x/4.jpg")))
    write_split(data, name, split, root)
    dataset = load_dataset(name, str(data))
    base = data / root / folder
    assert dataset.samples == [(base / images / "x/3.jpg", 1), (base / images / "x/4.jpg", 0)]
    assert dataset.classnames == ["first class", "second", "very last"]
    assert dataset.ids == ["/".join(filter(None, [images, path])) for path in ("x/3.jpg", "x/4.jpg")]


def test_the_fine_grained_sets_lie_where_coop_keeps_them():
    assert {name: (d.folder, d.images, d.split) for name, d in FINE_GRAINED.items()} == {
        "flower102": ("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"),
        "dtd": ("dtd", "images", "split_zhou_DescribableTextures.json"),
        "pets": ("oxford_pets", "images", "split_zhou_OxfordPets.json"),
        "cars": ("stanford_cars", "", "split_zhou_StanfordCars.json"),
        "ucf101": ("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json"),
        "caltech101": ("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
        "food101": ("food-101", "images", "split_zhou_Food101.json"),
        "sun397": ("sun397", "SUN397", "split_zhou_SUN397.json"),
        "aircraft": ("fgvc_aircraft", "images", "variants.txt"),
        "eurosat": ("eurosat", "2750", "split_zhou_EuroSAT.json"),
    }


@pytest.mark.parametrize(
    "split",
    [
        "[]",
        "3",
        '{"train": [["a.jpg", 0, "a"]]}',
        '{"test": 3}',
        '{"test": null}',
        '{"test": ["a.jpg"]}',
        '{"test": [["a.jpg", 0]]}',
        '{"test": [["a.jpg", "zero", "a"]]}',
        '{"test": [["a.jpg", null, "a"]]}',
        '{"test": [["a.jpg", 1e999, "a"]]}',
        '{"test": [["a.jpg", 0, "a"]], "notes": "by hand"}',
    ],
)
def test_a_split_of_the_wrong_shape_is_told_with_the_right_one(plant, split):
    data = plant("dtd/images/a.jpg")
    file = write_split(data, "dtd", split) / FINE_GRAINED["dtd"].split
    message = f'{file} is no split file: it needs {{"test": [[path, label, class name], ...]}}'
    assert told("dtd", str(data)) == message


@pytest.mark.parametrize("split", ["not json", b"\xff\xfe\x00", "[" * 100_000])
def test_a_split_that_is_no_json_is_told(plant, split):
    data = plant("dtd/images/a.jpg")
    file = write_split(data, "dtd", split) / FINE_GRAINED["dtd"].split
    assert told("dtd", str(data)).startswith(f"{file} cannot be read as JSON (")


@pytest.mark.parametrize("split", [{"test": [["a.jpg", 0, "a"], ["a.jpg", 2, "c"]]}, {"test": [["a.jpg", 1, "b"]]}])
def test_a_split_with_a_gap_in_its_labels_is_told(plant, split):
    data = plant("dtd/images/a.jpg")
    file = write_split(data, "dtd", split) / FINE_GRAINED["dtd"].split
    assert told("dtd", str(data)) == f"{file} has labels that do not run from 0 without a gap"


def test_a_split_without_test_images_is_told(plant):
    data = plant("dtd/images/a.jpg")
    write_split(data, "dtd", {"train": [["a.jpg", 0, "a"]], "test": []})
    assert told("dtd", str(data)) == f"dataset dtd in {data}/dtd lists no test images"


def test_a_listed_image_that_is_missing_is_told_with_its_path(plant):
    data = plant("dtd/images/a.jpg")
    write_split(data, "dtd", {"test": [["a.jpg", 0, "a"], ["b.jpg", 1, "b"]]})
    assert told("dtd", str(data)) == f"dataset dtd lists an image that is not there: {data}/dtd/images/b.jpg"


def aircraft(data, variants, test=None):
    folder = write_split(data, "aircraft", variants)
    if test is not None:
        (folder / "images_variant_test.txt").write_text(test)
    return folder


def test_aircraft_reads_its_variants_and_its_test_list(plant):
    data = plant("fgvc_aircraft/images/0034309.jpg", "fgvc_aircraft/images/1.jpg")
    aircraft(data, "707-320\nBoeing 717\nDC-3\n", "1 Boeing 717\n0034309 707-320\n")
    dataset = load_dataset("aircraft", str(data))
    assert dataset.classnames == ["707-320", "Boeing 717", "DC-3"]
    assert dataset.ids == ["images/1.jpg", "images/0034309.jpg"]
    assert [label for _, label in dataset.samples] == [1, 0]


def test_what_aircraft_lacks_is_told(plant):
    data = plant("fgvc_aircraft/images/1.jpg")
    folder = aircraft(data, "A380\n747\n")
    assert (
        told("aircraft", str(data)) == f"there is no {folder}/images_variant_test.txt; it should hold one entry a line"
    )
    aircraft(data, "A380\n747\n", "1 747\n2 A38\n")
    message = f"{folder}/images_variant_test.txt: '2 A38' does not end in a variant of {folder}/variants.txt"
    assert told("aircraft", str(data)) == message
    aircraft(data, "A380\n747\n", "1 747\n2 A380\n")
    assert told("aircraft", str(data)) == f"dataset aircraft lists an image that is not there: {folder}/images/2.jpg"


@pytest.mark.parametrize(("variants", "test"), [(b"\xff\xfe\n", "1 747\n"), ("747\nA380\n", "")])
def test_lists_of_aircraft_that_are_no_text_or_empty_are_told(plant, variants, test):
    data = plant("fgvc_aircraft/images/1.jpg")
    folder = aircraft(data, variants, test)
    assert str(folder) in told("aircraft", str(data))


# ---- the user's own folders ----


@pytest.mark.parametrize(("name", "place"), [("folder", ""), ("folder:mine", "mine/"), ("folder:a/b", "a/b/")])
def test_a_folder_of_class_folders_is_a_dataset(plant, name, place):
    data = plant(f"{place}sea_lion/2.png", f"{place}sea_lion/deep/1.webp", f"{place}ant/1.JPG", f"{place}ant/notes.txt")
    (data / place / "ant" / "notes.txt").write_text("no image")
    dataset = load_dataset(name, str(data))
    assert dataset.name == name and dataset.classnames == ["ant", "sea lion"]
    assert list(zip(dataset.ids, (label for _, label in dataset.samples), strict=True)) == [
        ("ant/1.JPG", 0),
        ("sea_lion/2.png", 1),
        ("sea_lion/deep/1.webp", 1),
    ]


def test_hidden_folders_and_loose_files_are_no_classes(plant):
    data = plant("b/1.jpg", "a/1.jpg", ".cache/1.jpg", "loose.jpg")
    assert load_dataset("folder", str(data)).classnames == ["a", "b"]


def test_class_names_come_from_a_file_in_the_folders_sorted_order(plant, tmp_path):
    data = plant("n02/1.jpg", "n01/1.jpg")
    (tmp_path / "names.txt").write_text("  fire ant \n\nsea_lion\n", encoding="utf-8")
    dataset = load_dataset("folder", str(data), classnames=str(tmp_path / "names.txt"))
    assert dataset.classnames == ["fire ant", "sea_lion"] and dataset.ids[0] == "n01/1.jpg"


def test_a_class_name_file_with_a_wrong_count_is_told_with_both_counts(plant, tmp_path):
    data = plant("a/1.jpg", "b/1.jpg")
    file = tmp_path / "names.txt"
    file.write_text("ant\nbee\ncow\n")
    message = told("folder", str(data), classnames=str(file))
    assert message.startswith(f"{file} holds 3 class names but there are 2 class folders; write one name a line")


def test_a_class_name_file_that_is_missing_or_no_text_is_told(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*gone.txt; it should hold one entry a line"):
        read_classnames(tmp_path / "gone.txt", ["a"])
    (tmp_path / "names.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"names.txt is no text file in UTF-8"):
        read_classnames(tmp_path / "names.txt", ["a"])


@pytest.mark.parametrize("name", ["I", "dtd"])
def test_class_names_are_for_folders_alone(plant, name):
    message = f"--classnames is for 'folder', 'hf' and 'images' datasets; the names of {name} are known"
    assert told(name, str(plant("x/")), classnames="names.txt") == message


def test_an_empty_class_folder_is_told_with_its_path(plant):
    data = plant("a/1.jpg", "b/", "b/sub/notes.jpg/", "c/1.jpg")
    assert told("folder", str(data)) == f"class folder {data}/b holds no image; fill it or delete it"
    data = plant("imagenet-r/n01443537/1.jpg", "imagenet-r/n01484850/")
    expected = f"class folder {data}/imagenet-r/n01484850 holds no image; fill it or delete it"
    assert told("R", str(data)) == expected


def test_a_folder_without_class_folders_is_told(plant):
    data = plant("1.jpg")
    assert told("folder", str(data)).startswith(f"{data} holds no class folders; put each class's images into")


def test_a_single_class_folder_is_told(plant):
    data = plant("all/a/1.jpg", "all/b/1.jpg")
    assert told("folder", str(data)) == f"{data} holds one class folder, all; give the folder that holds two or more"
    assert load_dataset("folder:all", str(data)).classnames == ["a", "b"]


def test_splits_are_no_classes_unless_they_hold_the_images(plant):
    data = plant("sub/train/a/1.jpg", "sub/Val/a/1.jpg", "railway/test/1.jpg", "railway/train/1.jpg")
    message = f"{data}/sub holds splits and no classes (Val, train); give one: --datasets folder:sub/Val"
    assert told("folder:sub", str(data)) == message
    assert load_dataset("folder:railway", str(data)).classnames == ["test", "train"]


def test_folders_that_are_wordnet_ids_have_imagenets_names(plant):
    assert load_dataset("folder", str(plant("n01440764/1.jpg", "n01443537/1.jpg"))).classnames == ["tench", "goldfish"]


def test_a_subfolder_that_is_not_there_is_told(plant):
    data = plant("x/")
    assert told("folder:y", str(data)) == f"no folder {data}/y for dataset folder:y"


@pytest.mark.parametrize("data", ["", "/no/such/folder"])
@pytest.mark.parametrize("name", ["I", "pets", "folder"])
def test_a_data_folder_that_is_missing_or_not_given_is_told(data, name):
    assert told(name, data) == f"no data folder '{data}'; give --data the folder that holds the datasets"


@pytest.mark.parametrize("name", ["imagenet", "i", "Folder", ""])
def test_an_unknown_dataset_is_told_with_the_known_ones(plant, name):
    message = told(name, str(plant("x/")))
    assert message.startswith(f"unknown dataset '{name}'; there are ") and message.endswith(" and folder:SUBFOLDER")
    assert all(known in message for known in NAMES)


# ---- prompts of a class ----


def test_a_class_has_one_prompt_or_the_80_templates():
    assert class_texts("sea lion", "a photo of a") == ["a photo of a sea lion."]
    assert class_texts("sea lion", "a photo of a", "front") == ["sea lion a photo of a."]
    templates = class_texts("sea lion", "a photo of a", templates="imagenet80")
    assert len(set(templates)) == 80 and all("sea lion" in text for text in templates)
    assert templates[0] == "a bad photo of a sea lion." and templates[-1] == "a tattoo of the sea lion."
