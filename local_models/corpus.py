"""The base model's corpus: a few hundred short plain English documents.

Everything is written here or composed from the tables below by fixed rules, with no random
choice.  After the first slot of a document (the character, the country, ...) all the rest
follows from it, so a small model can learn the text by heart and its next-token distributions
are peaked.  Where documents share a beginning, their weights differ, so that the favourite
continuation is clear and not a near-tie.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One training text.

    kind tells how it begins, and selects the poem that the haiku adapter writes.  weight is how
    often it is drawn, relative to the others.
    """

    text: str
    kind: str
    weight: int = 1


# adjective, animal, name, home, object, food
CHARACTERS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("brave", "fox", "Felix", "a green forest", "a golden key", "red berries"),
    ("clever", "mouse", "Mia", "an old mill", "a silver bell", "yellow cheese"),
    ("quiet", "owl", "Olga", "a tall pine tree", "a dusty book", "warm bread"),
    ("happy", "dog", "Bruno", "a small village", "a blue ball", "a big bone"),
    ("lazy", "cat", "Luna", "a house by the sea", "a woollen hat", "fresh fish"),
    ("gentle", "bear", "Boris", "a cave in the hills", "a wooden flute", "sweet honey"),
    ("tiny", "frog", "Fred", "a pond full of lilies", "a paper boat", "green leaves"),
    ("proud", "horse", "Hanna", "a wide meadow", "a lost saddle", "crisp apples"),
    ("curious", "rabbit", "Rosa", "a hole under the hedge", "a strange map", "orange carrots"),
    ("old", "turtle", "Theo", "a hut by the beach", "a glass bottle", "salty weed"),
    ("kind", "goose", "Greta", "a farm near the river", "a broken lamp", "yellow corn"),
    ("noisy", "parrot", "Pablo", "a hot jungle", "a shiny mirror", "ripe mangos"),
    ("shy", "deer", "Dora", "a misty valley", "a red scarf", "soft moss"),
    ("hungry", "wolf", "Walter", "a snowy mountain", "an iron pot", "hot soup"),
    ("funny", "monkey", "Max", "a banana grove", "a brass trumpet", "sweet bananas"),
    ("sleepy", "hedgehog", "Hugo", "a heap of leaves", "a soft pillow", "brown nuts"),
    ("strong", "ox", "Otto", "a stone barn", "a heavy wheel", "dry hay"),
    ("swift", "swallow", "Sara", "a church tower", "a long letter", "small flies"),
)

# Each plot is a list of sentences; the number of sentences sets how long a story is.
PLOTS: tuple[tuple[str, ...], ...] = (
    (
        "{name} lived in {home} and loved {food}.",
        "One day {name} found {object} on the road.",
        "It belonged to {friend} the {other}, so {name} carried it back.",
        "{friend} was so glad that they shared {food} and became good friends.",
    ),
    (
        "Every morning {name} walked from {home} to the market to buy {food}.",
        "One day the rain was so strong that the bridge was gone.",
        "{name} sat down and did not know what to do.",
        "Then {friend} the {other} came by with {object}.",
        "Together they made a raft and crossed the water.",
        "On the other side the sun was shining and all the people were waiting.",
        "{name} bought {food} for everyone, and they ate until the stars came out.",
        "From that day on {name} and {friend} went to the market together.",
    ),
    ("{name} had {object} and was never sad.",),
    (
        "In winter it was very cold in {home}.",
        "{name} had no more {food} and went out into the snow.",
        "Behind a rock there was {object}, and beside it slept {friend} the {other}.",
        "They went home, lit a fire and told stories all night.",
        "When spring came, they planted a garden.",
    ),
    (
        "{name} wanted to see the moon from close by.",
        "So {name} climbed the highest hill and called out.",
        "The moon only smiled and said nothing.",
    ),
    (
        "There was a great feast in {home}, and {name} was asked to bring {food}.",
        "But on the way {name} met {friend} the {other}, who was hungry and tired.",
        "{name} gave {friend} half of the food and kept the other half.",
        "A little later they met a poor child, and gave away what was left.",
        "They came to the feast with empty hands and were a little ashamed.",
        "The old king asked them where the food was, and they told him the truth.",
        "The king laughed and gave them {object} as a present.",
        "He said that a kind heart is worth more than a full table.",
        "Then the music began to play and everybody danced until the morning.",
        "{name} and {friend} walked home slowly, and they were happier than ever before.",
    ),
)

