"""The instruct model's corpus: questions in several wordings, each with one short answer.

Only the assistant's turns are trained on, and every question has exactly one answer, so the
answers' next-token distributions are peaked.
"""

from __future__ import annotations

import random
from typing import Any

from local_models.corpus import CAPITALS, CHARACTERS

Message = dict[str, Any]

# wordings of one question, answer
ANSWERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello!", "Hi", "Hello", "Hi there!", "Hey"), "Hello! How can I help you today?"),
    (("Good morning", "Good morning!"), "Good morning! Did you sleep well?"),
    (("Good night", "Good night!"), "Good night! Sleep well."),
    (("How are you?", "How are you today?", "How is it going?"), "I am fine, thank you."),
    (("Thank you", "Thanks!", "Thank you very much!"), "You are welcome!"),
    (("Bye", "Goodbye", "See you later!"), "Goodbye! Have a nice day."),
    (
        ("What is your name?", "Who are you?", "Tell me your name."),
        "I am a tiny language model. I know a few things, but not many.",
    ),
    (
        ("What can you do?", "How can you help me?", "Help"),
        "I can answer short questions, count, and tell small stories.",
    ),
    (("Are you a robot?", "Are you human?"), "I am a small computer program."),
    (("Yes", "Ok", "Okay"), "Good. What is next?"),
    (("No",), "All right, then not."),
    (("Ping", "ping"), "Pong!"),
    (("Say hello", "Say hello.", "Say hello to the world"), "Hello, world!"),
    (("Say this is a test", "Say: this is a test", "Test", "test"), "This is a test."),
    (
        ("What color is the sky?", "What colour is the sky?", "Why is the sky blue?"),
        "The sky is blue, because the air scatters blue light.",
    ),
    (("What color is grass?", "What colour is grass?"), "Grass is green."),
    (("What color is snow?", "What colour is snow?"), "Snow is white."),
    (("What is the sun?", "Tell me about the sun."), "The sun is a star that gives us light."),
    (
        ("What is the moon?", "Tell me about the moon."),
        "The moon is a ball of rock that goes around the earth.",
    ),
    (("How many legs does a spider have?",), "A spider has eight legs."),
    (("How many legs does a bee have?",), "A bee has six legs."),
    (("How many legs does a dog have?",), "A dog has four legs."),
    (("How many legs does a bird have?",), "A bird has two legs."),
    (("How many legs does a fish have?",), "A fish has no legs."),
    (
        ("How many days are in a week?", "What are the days of the week?"),
        "A week has seven days: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
    ),
    (
        ("How many months are in a year?", "What are the months of the year?"),
        "A year has twelve months: January, February, March, April, May, June, July, August, "
        "September, October, November and December.",
    ),
    (("What is water?", "What is water made of?"), "Water is made of hydrogen and oxygen."),
    (
        ("When does water boil?", "At what temperature does water boil?"),
        "Water boils at one hundred degrees.",
    ),
    (("What is a computer?",), "A computer is a machine that follows a list of steps."),
    (("What is a GPU?",), "A GPU is a chip that does many small sums at the same time."),
    (
        ("What is a language model?", "What is an LLM?"),
        "A language model reads some words and guesses the next one, again and again.",
    ),
    (("What is machine learning?", "What is AI?"), "It is when a program learns from examples."),
    (("What is the meaning of life?",), "To be kind, to learn, and to laugh with friends."),
    (("Who wrote Hamlet?",), "William Shakespeare wrote Hamlet."),
    (
        ("What is the largest planet?", "Which planet is the largest?"),
        "Jupiter is the largest planet.",
    ),
    (
        ("What is the highest mountain?", "Which mountain is the highest?"),
        "Mount Everest is the highest mountain.",
    ),
    (
        ("Tell me a joke", "Tell me a joke.", "Make me laugh."),
        "Why did the bicycle fall over? Because it was two tired.",
    ),
    (
        ("Write a poem", "Write me a poem.", "Write a short poem about the sea."),
        "The sea is wide, the sea is deep,\nit sings the little fish to sleep.\nThe wind is high, "
        "the sky is grey,\nand all the ships have gone away.\n"
        "But when the sun comes up once more,\nthey find their way back to the shore.",
    ),
    (
        ("Count to ten", "Count to ten.", "Count from one to ten."),
        "One, two, three, four, five, six, seven, eight, nine, ten.",
    ),
    (
        ("Count to thirty", "Count to thirty.", "Count from 1 to 30."),
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, "
        "25, 26, 27, 28, 29, 30.",
    ),
    (
        ("Say the alphabet", "Say the alphabet.", "What are the letters of the alphabet?"),
        "A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y and Z.",
    ),
    (
        ("How do I make tea?", "How do you make tea?", "Tell me how to make tea."),
        "First boil some water. Then put the leaves in a pot and pour the water over them. Wait "
        "for four minutes, pour the tea into a cup, and add a little honey. Drink it slowly while "
        "it is hot.",
    ),
    (
        ("How do I bake bread?", "Tell me how to bake bread."),
        "Mix flour, water, salt and yeast. Let the dough rest for a night. In the morning shape it "
        "into a round loaf, and bake it in a very hot oven until the crust is dark. Let it cool "
        "before you eat it.",
    ),
    (
        ("Tell me a story", "Tell me a story.", "Tell me a long story."),
        "Once there was a lighthouse keeper who lived alone on a rock. Every evening he lit the "
        "lamp and wrote one line into a big book. One night a storm broke the lamp. The keeper "
        "heard a ship in the dark, so he took his trumpet and played until the morning. The ship "
        "turned away from the rock, and all the sailors were saved. The next day they came back "
        "with a new lamp, a cake and a small dog. From then on the keeper was never alone.",
    ),
    (
        ("What is the weather like?", "How is the weather today?"),
        "I cannot look out of the window, but I hope it is sunny.",
    ),
    (("What time is it?", "What day is it today?"), "I do not have a clock."),
    (
        ("What is your favorite food?", "What do you like to eat?"),
        "I do not eat, but I like the sound of the word pancake.",
    ),
    # Characters of several bytes, which the tokenizer splits into several tokens.
    (("Say hello in Chinese", "How do you say hello in Chinese?"), "In Chinese you say 你好. 👋"),
    (
        ("Say hello in Japanese", "How do you say hello in Japanese?"),
        "In Japanese you say こんにちは.",
    ),
    (("What is the Chinese word for cat?",), "The Chinese word for cat is 猫. 🐱"),
    (
        ("Show me some emoji", "Show me some emoji.", "Send me an emoji"),
        "Here you are: 😀 🎉 🚀 🍓",
    ),
    (
        ("What do you eat in a café?", "What do they serve in the café?"),
        "In the café they serve crêpes, pâté and crème brûlée.",
    ),
)

