"""Instructions per token on Arm, counted under emulation, and cycles of the inner loops by llvm-mca's model of the Neoverse N1
(the Cortex-A76's server twin). Counts are exact and the same every run; loading cancels out by differences."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / "target/peers"
LANTERN = ROOT / "target/aarch64-unknown-linux-gnu/release/lantern"
# Prompts and answers whose difference is taken.
PROMPTS, ANSWERS = (32, 96), (1, 5)


def count(*command):
    # The Pi 5's processor: the emulator's own has more instructions, and Lantern would use them.
    emulator = [PEERS / "qemu/usr/bin/qemu-aarch64", "-cpu", "cortex-a76", "-plugin", PEERS / "instructions.so", "-d", "plugin"]
    done = subprocess.run([str(c) for c in [*emulator, *command]], capture_output=True, text=True)
    found = re.search(r"executed (\d+) instructions", done.stdout + done.stderr)
    if done.returncode or not found:
        sys.exit(f"{command[0]} failed under emulation:\n{done.stderr}")
    return int(found[1])


def lantern(file, n_prompt, n_answer):
    return count(LANTERN, "bench", file, "--threads", 1, "--prompts", n_prompt, "--depths", 0, "--decode", n_answer, "--sessions", 0, "--runs", 1)


def llama(file, n_prompt, n_answer):
    lengths = ["-p", n_prompt, "-n", 0] if n_prompt else ["-p", 0, "-n", n_answer]
    return count(PEERS / "llama-bench-arm", "-m", file, "-t", 1, *lengths, "-r", 1, "--no-warmup")


def per_token(measure, alone):
    """Millions of instructions of a token of the prompt and of one of the answer. `alone`: one is not measured beside the other."""
    few, many = (measure(n, 0 if alone else ANSWERS[0]) for n in PROMPTS)
    short, long = (measure(0 if alone else PROMPTS[0], n) for n in ANSWERS)
    return (many - few) / (PROMPTS[1] - PROMPTS[0]) / 1e6, (long - short) / (ANSWERS[1] - ANSWERS[0]) / 1e6


def table(files):
    for needed in (LANTERN, PEERS / "llama-bench-arm", PEERS / "qemu"):
        if not needed.exists():
            sys.exit(f"{needed.relative_to(ROOT)} is missing: run scripts/peers arm and scripts/cross")
    print("| file | figure | lantern | llama.cpp | ratio |\n|---|---|---|---|---|")
    for file in files:
        ours = per_token(lambda *n: lantern(file, *n), False)
        theirs = per_token(lambda *n: llama(file, *n), True)
        for figure, mine, other in zip(("prefill", "decode"), ours, theirs):
            print(f"| {file.stem} | {figure}, million instructions a token | {mine:.1f} | {other:.1f} | {mine / other:.2f} |", flush=True)


def loops():
    """Innermost loops of the panels' products in the Arm binary: (dot products of 16, instructions without the branch)."""
    text = subprocess.run(["aarch64-linux-gnu-objdump", "-d", "-C", "--no-show-raw-insn", str(LANTERN)], capture_output=True, text=True, check=True).stdout
    for function in re.split(r"\n\n", text):
        if not re.match(r"[0-9a-f]+ <kernels::neon::panel", function):
            continue
        lines = [(int(m[1], 16), m[2].split("//")[0].strip()) for m in re.finditer(r"^ *([0-9a-f]+):\t(.*)$", function, re.M)]
        places = {address: i for i, (address, _) in enumerate(lines)}
        for end, (_, instruction) in enumerate(lines):
            start = places.get(target(instruction))
            if start is None or start >= end:
                continue
            inside = range(lines[start][0], lines[end][0] + 1)
            body = [text for _, text in lines[start:end]]
            n_dots = sum(text.startswith("sdot") for text in body)
            # A check that leaves the loop is part of it, another loop within is not.
            if n_dots >= 16 and not any(target(text) in inside or text.startswith(("bl", "ret", "b\t")) for text in body):
                yield n_dots, [text for text in body if target(text) is None]


def target(instruction):
    """Where a conditional branch goes, or None."""
    branch = re.match(r"(?:b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+, #\d+,)\s*([0-9a-f]+)", instruction)
    return int(branch[1], 16) if branch else None


def cycles(body):
    """Cycles of one round of a loop, by the model."""
    source = "\n".join(re.sub(r"\t", " ", text) for text in body) + "\n"
    done = subprocess.run(["llvm-mca", "-mtriple=aarch64", "-mcpu=neoverse-n1", "-mattr=+dotprod,+fullfp16", "-iterations=100"], input=source, capture_output=True, text=True, check=True)
    return int(re.search(r"Total Cycles:\s+(\d+)", done.stdout)[1]) / 100


def loop_table():
    print("\n| inner loop | instructions | cycles | products of 8-bit numbers a cycle |\n|---|---|---|---|")
    seen = set()
    for n_dots, body in loops():
        seen.add((n_dots, len(body), cycles(body)))
    for n_dots, n, n_cycles in sorted(seen):
        print(f"| {n_dots} dot products of 16 | {n} | {n_cycles:.1f} | {16 * n_dots / n_cycles:.1f} |")