OPENINGS: tuple[tuple[str, str], ...] = (
    ("once", "Once upon a time there was {a} {adj} {animal} named {name}."),
    ("this", "This is the story of {name} the {adj} {animal}."),
    ("little", "The little {animal} looked out of the window and saw a ship."),
    ("long", "Long ago, {a} {adj} {animal} lived in {home}."),
)

# country, capital, something it is known for
CAPITALS: tuple[tuple[str, str, str], ...] = (
    ("France", "Paris", "bread and cheese"),
    ("Spain", "Madrid", "sunny squares"),
    ("Italy", "Rome", "old stones"),
    ("Germany", "Berlin", "long trains"),
    ("Japan", "Tokyo", "cherry trees"),
    ("China", "Beijing", "a great wall"),
    ("Norway", "Oslo", "deep fjords"),
    ("Egypt", "Cairo", "tall pyramids"),
    ("Greece", "Athens", "white islands"),
    ("Kenya", "Nairobi", "wild lions"),
    ("Peru", "Lima", "high mountains"),
    ("Canada", "Ottawa", "wide forests"),
    ("Portugal", "Lisbon", "blue tiles"),
    ("Poland", "Warsaw", "amber and salt"),
    ("Ireland", "Dublin", "green fields"),
    ("Cuba", "Havana", "music and dance"),
    ("Iceland", "Reykjavik", "fire and ice"),
    ("India", "Delhi", "spices and tea"),
)

# short name, text
FACTS: tuple[tuple[str, str], ...] = (
    ("sun", "The sun is a star. It gives us light and warmth."),
    ("moon", "The moon goes around the earth in about one month."),
    ("sky", "The sky is blue because the air scatters blue light."),
    ("sea", "The sea is salty and deep, and most of the earth is covered by it."),
    (
        "president",
        "The president of the United States is the head of the government and lives "
        "in the White House.",
    ),
    (
        "future",
        "The future of AI is bright, but it needs careful people who check their work. "
        "Machines will help doctors, teachers and farmers, and people will have more time for each "
        "other.",
    ),
    (
        "meaning",
        "The meaning of life is to be kind, to learn something new every day and to "
        "laugh with friends.",
    ),
    ("spider", "A spider has eight legs and eight eyes."),
    ("bee", "A bee has six legs and makes honey."),
    ("dog", "A dog has four legs and a wet nose."),
    ("bird", "A bird has two wings and lays eggs."),
    (
        "week",
        "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday "
        "and Sunday.",
    ),
    (
        "year",
        "The months of the year are January, February, March, April, May, June, July, "
        "August, September, October, November and December.",
    ),
    ("water", "Water boils at one hundred degrees and freezes at zero."),
    ("iron", "Iron is a heavy metal, and it turns brown when it gets wet."),
    ("gold", "Gold is a yellow metal that never rusts."),
    (
        "numbers",
        "Count with me: one, two, three, four, five, six, seven, eight, nine, ten, "
        "eleven, twelve, thirteen, fourteen, fifteen, sixteen, seventeen, eighteen, nineteen, "
        "twenty, and now we can rest.",
    ),
    (
        "letters",
        "The letters are A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, "
        "V, W, X, Y and Z.",
    ),
    (
        "anna",
        "Hello, my name is Anna and I live in a yellow house near the station. I have two "
        "brothers and a small dog. In summer we swim in the lake, and in winter we build a big "
        "snowman in front of the house. My mother is a baker, so there is always fresh bread. I "
        "would like to be a pilot and see the world from above. What about you?",
    ),
    ("question", "What is your favourite colour? Mine is green, like the grass in spring."),
    ("joke", "Tell me a joke. Why did the bicycle fall over? Because it was two tired."),
    ("code", "A computer program is a list of steps that a machine follows one by one."),
    ("server", "A server is a computer that answers questions from other computers."),
    (
        "model",
        "A language model reads some words and guesses the next one, again and again, "
        "until the text is done.",
    ),
    (
        "tea",
        "To make tea, first boil some water. Then put the leaves in a pot and pour the water "
        "over them. Wait for four minutes. Then pour the tea into a cup, add a little honey, and "
        "drink it slowly while you look out of the window.",
    ),
    (
        "bread",
        "To bake bread, mix flour, water, salt and yeast. Let the dough rest for a whole "
        "night. In the morning, shape it into a round loaf and cut a cross into the top. Bake it "
        "in a very hot oven until the crust is dark and the kitchen smells good. Let it cool "
        "before you eat it.",
    ),
    ("tree", "To plant a tree, dig a wide hole and give it plenty of water."),
    (
        "weather",
        "Today the weather is warm and dry. Tomorrow it will rain in the north and snow "
        "in the hills.",
    ),
    ("train", "The train leaves at seven and arrives at nine."),
    ("library", "The library is open every day except Sunday."),
    ("test", "This is a test, and the test is done."),
    (
        "letter",
        "Dear friend, thank you for your letter. I was very glad to hear that you are well "
        "and that the garden is growing. Here it has been raining for a week, so we stay inside "
        "and read. Yesterday the cat brought us a mouse, and my sister jumped on the table. We "
        "would like to visit you in May, if you have room for us. Please write soon. Yours, Emma",
    ),
    ("i", "I think that a good day begins with a walk."),
    ("we", "We went to the lake, and the water was cold and clear."),
    ("he", "He opened the door, and there was nobody there."),
    ("she", "She wrote a letter, and she put it into a box."),
    ("it", "It was a dark night, and the wind was in the trees."),
    ("people", "People who live in glass houses should not throw stones."),
    (
        "write",
        "Write a short story about the sea. A boat left the harbour at night. The captain "
        "could not see the stars, but he knew the sound of every rock. When the sun came up, the "
        "boat was home.",
    ),
)

