"""`make chaos`: kill, break and repeat everything at random, and count every mail afterwards."""
