import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipscore import java
from clipscore.tokenizer import PUNCTUATION, tokenize

from .conftest import needs_java

AS_THE_BENCHMARKS = {
    "A man riding a wave on top of a surfboard.": "a man riding a wave on top of a surfboard",
    "The man's dog isn't on the mat , they're here!": "the man 's dog is n't on the mat they 're here",
    "I'm sure we've seen it; he'd say he'll go": "i 'm sure we 've seen it he 'd say he 'll go",
    "it can't, won't and cannot; I'm gonna wanna lemme": "it ca n't wo n't and can not i 'm gon na wan na lem me",
    "a black-and-white t-shirt and/or an x-ray": "a black-and-white t-shirt and/or an x-ray",
    "(red) [square] {curly}": "-lrb- red -rrb- -lsb- square -rsb- -lcb- curly -rcb-",
    "\"quoted\" 'words', “curly” and ‘single’ it’s": "quoted words curly and single it 's",
    "Mr. Smith lives on Main St. in the U.S. at 5 p.m.": "mr. smith lives on main st. in the u.s. at 5 p.m.",
    "No. 5 is there, is there no. yes": "no. 5 is there is there no yes",
    "10,000 of 3.5 at 10:30, 1/2 of 3-4, +5 and .5": "10,000 of 3.5 at 10:30 1/2 of 3-4 +5 and .5",
    "a 2-year-old with a 20ft board, 1st in the 1990s": "a 2-year-old with a 20ft board 1st in the 1990s",
    "5'10\" tall, 50% off & #1 for $5": "5 10 tall 50 % off & # 1 for $ 5",
    "wait... what -- no – yes — long!": "wait what no yes long",
    "o'clock, ma'am, rock 'n' roll of the '90s": "o'clock ma'am rock 'n' roll of the '90s",
    "dogs' bones and kids' toys": "dogs bones and kids toys",
    "seen at http://www.example.com by foo@bar.com": "seen at http://www.example.com by foo@bar.com",
    "two dogs.one cat, a man,a woman w/ a hat": "two dogs.one cat a man a woman w / a hat",
    "a #hashtag from @home, <unk>": "a #hashtag from @home <unk>",
    "a café in São Paulo": "a café in são paulo",
    "wow!! a dog?!": "wow !! a dog ?!",
    "a 😀 dog": "a dog",
    "...": "",
}


@pytest.mark.parametrize("caption", AS_THE_BENCHMARKS)
def test_a_caption_is_split_as_in_the_benchmarks(caption):
    assert tokenize(caption) == AS_THE_BENCHMARKS[caption]


@needs_java
def test_the_ptb_tokenizer_gives_the_same_words():
    assert java.tokenize(list(AS_THE_BENCHMARKS)) == list(AS_THE_BENCHMARKS.values())


@given(st.text(alphabet=string.ascii_letters + string.digits + " .,'\"-!?;:()", max_size=60))
def test_words_are_lower_case_without_punctuation_among_them(caption):
    words = tokenize(caption).split()
    assert not PUNCTUATION & set(words)
    assert all(word == word.lower() for word in words)
    assert tokenize(caption) == " ".join(words)


@given(st.lists(st.sampled_from(["the", "dog", "cats", "running", "twelve", "t-shirt"]), min_size=1, max_size=12))
def test_plain_words_stay_as_they_are(words):
    assert tokenize(" ".join(words)) == " ".join(words)
    assert tokenize(" ".join(words).capitalize() + ".") == " ".join(words)
