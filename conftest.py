"""Which files the tests leave out on this machine."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["src/leanconv/ops/dynamic/triton_*.py"]
