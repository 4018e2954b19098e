"""Room unfold."""
