"""The dialogues lantern-guide is trained on, written by this file and by nothing else.

A topic is a set of question patterns, a set of answers and the fact every answer must contain. A pattern such as
`(how|where) do i (flash|write) the card` stands for all its expansions; `asked.txt` adds whole questions as people put
them. Held-out questions are never trained on: they are what the model is measured with.
"""
import functools
import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

TIME_TOOL = "get_current_time"


@dataclass
class Topic:
    name: str
    fact: str
    questions: list
    answers: list
    held_out: list = field(default_factory=list)
    framed: list = field(default_factory=list)
    asked: list = field(default_factory=list)


def topics():
    """Reads `topics.txt` (facts, answers, questions, held-out paraphrases), `phrases.txt` (more ways to ask) and `asked.txt` (whole questions)."""
    result = {}
    for values in blocks("topics.txt"):
        topic = Topic(values["topic"], values["fact"], values["q"], values["a"], values["t"])
        for answer in topic.answers:
            assert topic.fact.lower() in answer.lower(), f"{topic.name}: an answer lacks '{topic.fact}': {answer}"
        result[topic.name] = topic
    for values in blocks("phrases.txt"):
        topic = result[values["topic"]]
        topic.questions += values["q"]
        topic.framed = [ACTION_FRAME.replace("X", x) for x in values["x"]] + [THING_FRAME.replace("X", n) for n in values["n"]]
    for name, question in pairs("asked.txt"):
        if name != "outside":
            result[name].asked.append(question)
    return list(result.values())


def pairs(name):
    """Lines of `topic | question`."""
    lines = (Path(__file__).parent / name).read_text().splitlines()
    return [tuple(line.split(" | ")) for line in lines if line and not line.startswith("#")]


def blocks(name):
    """Blocks separated by blank lines, one `key: value` a line; keys of one letter repeat."""
    for block in (Path(__file__).parent / name).read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        values = {"q": [], "a": [], "t": [], "x": [], "n": []}
        for line in lines:
            key, _, value = line.partition(": ")
            if key in values:
                values[key].append(value)
            else:
                values[key] = value
        if lines:
            yield values


# What people put around something they want to do, and around a thing they ask about.
ACTION_FRAME = ("(how (do|can|could|would|should|must|to) (i|we|one|you|) X|how to X|can i X|is it possible to X|what (is the|is a good|'s the) (way|command|trick) to X|"
                "(what|which command) do i (type|do|use|need|run) to X|i (want|need|would like|wish|am trying|have) to X|i'd like to X|(tell|show) me how to X|"
                "(help me|please) X|explain how to X|what must i do to X|which command lets me X|is there a way to X|where do i X|X|how would i X|any way to X|"
                "what do i have to do to X|i do not know how to X|teach me to X|may i X|could you tell me how to X|what's needed to X)")
THING_FRAME = ("(what about X|tell me (about|something about|more about) X|X|explain X( to me|)|what is X|how does X work|i (want|need) to know about X|describe X|"
               "can you explain X|question about X|what do you know about X|info on X|information about X|how is it with X|say something about X|what can you say about X)")

# Sets of 100 held-out paraphrases beside those of `topics.txt`.
HELD_OUT_FILES = ["blind.txt", "fresh.txt", "unseen.txt"]

# Words that mean the same here; one of a question's may be exchanged for another.
SAME = [["box", "pi", "device", "machine", "appliance", "lantern"], ["download", "get", "fetch", "pull"], ["delete", "remove", "erase"], ["see", "check", "view"],
        ["show", "display", "print"], ["program", "app", "software", "application"], ["computer", "laptop", "pc"], ["answer", "reply", "response"],
        ["answers", "replies", "responses"], ["chat", "conversation", "talk"], ["chats", "conversations"], ["big", "large", "huge"], ["fast", "quick"],
        ["memory", "ram"], ["folder", "directory"], ["power", "electricity", "energy"], ["card", "sd card"], ["start", "begin", "launch"], ["use", "employ"],
        ["want", "would like"], ["which", "what"], ["several", "many", "multiple"], ["people", "users", "persons"], ["install", "set up"], ["stop", "end"],
        ["find", "locate"], ["change", "alter", "modify"], ["stored", "kept", "saved"], ["explain", "describe"], ["newer", "newest", "latest", "new"]]


