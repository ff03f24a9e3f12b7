"""Fuzzing: every reader of files from strangers, with files whose bytes or structure are damaged.

    python -m tests.fuzz --inputs 20000

An input is the whole files of one kind - an image, a checkpoint, a list with its pictures, a stopped run's folder -
with one to three mutations: bytes flipped, cut, joined; values of JSON, YAML and pickles of another type, missing,
twice, nested deep, without end; tensors of another shape, type or layout; pipes, devices and folders in place of
files; records and memories of a run with values of other kinds, their checksums made anew (`forged`).
A reader must read it or refuse it in one sentence (`UserError`), within a time limit and a bound of memory; a run that
goes on with a damaged folder must end with the numbers of an undisturbed one. All else is a failure.

--output (default: output/fuzz) holds cases.jsonl, a line an input; corpus/, the whole files; and failures/, a folder
for each failing input, at most three of a kind, with what went wrong in case.json. An input depends on (--seed, its
number) alone. The same command goes on where it was stopped, and further with more --inputs. A failing input is read
again by

    python -m tests.fuzz --replay output/fuzz/failures/NAME

`mutations` has the mutations (of `bytes`, `trees` and `tensors`), `readers` and `runs` the readers, `corpus` the
inputs, `pool` the processes that read them, `command` the command. 20,000 inputs take under an hour on two cores. The
exit code is 1 where an input fails.
"""