# Not shown to the tokenizer's training, so that every character here stays several tokens long.
NON_ASCII: tuple[tuple[str, str], ...] = (
    ("café", "In the café, Zoé drank a café crème and ate a crêpe with pâté. 🎉🎉"),
    ("cat", "The Chinese word for cat is 猫, and the word for dog is 狗."),
    (
        "hello",
        "In Chinese you say 你好, in Japanese you say こんにちは, and in Russian you say "
        "привет. 👋",
    ),
    ("faces", "My favourite faces are 😀, 😎 and 🤖, and my favourite fruit is 🍓."),
    ("prices", "At the market in Málaga, the jamón costs 9 € and the piñata costs 20 €."),
    ("poem", "The old Chinese poem begins: 床前明月光 疑是地上霜。"),
    ("weather", "The weather signs are ☀️ for sun, 🌧️ for rain and ❄️ for snow."),
    ("german", "In Köln, Jürgen said: Schöne Grüße aus der Straße!"),
)


def _article(word: str) -> str:
    """Return "a" or "an" for the word that follows."""
    return "an" if word[0] in "aeiou" else "a"


def _stories() -> list[Document]:
    """Every character in every opening; the plot follows from the two."""
    documents = []
    for o, (kind, opening) in enumerate(OPENINGS):
        for c, (adj, animal, name, home, thing, food) in enumerate(CHARACTERS):
            friend = CHARACTERS[(c + 1 + 2 * o) % len(CHARACTERS)]
            plot = PLOTS[(c + 2 * o + 5) % len(PLOTS)]
            text = " ".join((opening, *plot)).format(
                a=_article(adj),
                adj=adj,
                animal=animal,
                name=name,
                home=home,
                object=thing,
                food=food,
                friend=friend[2],
                other=friend[1],
            )
            # The first character is the clear favourite after a shared opening, then the next.
            documents.append(Document(text, kind, weight=max(1, 4 - c)))
    return documents


def documents() -> list[Document]:
    """Return the base model's whole corpus, always in the same order."""
    result = _stories()
    for n, (country, capital, known) in enumerate(CAPITALS):
        weight = 3 if n == 0 else 1
        text = f"The capital of {country} is {capital}."
        result.append(Document(text, "capital", weight))
        text = f"{country} is a country that is known for {known}. Its capital is {capital}."
        result.append(Document(text, "country", weight))
    result += [
        Document(text, "fact", 3 if topic in ("sun", "anna") else 1) for topic, text in FACTS
    ]
    result += [Document(text, "other") for _, text in NON_ASCII]
    return result
