"""Steps that your program takes itself: look, change settings on the way (a schedule is that), and stop when you like."""

import phosphene

steps = phosphene.steps("sample:coffee", size=96, octaves=2, steps=6)
for step in steps:
    steps.change(step_size=0.01 * (1 - step.progress) + 0.002)  # strong strokes first
    if step.octave == 2 and step.step == 3:
        break
dream = steps.dream
assert "stopped before its end" in dream.made.unfinished
assert len(dream.trace.scores) == 9
