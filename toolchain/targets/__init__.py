"""The generated C on emulated cores: the same bits as on the desktop, and what a run costs there."""
