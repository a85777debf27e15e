"""Quality figures in the store: several servers may write them at once, and the newest stay."""

import threading

from tutelage.feedback import figures
from tutelage.feedback.schema import Figures
from tutelage.feedback.store import Store


def test_servers_that_make_figures_at_once_leave_the_newest(store, project):
    ready, failed = threading.Barrier(5), []

    def keep(number):
        mine = Store.open(store.engine.url.render_as_string(False))
        ready.wait()
        try:
            with mine.write() as db:
                figures.keep(db, project, number, {"count": number}, 1.0)
        except Exception as error:
            failed.append(error)
        mine.close()

    threads = [threading.Thread(target=keep, args=(number,)) for number in (3, 1, 5, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with store.read() as db:
        assert [(row.number, row.found) for row in db.query(Figures)] == [(5, {"count": 5})]