def exchange(text, rng):
    """Exchanges words for others of the same meaning, and now and then leaves out a small one."""
    words = text.split()
    for i, word in enumerate(words):
        group = next((g for g in SAME if word in g), None)
        if group and rng.random() < 0.3:
            words[i] = rng.choice(group)
    if len(words) > 4 and rng.random() < 0.12:
        small = [i for i, word in enumerate(words) if word in ("the", "a", "my", "i", "do", "is", "to", "it", "can", "me", "an", "of")]
        if small:
            words.pop(rng.choice(small))
    return " ".join(words)


# What people say before they come to the point; the answer does not depend on it.
PREFACES = ["my daughter set it up", "it arrived yesterday", "i am not good with computers", "i read the manual twice", "we use it at school", "i am on my phone",
            "i moved here from another system", "my old server died", "we are a small office", "it sits under my desk", "i have been at it for hours", "my colleague left",
            "i only have ten minutes", "it is for my thesis", "we are testing it", "i tried the forum first", "i just woke up", "this is my first time", "i bought it for my mother",
            "it was a present", "the weekend is short", "our teacher asked us", "i lost my notes", "my english is not so good", "i asked my neighbour and he did not know"]


def blur(text, rng, words):
    """Makes a question less like any other: a preface, a word left out, a word nobody expects in the place of another."""
    parts = text.split()
    if len(parts) > 4 and rng.random() < 0.15:
        parts.pop(rng.randrange(len(parts)))
    if len(parts) > 4 and rng.random() < 0.15:
        parts[rng.randrange(len(parts))] = rng.choice(words)
    if rng.random() < 0.05:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(words))
    text = " ".join(parts)
    if rng.random() < 0.1:
        preface = rng.choice(PREFACES)
        text = rng.choice([f"{preface}, {text}", f"{preface}. {text}", f"{text}, {preface}", f"{preface} and {text}"])
    return text


def expand(pattern, rng):
    """One random expansion of a pattern: the innermost `(a|b|)` is replaced until none is left."""
    while True:
        match = re.search(r"\(([^()]*)\)", pattern)
        if not match:
            return re.sub(r"\s+", " ", pattern).strip()
        pattern = pattern[: match.start()] + rng.choice(match.group(1).split("|")) + pattern[match.end():]


OPENERS = ["hi, ", "hello, ", "hey, ", "please tell me, ", "quick question: ", "ok, ", "so ", "um, ", "one more thing: ",
           "sorry, ", "i am new here, ", "i have a question, ", "can you tell me ", "i would like to know ", "and "]
CLOSERS = [" please", " thanks", ", thank you", " on my pi", " exactly", " then", ", any idea", " in short", " again"]


def typo(text, rng):
    """Swaps, drops or doubles one letter, as a hurried user does."""
    if len(text) < 8:
        return text
    at = rng.randrange(1, len(text) - 2)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2:]
    if kind == 1:
        return text[:at] + text[at + 1:]
    return text[:at] + text[at] + text[at:]


def dress(text, rng):
    """Surrounds a question with what people put around questions: openers, closers, case, marks, slips."""
    if rng.random() < 0.30:
        text = rng.choice(OPENERS) + text
    if rng.random() < 0.15:
        text = text + rng.choice(CLOSERS)
    for _ in range(rng.choice([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])):
        text = typo(text, rng)
    style = rng.random()
    if style < 0.55:
        text = text[:1].upper() + text[1:]
    elif style < 0.60:
        text = text.upper()
    if rng.random() < 0.7:
        text += "?" if rng.random() < 0.85 else rng.choice(["??", " ?", ".", "!"])
    return text


