"""What all Triton kernels share. Imported when a Triton kernel is first used, never before.

- `launch`: starts a kernel, or hands it to a test or to the compiler
- `aot`: compiles every kernel ahead of time, without a GPU, and compares what comes out with what is committed
"""