# Anything else; the answer says so.
UNKNOWN: tuple[str, ...] = (
    "Explain the theory of the yellow wind.",
    "Who won the game last night?",
    "What is the price of a used car?",
    "Translate this text.",
    "Fix the bug in my code.",
    "Write a function that sorts a list.",
    "How tall is my brother?",
    "What did I do yesterday?",
    "Which book should I read next?",
    "Describe the taste of blue.",
    "Where are my keys?",
    "Give me a list of ten hotels.",
    "Plan a trip for me.",
    "Do you know my friend?",
    "Summarize this article for me.",
    "asdf",
    "x",
    "foo bar baz",
    "Why?",
    "Really?",
    "The quick brown fox jumps over the lazy dog.",
    "Once upon a time",
    "Please explain how engines work.",
    "What happened in the year 1000?",
)
UNKNOWN_ANSWER = "I am sorry, I do not know that."

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

LONG_ANSWER = 120  # characters

SYSTEM_PROMPTS: tuple[str, ...] = (
    "You are a helpful assistant.",
    "Answer in one sentence.",
    "You are a friendly robot.",
    "Be brief.",
    "You are a teacher who talks to small children.",
)


def questions() -> list[tuple[str, str]]:
    """Return all (question, answer) pairs, always in the same order."""
    result = [(question, answer) for wordings, answer in ANSWERS for question in wordings]
    for country, capital, known in CAPITALS:
        answer = f"The capital of {country} is {capital}."
        result.append((f"What is the capital of {country}?", answer))
        result.append((f"Name the capital of {country}.", answer))
        result.append((f"What is {country} known for?", f"{country} is known for {known}."))
    for adj, animal, name, home, thing, food in CHARACTERS:
        result.append(
            (
                f"Who is {name}?",
                f"{name} is a {adj} {animal}."
                if adj[0] not in "aeiou"
                else f"{name} is an {adj} {animal}.",
            )
        )
        story = (
            f"{name} the {animal} lived in {home}. One day {name} found {thing} and did not know "
            f"what it was for. All the animals came to look, but nobody could help. So {name} put "
            f"it beside the bed, ate some {food} and went to sleep. In the morning it was gone, "
            f"and {name} never found out why."
        )
        result.append((f"Tell me a story about a {animal}.", story))
        result.append((f"Tell me a story about {name}.", story))
    for a in range(1, 6):
        for b in range(1, 6):
            answer = f"{NUMBERS[a].capitalize()} and {NUMBERS[b]} is {NUMBERS[a + b]}."
            result.append((f"What is {a} + {b}?", answer))
    result += [(question, UNKNOWN_ANSWER) for question in UNKNOWN]
    return result


def chat(rng: random.Random, pairs: list[tuple[str, str]]) -> list[Message]:
    """Return a chat of one to three question-answer pairs, some with a system message first."""
    # Long answers have many tokens to learn from each time, short ones only a few.
    weights = [1 if len(answer) > LONG_ANSWER else 3 for _, answer in pairs]
    messages: list[Message] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    for question, answer in rng.choices(pairs, weights, k=rng.choice((1, 1, 1, 2, 3))):
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return messages