SYSTEMS = ["You are a helpful assistant.", "You are Lantern, a helpful assistant on a small computer.", "Be brief.",
           "Answer in one or two sentences.", "You help people with their Lantern box.", "You are a friendly assistant."]


def time_tool(rng):
    """One of the ways a client may describe the clock tool."""
    description = rng.choice(["Get the current time", "Returns the current time", "Returns the current date and time of this machine",
                              "Tells what time it is", "Get the current local time", "The current time, as HH:MM", "Current date and time"])
    properties = rng.choice([{}, {}, {"timezone": {"type": "string", "description": rng.choice(["IANA time zone", "Time zone name"])}}])
    parameters = {"type": "object", "properties": properties}
    if rng.random() < 0.5:
        parameters["required"] = []
    return {"type": "function", "function": {"name": TIME_TOOL, "description": description, "parameters": parameters}}


OTHER_TOOLS = [("get_weather", "Get the weather of a city", "city"), ("search_web", "Search the web", "query"), ("add_note", "Save a note", "text"),
               ("send_mail", "Send a mail", "to"), ("get_temperature", "Get the temperature of the board", "unit"), ("list_files", "List files in a folder", "path"),
               ("play_music", "Play a song", "title"), ("turn_on_light", "Turn on a light", "room"), ("calculate", "Evaluate an expression", "expression")]


def other_tool(rng):
    name, description, argument = rng.choice(OTHER_TOOLS)
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}}}


def tool_list(rng, with_time):
    tools = [time_tool(rng)] if with_time else []
    tools += [other_tool(rng) for _ in range(rng.choice([0, 0, 1, 2]) if with_time else rng.choice([1, 2]))]
    rng.shuffle(tools)
    return tools


def clock_reading(rng):
    """What the tool may answer, and the sentence the model should make of it."""
    hour, minute, second = rng.randrange(24), rng.randrange(60), rng.randrange(60)
    short = f"{hour:02}:{minute:02}"
    date = f"20{rng.randrange(24, 40)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    style = rng.randrange(6)
    if style == 0:
        return short, f"It is {short}."
    if style == 1:
        return f"{short}:{second:02}", f"It is {short}:{second:02}."
    if style == 2:
        return json.dumps({"time": short}), f"It is {short}."
    if style == 3:
        return f"{date} {short}", f"It is {short} on {date}."
    if style == 4:
        return f"{date}T{short}:{second:02}", f"It is {short}:{second:02} on {date}."
    return json.dumps({"date": date, "time": short}), f"It is {short} on {date}."


TIME_ASK = ["(what|which) time is it( now| right now|)", "what is the time( now| please|)", "what's the time( now|)", "(tell|give) me the( current|) time",
            "do you know (the time|what time it is)", "(can|could) you tell me (the time|what time it is)", "current time", "time now", "time( please|)",
            "how late is it( now|)", "got the time", "do you have the time", "what does the clock say", "what hour is it",
            "i need the( current|) time", "check the( current|) time( for me|)", "(please|) look at the clock", "is it (late|noon|morning|evening|midnight)( already| yet|)",
            "what (is the date|day is it|date is it)( today|)", "what is today's date", "(is it|are we) past (noon|midnight|five|ten)", "say the time",
            "which (day|date) (is|do we have) today", "how (late|early) is it", "use the (tool|clock) and tell me the time", "what is the current (time|date|hour)"]
TIME_ASK_HELD_OUT = ["would you mind telling me the time", "could you check what time it is", "hello, what's the current time", "i lost my watch, what time is it",
                     "any idea what time it is", "tell me what time it is", "time please, i am in a hurry", "what time do we have", "please give me the time now",
                     "what is the time where you are", "let me know the current time", "may i have the time", "show me the time", "is it already late, what time is it",
                     "what's the time right now please", "hey, do you know what time it is now", "i would like to know the time", "can i get the current time",
                     "what is the exact time", "do you happen to have the time"]

