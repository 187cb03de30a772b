"""The devices of the board, a module each."""
