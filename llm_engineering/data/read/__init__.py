"""Reading: the rows of every source, as they stand there."""