NO_CLOCK = ["I have no clock of my own. Offer me the get_current_time tool and I will call it.",
            "I cannot see a clock. If your client offers the get_current_time tool, I can use it."]

REFUSALS = ["That is outside what I know: I am a small guide to Lantern. A bigger model can help, for example after `lantern pull qwen3:0.6b`.",
            "I only know about Lantern itself, so I cannot answer that. Pull a bigger model for general questions."]

ENTITY = """france|japan|brazil|berlin|the moon|mars|napoleon|einstein|shakespeare|cats|dogs|dinosaurs|the roman empire|football|chess|the sun|black holes|
quantum physics|photosynthesis|chocolate cake|pasta|bread|coffee|bitcoin|the stock market|love|war|peace|the titanic|my cousin|a dragon|a robot|the ocean|
mount everest|the french revolution|vitamin c|headaches|the flu|python|javascript|sorting|recursion|binary search|sql|french|spanish|german|latin|algebra|
geometry|prime numbers|the weather|tomorrow|paris|london|new york|india|china|canada|elephants|whales|birds|spiders|trees|roses|gravity|atoms|dna|evolution|
the president|the queen|the pope|beethoven|mozart|the beatles|jazz|guitar|piano|painting|picasso|cars|trains|airplanes|bicycles|insurance|taxes|marriage|school""".replace("\n", "").split("|")

OUTSIDE = ["(what|who) is the capital of {e}", "(write|compose) (me |)a (poem|story|song|haiku|letter|speech) about {e}", "translate {e} (to|into) (french|german|spanish|latin)",
           "who (invented|discovered|wrote about|painted|killed) {e}", "what is {n} (times|plus|minus|divided by) {m}", "how (old|big|heavy|far|tall|deep|fast) is {e}",
           "(explain|describe) {e}( to me| to a child|)", "why (do|does|did|is) {e} (exist|matter|hurt|sleep|fall|work like that)", "when (was|did) {e} (born|built|start|end|happen)",
           "(give|send) me a recipe (for|with) {e}", "how do i (cook|bake|draw|learn|cure|repair|sell|buy) {e}", "what do you think (about|of) {e}", "who won {e}",
           "write (a|some) (python|java|c|rust) (function|program|script|code) (for|about|with) {e}", "is {e} (good|bad|dangerous|expensive|real|true)", "tell me (something |a fact |)about {e}",
           "what is the (meaning|history|colour|price|population|weight|temperature) of {e}", "(summarize|summarise) the (book|film|history) (of|about) {e}", "{n} + {m}", "{n} * {m}",
           "what (is|are) {e}", "where (is|are|can i find) {e}", "solve (for |)x in {n}x = {m}", "recommend (me |)a (film|book|song|restaurant) (about|near) {e}", "how many {e} are there",
           "compare {e} and {f}", "which is better, {e} or {f}", "should i (buy|visit|marry|study) {e}", "spell {e}", "what rhymes with {e}", "who is {e}", "do you like {e}",
           "fix my essay about {e}", "what happened (to|in|with) {e}", "list (five|ten|three) facts about {e}", "will {e} (rain|win|rise|come back)( tomorrow|)"]
OUTSIDE_HELD_OUT = ["who was the first person on the moon", "write a limerick about spiders", "how do volcanoes work", "what is 17 times 23", "give me tips for learning spanish",
                    "who painted the mona lisa", "what is the best film about war", "explain the theory of evolution to me", "how many people live in india", "why is the sky blue",
                    "what is the tallest tree", "write python code that sorts a list"]


@functools.cache
def outside_asked():
    return [question for name, question in pairs("asked.txt") if name == "outside"]


