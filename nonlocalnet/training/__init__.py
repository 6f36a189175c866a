"""The parts of training that `train` puts together, in reading order.

plan (every number, and why), prepare (the network and its optimizer), batches (which clips a step
learns from), run (the folder; begin or go on), validate, and beside them checkpoint, journal,
probe and interrupt.
"""
