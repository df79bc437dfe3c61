"""What each command of `replicate` does; imported when it is called."""
