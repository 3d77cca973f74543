"""One network is built or loaded at a time: two threads would load it twice, and share torch's random state."""

import threading

LOADING = threading.Lock()
