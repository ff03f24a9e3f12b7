"""The study: which method should one use, and is the gain of RLCF real?"""
