"""Networks in PyTorch: the limit that they converge to as they grow wider, and how far they are from it.

    from kernelfield.torch import Recorder, describe

    run = describe(model, optimizer, X, y, nn.MSELoss(), steps=100)       # before training
    recorder = Recorder(model, X)                                         # recorder.record(step) in the training loop
    own, infinite = recorder.solution(run), kf.solve(run.network, run.problem, run.training)

PyTorch is imported when these are called. Networks of other frameworks hand their arrays to
`kernelfield.recording.Recording`.
"""

from kernelfield.torch.limit import Reading, describe, read
from kernelfield.torch.recorder import Recorder
from kernelfield.torch.widths import describe_scaling
from kernelfield.torch.words import Unreadable

__all__ = ["Reading", "Recorder", "Unreadable", "describe", "describe_scaling", "read"]
