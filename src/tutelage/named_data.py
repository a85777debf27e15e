"""Data by the name of a project: what `--data` and a recipe's `data` may say beside files and `world`."""


def local_data(spec: str) -> str:
    """`feedback:PROJECT[@STORE]` or a project's URL → the folder of its answers; anything else as it is."""
    if not spec.startswith(("feedback:", "http://", "https://")):
        return spec
    from tutelage.feedback.source import local_data as exported  # the store takes a while to load

    return exported(spec)
