"""Captions split into words in plain Python, close to the Penn Treebank tokenizer of the caption benchmarks.

The benchmarks split captions with Stanford CoreNLP 3.4.1, a Java program, in lower case, and drop punctuation. Where
there is no Java these rules stand in for it:

1. lower case; curly quotes read as straight ones, dashes as "--";
2. n't, 's, 're, 've, 'm, 'd and 'll are words of their own, as are the halves of cannot, gonna, gotta, wanna, gimme and
   lemme;
3. one word: web and mail addresses, @names and #tags, numbers with inner , . : / or - ("1,000", "10:30", "12-inch"),
   and words with inner hyphens, slashes, full stops or apostrophes ("t-shirt", "and/or", "o'clock");
4. a full stop belongs to a single letter, an acronym or a common abbreviation ("u.s.", "mr.", "st."; "no." before a
   number);
5. brackets become -lrb- -rrb- -lsb- -rsb- -lcb- -rcb-; any other sign ("&", "%", "$") is a word of its own;
6. the punctuation that the benchmarks drop is dropped: quotes, . ? ! , : - -- ... and ; - and so are emoji.

`tests/clipscore/test_tokenizer.py` holds each rule by examples, for which the Java program gives the same words where
there is Java. Known to differ: smileys, telephone numbers, fractions such as "3 1/2", currencies other than the dollar,
"AT&T", rare abbreviations and contractions.
"""

import re

PUNCTUATION = frozenset(["'", '"', "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "..."})

ABBREVIATION = (
    r"mr|mrs|ms|dr|drs|prof|profs|sen|rep|gov|gen|col|lt|sgt|capt|maj|pres|rev|hon|messrs|esq|jr|sr|ph\.d"
    r"|st|ste|ave|blvd|rd|mt|ft|sq|bldg|dept|univ|assn|bros|inc|co|corp|ltd|est|etc|vs|calif|conn|mich|penn|tenn|ky|ct"
    r"|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mon|tue|tues|wed|thu|thurs|fri"
)
CLITIC = re.compile(r"(?<=\w)(?:n't|'(?:s|re|ve|m|d|ll))\b")
FIRST_OF_TWO = re.compile(r"\b(?:can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:gim|lem)(?=me\b))")

TOKEN = re.compile(
    rf"""
      (?:https?://|www\.) [^\s"<>()]* [^\s"<>().,;:!?]
    | [\w.+-]+ @ \w[\w-]* (?:\.[\w-]+)+
    | [@#]\w*[^\W\d]\w* | </?[a-z][^<>]*>            # @name, #tag, <unk>
    | n't\b | '(?:s|re|ve|m|d|ll)\b
    | (?<!\d)'\d\ds?\b | '[ne]'                       # the '90s; rock 'n' roll
    | [-+]? \d* (?:[.,:/]\d+)+ (?:-\w+)*              # 3.5, 1,000, 10:30, 1/2
    | (?:{ABBREVIATION})\.(?!\w) | (?:nos?|figs?)\.(?=\s?\d)
    | (?:[^\W\d_]\.)+(?!\w)                           # an initial, an acronym
    | [-+]?(?=\d)\w+ (?:[-/]\w+)*                     # 20ft, 12-inch
    | \w+ (?:(?:[-/.!?]|(?<=\D)'(?=\D)) \w+)*
    | \.\.\. | -- | [?!]+
    | [^\s\U00010000-\U0010ffff]
    """,
    re.VERBOSE,
)


def tokenize(caption: str) -> str:
    """A caption's words, lower case, without punctuation, joined by spaces.

    >>> tokenize("The man's dog isn't on the t-shirt.")
    "the man 's dog is n't on the t-shirt"
    """
    text = CLITIC.sub(r" \g<0>", caption.lower().translate(PLAIN))
    tokens = TOKEN.findall(FIRST_OF_TWO.sub(r"\g<0> ", text))
    return " ".join(BRACKETS.get(token, token) for token in tokens if token not in PUNCTUATION)
