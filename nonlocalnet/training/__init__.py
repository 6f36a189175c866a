"""The parts of training that `train` puts together, in reading order.

plan (every number, and why), schedule, prepare (the network and its optimizer), batches (which
clips a step learns from), run (the folder; begin or go on), loss, step, epoch and validate; state
is what they share, parallel and watch are for several processes, norms for their batch norms, and
beside them stand checkpoint, journal, probe and interrupt.
"""
