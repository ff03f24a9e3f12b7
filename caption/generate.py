"""Captions that follow a prefix: by beam search, or drawn from the nucleus. The prefix is read once for all of them."""

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from caption.language_model import LanguageModel, repeat_cache


def beam_search(
    lm: LanguageModel, prefix: Tensor, beams: int, returned: int = 1, max_new_tokens: int = 50
) -> list[list[str]]:
    """The best captions of a beam search.

    prefix: (N, P, width); beams: beams of each search; returned: captions that come back of each, at most as many.
    Returns N lists of captions, best first.
    """
    settings = GenerationConfig(num_beams=beams, num_return_sequences=returned, do_sample=False)
    return _generate(lm, prefix, settings, rows=beams, returned=returned, max_new_tokens=max_new_tokens)


def nucleus_sampling(
    lm: LanguageModel, prefix: Tensor, count: int, top_p: float, seed: tuple[int, ...], max_new_tokens: int = 50
) -> list[str]:
    """Captions drawn from the smallest set of tokens that has the probability `top_p` (Holtzman et al., ICLR 2020).

    prefix: (1, P, width); seed: numbers that alone decide what is drawn. Returns `count` captions.
    """
    settings = GenerationConfig(do_sample=True, top_p=top_p, top_k=0, temperature=1.0, num_return_sequences=count)
    with torch.random.fork_rng(devices=[prefix.device] if prefix.device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        return _generate(lm, prefix, settings, rows=count, returned=count, max_new_tokens=max_new_tokens)[0]


@torch.no_grad()
def _generate(
    lm: LanguageModel, prefix: Tensor, settings: GenerationConfig, rows: int, returned: int, max_new_tokens: int
) -> list[list[str]]:
    """rows: sequences that run side by side for each prefix."""
    settings.update(
        max_new_tokens=max_new_tokens,
        min_new_tokens=1,
        eos_token_id=list(lm.stops),
        pad_token_id=lm.pad,
        use_cache=True,
    )
    _, cache = lm.read(prefix)
    n, length = prefix.shape[:2]
    # Ids stand in for the prefix, whose keys and values are known; only BOS, after them, is read.
    ids = torch.full((n, length + 1), lm.bos, device=lm.device)
    with lm.autocast():
        sequences = lm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            **{lm.cache_name: repeat_cache(cache, rows)},
        )
    texts = lm.tokenizer.batch_decode(
        sequences[:, length + 1 :], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    captions = [" ".join(text.split()) for text in texts]
    return [captions[i : i + returned] for i in range(0, len(captions), returned)]
