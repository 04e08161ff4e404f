"""Measures lantern-guide on the held-out paraphrases through a running server: measure.py [http://host:port]

Prints what failed, then the figures: answers that contain the expected fact, for each of four sets of 100 paraphrases that are
kept out of training, and well-formed calls of the clock tool. Ends with an error when a set or the calls are below their goals.
"""
import json
import random
import re
import sys
import urllib.request

import dialogues
from render import render

FACTS_GOAL, CALLS_GOAL = 0.90, 0.95


def answer(host, prompt):
    body = json.dumps({"model": "lantern-guide", "prompt": prompt, "raw": True, "stream": False,
                       "options": {"temperature": 0, "num_predict": 120}}).encode()
    with urllib.request.urlopen(urllib.request.Request(host + "/api/generate", body)) as reply:
        return json.load(reply)["response"]


def measure(ask, render):
    """`ask(prompt)` gives the answer, `render(messages, tools)` the prompt. Returns the lowest rate of facts in a set and the rate of calls."""
    def count_right(questions):
        right = 0
        for question, fact in questions:
            reply = ask(render([{"role": "user", "content": question[:1].upper() + question[1:] + "?"}], None))
            good = fact.lower() in reply.lower()
            right += good
            if not good:
                print(f"missing '{fact}': {question} -> {reply}")
        return right

    topics = dialogues.topics()
    sets = {"topics.txt": dialogues.held_out(topics)} | {name: dialogues.blind(topics, name) for name in dialogues.HELD_OUT_FILES}
    rates = {name: count_right(questions) / len(questions) for name, questions in sets.items()}
    rng, called = random.Random(5), 0
    for question in dialogues.TIME_ASK_HELD_OUT:
        reply = ask(render([{"role": "user", "content": question[:1].upper() + question[1:] + "?"}], dialogues.tool_list(rng, True)))
        match = re.fullmatch(r"<tool_call>\n(\{.*\})\n</tool_call>", reply.strip())
        good = bool(match) and json.loads(match[1]).get("name") == dialogues.TIME_TOOL
        called += good
        if not good:
            print(f"no call: {question} -> {reply}")
    for name, questions in sets.items():
        print(f"{name}: facts {round(rates[name] * len(questions))} of {len(questions)}")
    print(f"calls {called} of {len(dialogues.TIME_ASK_HELD_OUT)}")
    return min(rates.values()), called / len(dialogues.TIME_ASK_HELD_OUT)


if __name__ == "__main__":
    server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:11434"
    facts, calls = measure(lambda prompt: answer(server, prompt), lambda messages, tools: render(messages, tools, True))
    sys.exit(facts < FACTS_GOAL or calls < CALLS_GOAL)
