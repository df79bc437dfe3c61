"""What differs from machine to machine, and files, streams and the terminal."""
