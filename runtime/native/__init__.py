"""The compiled side: a pass's code on the CPU, in float32, by kernels in C. `kernels.c` says how; needs no torch."""
