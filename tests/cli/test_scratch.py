import commands, time


def test_it(model, data):
    for name in ("transformer", "lstm"):
        t = time.time()
        folder = model(name)
        print(name, time.time() - t)
        print((folder / "train.log").read_text()[-6000:])
        import subprocess

        print(subprocess.run(["find", folder], capture_output=True, text=True).stdout)
        out = commands.run(
            "fairseq-generate",
            data,
            *commands.USER_DIR,
            "--path",
            folder / "checkpoint_last.pt",
            "--beam",
            10,
            "--nbest",
            10,
            "--cpu",
            "--print-alignment",
        )
        print(out[-6000:])
        print(commands.parse_generation(out))
