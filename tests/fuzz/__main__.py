from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("tests.fuzz.command")