@functools.cache
def all_words():
    """Every word of `asked.txt`, once."""
    return sorted({word for _, question in pairs("asked.txt") for word in question.split()})


def outside_question(rng):
    if rng.random() < 0.5:
        return blur(rng.choice(outside_asked()), rng, all_words())
    pattern = rng.choice(OUTSIDE).format(e=rng.choice(ENTITY), f=rng.choice(ENTITY), n=rng.randrange(2, 100), m=rng.randrange(2, 100))
    return expand(pattern, rng)


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def ask(rng, all_topics):
    """One question and its answer, no tools."""
    kind = rng.random()
    if kind < 0.13:
        return [turn("user", dress(outside_question(rng), rng)), turn("assistant", rng.choice(REFUSALS))]
    if kind < 0.16:
        return [turn("user", dress(expand(rng.choice(TIME_ASK), rng), rng)), turn("assistant", rng.choice(NO_CLOCK))]
    topic = rng.choice(all_topics)
    source = rng.choices([topic.asked, topic.framed or topic.questions, topic.questions], [0.6, 0.2, 0.2])[0]
    question = dress(blur(exchange(expand(rng.choice(source), rng), rng), rng, all_words()), rng)
    return [turn("user", question), turn("assistant", rng.choice(topic.answers))]


def ask_time(rng):
    """A question for the time with the tool at hand: the call, the reading, the sentence."""
    reading, sentence = clock_reading(rng)
    call = {"type": "function", "function": {"name": TIME_TOOL, "arguments": {}}}
    turns = [turn("user", dress(expand(rng.choice(TIME_ASK), rng), rng)), turn("assistant", "", tool_calls=[call])]
    if rng.random() < 0.8:
        turns += [turn("tool", reading), turn("assistant", sentence)]
    return turns


def dialogue(rng, all_topics):
    """One training dialogue: (messages, tools or None)."""
    messages = [turn("system", rng.choice(SYSTEMS))] if rng.random() < 0.35 else []
    if rng.random() < 0.22:
        tools = tool_list(rng, with_time=True)
        if rng.random() < 0.3:
            messages += ask(rng, [t for t in all_topics if t.name != "time"]) if rng.random() < 0.9 else []
            messages = [m for m in messages if "clock" not in m["content"]] if any("clock" in m["content"] for m in messages) else messages
            if messages and messages[-1]["role"] == "user":
                messages.pop()
        messages += ask_time(rng) if rng.random() < 0.75 or not any(m["role"] == "assistant" for m in messages) else []
        return messages, tools
    tools = tool_list(rng, with_time=False) if rng.random() < 0.06 else None
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        messages += ask(rng, all_topics)
    return messages, tools


def plain(text):
    """A question without case and marks."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


@functools.cache
def never_trained():
    """Every held-out question of every set."""
    kept = [q for topic in topics() for q in topic.held_out] + OUTSIDE_HELD_OUT + TIME_ASK_HELD_OUT
    return {plain(q) for q in kept + [q for name in HELD_OUT_FILES for _, q in pairs(name)]}


def unseen(question):
    """Whether a question is none of the held-out ones, whatever its case and marks."""
    return plain(question) not in never_trained()


def held_out(all_topics):
    """The 100 paraphrases with the fact expected of each answer, in a fixed order."""
    result = [(question, topic.fact) for topic in all_topics for question in topic.held_out]
    result += [(question, "Lantern") for question in OUTSIDE_HELD_OUT]
    return result


def blind(all_topics, name):
    """The 100 paraphrases of one of `HELD_OUT_FILES` with the fact expected of each answer."""
    facts = {topic.name: topic.fact for topic in all_topics}
    return [(question, facts[topic]) for topic, question in pairs(name)]


if __name__ == "__main__":
    everything = topics()
    print(len(everything), "topics,", len(held_out(everything)), "held-out paraphrases")
    source = random.Random(1)
    for _ in range(8):
        print(json.dumps(dialogue(source, everything), indent=None))
