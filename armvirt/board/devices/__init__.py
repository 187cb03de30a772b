"""The devices of the board, one module for each device."""
