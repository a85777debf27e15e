from tutelage.feedback import recent as module
from tutelage.feedback.recent import MANY, SHARE, Recent


def test_small_sums_are_fresh_and_large_ones_stand_for_a_while(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    seen = Recent()
    counts = iter([MANY - 1, MANY, 7, 8])

    def count() -> int:
        now[0] += 0.1
        return next(counts)

    def ask() -> int:
        return seen.of(("still open", "p"), count, int)

    assert [ask(), ask(), ask()] == [MANY - 1, MANY, MANY]
    now[0] += SHARE * 0.1 + 0.01  # it took a tenth of a second
    assert [ask(), ask()] == [7, 8]
