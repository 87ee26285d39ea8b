"""A clock that a test moves, and parts of a served repository taken away or spoilt."""

from contextlib import contextmanager

from serving_client.degraded import code_of


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def codes(answer):
    return [code_of(text) for text in answer.degraded]


@contextmanager
def away(path):
    """The file or folder is gone within the block."""
    path.rename(path.with_name(f"{path.name}.away"))
    try:
        yield
    finally:
        path.with_name(f"{path.name}.away").rename(path)


# --- the newest publication ----------------------------------------------------------------------------------------


def spoil_next(shop, number):
    """A newer publication whose marker cannot be read."""
    broken = shop.online / "publications" / f"{number + 1:06d}"
    broken.mkdir()
    (broken / "publication.json").write_text("{")
    return broken
