"""Makes tests/goldens/data/text_metrics.json: reference scores of a small corpus of sentences.

Run with the references installed: pip install pycocoevalcap==1.2 sacrebleu==2.6.0
    python tests/goldens/make_text_goldens.py
"""

import json
import random
from pathlib import Path

import sacrebleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

WORDS = ["a", "the", "man", "dog", "red", "small", "runs", "on", "over", "grass", "beach", "ball", "to"]


def corpus(rng: random.Random, count: int, lengths: tuple[int, int]) -> tuple[list, list]:
    """References that share much with each other, and hypotheses made from one of them by edits."""
    hypotheses, references = [], []
    for _ in range(count):
        base = [rng.choice(WORDS) for _ in range(rng.randint(*lengths))]
        references.append([edited(rng, base, 0.3) for _ in range(rng.randint(1, 5))])
        hypotheses.append(edited(rng, base, rng.choice((0.0, 0.2, 0.6))))
    return hypotheses, references


def edited(rng: random.Random, words: list[str], rate: float) -> list[str]:
    out = []
    for word in words:
        draw = rng.random()
        if draw < rate / 3:
            continue
        out.append(rng.choice(WORDS) if draw < 2 * rate / 3 else word)
        if draw > 1 - rate / 3:
            out += [word] * rng.randint(1, 3)
    return out or ["a"]


def reference_scores(hypotheses: list, references: list) -> dict:
    gts = {i: [" ".join(r) for r in own] for i, own in enumerate(references)}
    res = {i: [" ".join(h)] for i, h in enumerate(hypotheses)}
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    _, rouge = Rouge().compute_score(gts, res)
    _, cider_d = Cider().compute_score(gts, res)
    most = max(map(len, gts.values()))
    columns = [[own[k] if k < len(own) else None for own in gts.values()] for k in range(most)]
    metric = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True)
    sacre = metric.corpus_score([own[0] for own in res.values()], columns).score / 100
    return {
        "hypotheses": hypotheses,
        "references": references,
        "bleu": [float(value) for value in bleu],
        "sacrebleu": sacre,
        "rouge_l": [float(value) for value in rouge],
        "cider_d": [float(value) for value in cider_d],
    }


def main() -> None:
    cases = {}
    for seed, (name, count, lengths) in enumerate(
        (("sentences", 40, (6, 14)), ("short", 25, (1, 4)), ("long", 6, (25, 40)), ("alone", 1, (8, 8)))
    ):
        cases[name] = reference_scores(*corpus(random.Random(seed), count, lengths))
    path = Path(__file__).parent / "data" / "text_metrics.json"
    path.write_text(json.dumps(cases) + "\n")
    for name, case in cases.items():
        print(name, [round(b, 4) for b in case["bleu"]], round(case["sacrebleu"], 4))


if __name__ == "__main__":
    main()
