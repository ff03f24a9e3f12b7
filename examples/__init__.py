"""The classes that answer one sample at a time, and a reward of one's own, in short scripts."""
