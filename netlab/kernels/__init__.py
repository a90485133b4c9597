"""Other kernels than this machine's: which there are, and a command of netlab's run under one, in a virtual machine.

`choice.py` says which package a request means, `packages.py` has it from Debian, `guest.py` is what happens inside the
machine, `machine.py` boots it and brings back what came of it. The machine is virtme-ng's.
"""
