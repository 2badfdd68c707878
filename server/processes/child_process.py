"""A child process that ends when its parent was killed, so that nothing runs unsupervised."""

import os
import signal
import threading
import time

LOOK_EVERY_S = 0.2


def exit_with_parent(parent: int) -> None:
    """End this process soon after it loses the parent with this process identifier."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        os.kill(os.getpid(), signal.SIGKILL)  # as the parent was: every step must survive that

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
