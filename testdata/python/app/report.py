"""The program in the python image: one line of JSON that needs the interpreter, numpy and this layer's own file."""

import json
import sys
from pathlib import Path

import numpy

text = Path(__file__).with_name("words.txt").read_text(encoding="utf-8")
lengths = numpy.array([len(word) for word in text.split()])
json.dump({"words": len(lengths), "mean": round(float(lengths.mean()), 3), "longest": int(lengths.max())}, sys.stdout)
print()
