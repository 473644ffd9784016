"""`make drill`: break a running stack in every way that is known, and see who is told, how soon, and in which words."""
