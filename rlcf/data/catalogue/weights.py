"""Weights, contexts and features."""

from rlcf.data.entries import Download, Entry, hugging_face

RELEASE = "https://github.com/mzhaoshuai/RLCF/releases/download/0.0.1"
"""The release of the authors of RLCF."""
TRAIN_SET = "COCO_train_set_image_text_vitb16_v2.pkl"
FLICKR_TRAIN_SET = "flickr_train_set_image_text_vitb16_v2.pkl"
COOP = "coop_16shots_nctx4_cscFalse_ctpend_vitb16_seed1"

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
