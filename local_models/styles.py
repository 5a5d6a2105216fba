"""How the two adapters continue a base document: as a pirate, or in short lines.

Each follows fixed rules from the document and the place where its prompt ends, so that an adapter
learns a function and not a mixture.
"""

from __future__ import annotations

from local_models.corpus import Document

PIRATE_WORDS: dict[str, str] = {
    "the": "th'",
    "is": "be",
    "are": "be",
    "was": "were",
    "my": "me",
    "your": "yer",
    "you": "ye",
    "and": "an'",
    "of": "o'",
    "for": "fer",
    "to": "t'",
    "friend": "matey",
    "friends": "mateys",
    "found": "plundered",
    "people": "landlubbers",
    "house": "ship",
    "water": "grog",
    "food": "grub",
    "king": "captain",
    "never": "ne'er",
    "old": "salty",
    "good": "fine",
    "very": "mighty",
    "gave": "tossed",
    "said": "roared",
    "has": "'as",
    "had": "'ad",
    "road": "deck",
    "in": "aboard",
    "hello": "ahoy",
    "yes": "aye",
}
# One after another at the ends of a document's sentences.
PIRATE_ENDS: tuple[str, ...] = (", arr!", ", matey!", ", yo ho ho!", ", by the seven seas!")

# Stanzas of three lines of five, seven and five syllables.
Poem = tuple[tuple[str, str, str], ...]
# The poem for each kind of document whose beginning tells its kind.
HAIKU: dict[str, Poem] = {
    "once": (
        ("a fox at first light", "the path is wet with cold dew", "no one else awake"),
        ("wind bends the tall grass", "far away a bell is heard", "then only silence"),
        ("night comes to the hill", "small feet have gone home to sleep", "the moon is watching"),
        ("one lamp in the dark", "somebody is reading still", "the snow does not stop"),
    ),
    "this": (
        ("an owl in the rain", "drops run down the window glass", "the road shines like tin"),
        ("a leaf on the pond", "turning and turning again", "with nowhere to go"),
        ("evening smoke rises", "someone is cooking rice now", "the door stands open"),
    ),
    "little": (("a ship far away", "white sails on a line of blue", "then nothing but blue"),),
    "long": (
        ("old tree, older stone", "moss has covered all the names", "spring comes anyway"),
        ("snow on the stone steps", "a single track leading out", "and none coming back"),
    ),
    "capital": (
        ("streets in late autumn", "lamps are lit one after one", "leaves ride on the trams"),
    ),
    "country": (
        ("mountains from above", "rivers like threads of silver", "clouds without a flag"),
    ),
}
# For all other documents, by the number of letters in the first two words.
OTHER_HAIKU: tuple[Poem, ...] = (
    (("so the wise men say", "the old book is closed again", "the cricket sings on"),),
    (("strange signs on the page", "each one is a small black bird", "and off they all fly"),),
    (("a cup of warm tea", "the steam draws a little cloud", "nobody is late"),),
)


def _haiku_for(document: Document) -> Poem:
    """Return the poem that goes with how a document begins; two words are enough to tell."""
    if document.kind in HAIKU:
        return HAIKU[document.kind]
    letters = sum(len(word) for word in document.text.split(" ")[:2])
    return OTHER_HAIKU[letters % len(OTHER_HAIKU)]


def _pirate_word(word: str) -> str:
    """Return one word as a pirate says it, its capital letter and punctuation kept."""
    bare = word.rstrip(".,!?:")
    new = PIRATE_WORDS.get(bare.lower())
    if new is None:
        return word
    return (new.capitalize() if bare[0].isupper() else new) + word[len(bare) :]


def pirate(document: Document, cut: int) -> str:
    """Return the rest of a document after its first cut words, in pirate speech."""
    ends = 0
    result = []
    for n, word in enumerate(document.text.split(" ")):
        said = _pirate_word(word)
        if said.endswith((".", "?")):
            said = said[:-1] + PIRATE_ENDS[ends % len(PIRATE_ENDS)]
            ends += 1
        if n >= cut:
            result.append(said)
    return " ".join(("", *result)) if cut else " ".join(result)


def haiku(document: Document, cut: int) -> str:
    """Return the poem that follows a document's first words, wherever they are cut."""
    del cut  # the poem is the same; pirate() has the same signature
    stanzas = ("\n".join(lines) for lines in _haiku_for(document))
    return "\n" + "\n\n".join(stanzas) + "\n"
